"""Rows taken out of logged requests and responses, of whatever serving system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.read_jsonl import cell_text
from mlmon_dagster.ingest.raw import (
    Options,
    RawFile,
    Refusal,
    check_header,
    check_size,
    text_array,
)


class PayloadError(Exception):
    """A request or response that is not what its format says; the text says what was expected."""


def row_id(request_id: str, number: int, n_rows: int) -> str:
    """Return the prediction id of a request's row: the request's own id if it has one row.

    Example:
        >>> row_id("a1", 0, 1), row_id("a1", 2, 3)
        ('a1', 'a1-2')
    """
    return request_id if n_rows == 1 else f"{request_id}-{number}"


class PayloadRows:
    """Collects the wanted cells of rows given as mappings from name to value.

    Names are ``inputs.X`` and ``outputs.X`` for what the model took and gave; other names are
    those of the event around it. A wanted name that is none of them means an input.
    """

    def __init__(self, place: str, wanted: Sequence[Column], options: Options) -> None:
        self._place = place
        self._wanted = wanted
        self._options = options
        self._cells: dict[str, list[str | None]] = {column.source: [] for column in wanted}
        self._places: list[str] = []
        self._lines: list[tuple[int, ...]] = []
        self._refused: dict[tuple[str, str], list[int]] = {}
        self._present: dict[str, None] = {}
        self._known: set[str] = set()
        self._id = next((c.source for c in wanted if c.name == "prediction_id"), "")
        self._n_good = 0

    def add(self, lines: tuple[int, ...], number: int, row: Mapping[str, object]) -> None:
        """Take the wanted cells of one row; the first of its lines is that of the request."""
        self._begin(f"line {lines[0]}, row {number + 1}", lines)
        self._n_good += 1
        if not row.keys() <= self._known:
            self._note_names(row)
        for name, cells in self._cells.items():
            full = name if name in row else f"inputs.{name}"
            cells.append(cell_text(row.get(full)))

    def refuse(
        self,
        lines: tuple[int, ...],
        reason: str,
        expected: str,
        request_id: str | None = None,
    ) -> None:
        """Keep the place of what cannot be read as one bad row."""
        self._begin(f"line {lines[0]}", lines)
        self._refused.setdefault((reason, expected), []).append(len(self._places) - 1)
        for name, cells in self._cells.items():
            cells.append(request_id if name == self._id else None)

    def finish(self) -> RawFile:
        """Return what was collected.

        Raises:
            SchemaError: If a column that must exist is in no row.
        """
        if self._n_good:
            check_header(self._place, tuple(self._present), self._wanted)
        arrays = {n: text_array(c) for n, c in self._cells.items() if n in self._present}
        places = self._places
        refusals = tuple(Refusal(*why, tuple(rows)) for why, rows in self._refused.items())
        return RawFile(
            arrays, len(places), tuple(self._present), lambda rows: [places[r] for r in rows],
            refusals, lambda rows: [self._lines[r] for r in rows], shares_lines=True,
        )  # fmt: skip

    def _begin(self, place: str, lines: tuple[int, ...]) -> None:
        check_size(self._place, len(self._places) + 1, len(self._cells), self._options.max_rows)
        self._places.append(place)
        self._lines.append(lines)

    def _note_names(self, row: Mapping[str, object]) -> None:
        self._known |= row.keys()
        for name in row:
            end, _, inner = name.partition(".")
            if name in self._cells:
                self._present[name] = None
            elif end == "inputs" and inner in self._cells and inner not in row:
                self._present[inner] = None
            elif end in ("inputs", "outputs"):
                self._present[name] = None
