"""Lines of JSON, shared by the formats that are made of them; numbers keep their digits.

Plain lines are read the fast way; whatever is unusual is left to the careful way. Arrow parses
ten times faster than the standard library, and guesses. So it is told the type of every column,
from the first lines; anything that does not fit, it reports, and nothing is lost: the file is then
read line by line. Both ways give the same cells.

Formats that log requests and responses collect their rows in `PayloadRows`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.json as arrow_json

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import (
    Options,
    RawFile,
    Refusal,
    check_header,
    check_size,
    in_parts,
    refused,
    text_array,
)

ENDINGS: Final[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")
_MAX_LINE = 1 << 24
# A nested value is no cell of a table; the NUL makes the cell refused as of the wrong type.
NESTED = "\0"
_SAMPLE = 1_000  # lines
_LEAST_BYTES = 1 << 16  # a small file is read at once anyway
_BLOCK = 1 << 24
_BREAK = b"}\n{"


def json_lines(path: Path, place: str) -> Iterator[tuple[int, object]]:
    """Yield the number and the value of every line that is not blank.

    Raises:
        SchemaError: If a line is cut, is no JSON or repeats a key, or is not UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
            if not line.isspace():
                yield number, _parsed(line, f"{place}, line {number}", number == 1)


def as_object(value: object, where: str) -> dict[str, object]:
    """Return a JSON object.

    Raises:
        SchemaError: If it is another kind of value.
    """
    if not isinstance(value, dict):
        found = f"a JSON {type(value).__name__}; expected a JSON object."
        raise refused(where, "malformed_json", found)
    return value


def decode_json(text: str) -> object:
    """Parse JSON whose numbers become the text they were written with.

    Raises:
        ValueError: If it is no JSON, repeats a key or is nested too deeply.
    """
    try:
        return _DECODER.decode(text.strip())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def cell_text(cell: object) -> str | None:
    """Return a JSON value as the text of a cell."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return NESTED


def vector_text(cell: object) -> str:
    """Return a list of numbers, which `decode_json` has as texts, as the JSON of a cell."""
    numbers = cell if isinstance(cell, list) else []
    return f"[{', '.join('null' if one is None else str(one) for one in numbers)}]"


def find_cell(row: Mapping[str, object], name: str) -> tuple[bool, object]:
    """Say whether a row has a column, and its cell; a dotted name may lead into objects."""
    if name in row:
        return True, row[name]
    if "." not in name:
        return False, None
    value: object = row
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value


class JsonCells:
    """Collects the wanted cells of rows that are JSON objects, as text.

    Attributes:
        present: What the rows have; inside the objects that columns are taken from, by dotted name.
    """

    def __init__(self, wanted: Sequence[Column]) -> None:
        self._cells: dict[str, list[str | None]] = {column.source: [] for column in wanted}
        self._vectors = {column.source for column in wanted if column.kind == "vector"}
        self._roots = {name.partition(".")[0] for name in self._cells if "." in name}
        self._keys: set[str] = set()
        self.present: dict[str, None] = {}

    def add(self, row: Mapping[str, object]) -> None:
        """Take the wanted cells of one row; a column that it lacks is null."""
        if not row.keys() <= self._keys:
            self._keys |= row.keys()
            for key, value in row.items():
                inner = leaves(value, key) if key in self._roots else [(key, value)]
                self.present.update((name, None) for name, _ in inner)
        for name, cells in self._cells.items():
            is_there, cell = find_cell(row, name)
            if is_there:
                self.present.setdefault(name)
            is_vector = name in self._vectors and isinstance(cell, list)
            cells.append(vector_text(cell) if is_vector else cell_text(cell))

    def columns(self) -> dict[str, pa.Array]:
        """Return the columns that any of the rows has."""
        return {n: text_array(cells) for n, cells in self._cells.items() if n in self.present}


def leaves(value: object, name: str, depth: int = 8) -> Iterator[tuple[str, object]]:
    """Yield the dotted name and value of everything inside objects; lists are values."""
    if isinstance(value, dict) and depth:
        for key, child in value.items():
            yield from leaves(child, f"{name}.{key}" if name else key, depth - 1)
    else:
        yield name, value


def _parsed(line: bytes, where: str, is_first: bool) -> object:
    try:
        return decode_json(line.decode("utf-8-sig" if is_first else "utf-8"))
    except UnicodeDecodeError as error:
        found = f"byte {error.start + 1} of the line is not UTF-8; expected UTF-8."
        raise refused(where, "not_utf8", found) from error
    except _RepeatedKeyError as error:
        raise refused(where, "duplicate_column", "a key is present twice in one object.") from error
    except ValueError as error:
        if not line.endswith(b"\n"):
            found = "the last line is cut off; expected a whole JSON object and a line end."
            raise refused(where, "cut_line", found) from error
        raise refused(where, "malformed_json", "not JSON; expected a JSON object.") from error


class _RepeatedKeyError(ValueError):
    """One object holds the same key twice."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _RepeatedKeyError
    return row


_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_unique
)


def read_jsonl(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a file of one JSON object a line; a key that a row lacks is null in that row.

    Only what can be read the fast way comes in parts.

    Raises:
        SchemaError: If a line is cut, is no JSON object or repeats a key, if the file is not
            UTF-8 or if a column is in no row.
    """
    parts = read_flat(path, place, wanted, options)
    if parts is None:
        yield read_any(path, place, wanted, options)
    else:
        yield from parts


def read_any(path: Path, place: str, wanted: Sequence[Column], options: Options) -> RawFile:
    """Read line by line whatever is legal, and say on which line it is not."""
    cells = JsonCells(wanted)
    numbers: list[int] = []
    for number, value in json_lines(path, place):
        row = as_object(value, f"{place}, line {number}")
        if len(numbers) >= options.max_rows:
            check_size(place, len(numbers) + 1, len(wanted), options.max_rows)
        numbers.append(number)
        cells.add(row)
    if numbers:
        check_header(place, tuple(cells.present), wanted)
    return RawFile(
        cells.columns(), len(numbers), tuple(cells.present), _places(numbers),
        lines_of=lambda rows: [(numbers[row],) for row in rows],
    )  # fmt: skip


def _places(numbers: list[int]) -> Callable[[Sequence[int]], list[str]]:
    return lambda rows: [f"line {numbers[row]}" for row in rows]


def read_flat(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile] | None:
    """Read a file of flat objects, one on each line; None if it is anything else.

    Raises:
        SchemaError: If it has too many rows, or a column is in no row.
    """
    if path.stat().st_size < _LEAST_BYTES or any("." in column.source for column in wanted):
        return None
    n_rows = _count_lines(path)
    if n_rows is None:
        return None
    check_size(place, n_rows, len(wanted), options.max_rows, options.rows_at_once)
    present, types = _look(path, wanted)
    missing = [c.source for c in wanted if c.source not in present]
    if types is None or _holds_any(path, missing):
        return None
    if options.rows_at_once is None or n_rows <= options.rows_at_once:
        tables = list(_parse(path, types))
        n_read = sum(table.num_rows for table in tables)
    else:  # read twice, since what was yielded could not be taken back
        tables, n_read = None, sum(table.num_rows for table in _parse(path, types))
    if n_read != n_rows:
        return None
    check_header(place, present, wanted)
    parts = in_parts(tables or _parse(path, types), options.rows_at_once or n_rows)
    return (
        RawFile(
            {name: _as_written(table.column(name)) for name in types}, table.num_rows, present,
            lambda rows: [f"line {row + 1}" for row in rows],
            lines_of=lambda rows: [(row + 1,) for row in rows], first=first,
        )
        for first, table in parts
    )  # fmt: skip


def _count_lines(path: Path) -> int | None:
    """Count the rows if every line is one object and nothing else."""
    n_lines = n_breaks = 0
    end = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if not _is_utf8(block, file):
                return None
            if not end and not block.startswith(b"{"):
                return None
            n_lines += block.count(b"\n")
            n_breaks += block.count(_BREAK) + (end + block[:2]).count(_BREAK)
            end = (end + block)[-2:]
    n_rows = n_lines if end.endswith(b"\n") else n_lines + 1
    return n_rows if end in (b"}\n",) and n_breaks == n_rows - 1 else None


def _is_utf8(block: bytes, file: Any) -> bool:
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two by the end of the block: look at it whole.
        is_cut = len(block) - error.start < 4 and len(block) == _BLOCK
        if is_cut:
            file.seek(-(len(block) - error.start), 1)
        return is_cut
    return True


def _look(
    path: Path, wanted: Sequence[Column]
) -> tuple[tuple[str, ...], dict[str, pa.DataType] | None]:
    """Return the keys of the first lines, and the type of each wanted column among them."""
    present: dict[str, None] = {}
    kinds: dict[str, set[type]] = {column.source: set() for column in wanted}
    with path.open("rb") as file:
        for line in islice(file, _SAMPLE):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return (), None
            present.update(dict.fromkeys(row))
            for name, seen in kinds.items():
                if (cell := row.get(name)) is not None:
                    seen.add(type(cell))
    types = {c.source: _type_of(c, kinds[c.source]) for c in wanted if c.source in present}
    if None in types.values():
        return tuple(present), None
    return tuple(present), {name: kind for name, kind in types.items() if kind is not None}


def _type_of(column: Column, seen: set[type]) -> pa.DataType | None:
    if seen <= {str}:
        return pa.string()
    if column.kind == "vector":
        return pa.list_(pa.float64()) if seen == {list} else None
    if seen == {bool}:
        return pa.bool_() if column.kind in ("boolean", "label") else None
    if column.kind in ("number", "label"):
        return pa.float64() if seen <= {int, float} else None
    # Fractions as text or times keep their digits only if they are read as text.
    return pa.int64() if seen == {int} else None


def _as_written(values: pa.ChunkedArray) -> pa.Array:
    whole = pa.types.is_integer(values.type)
    return (values.cast(pa.string()) if whole else values).combine_chunks()


def _holds_any(path: Path, names: Sequence[str]) -> bool:
    """Say whether a key that the first lines lack may come later."""
    if not names:
        return False
    keys = [json.dumps(name, ensure_ascii=False).encode() for name in names]
    with path.open("rb") as file:
        end = b""
        while block := file.read(_BLOCK):
            if b"\\u" in block or any(key in end + block for key in keys):
                return True
            end = block[-1024:]
    return False


def _parse(path: Path, types: dict[str, pa.DataType]) -> Iterator[pa.Table]:
    """Yield the rows, and nothing more after what cannot be read."""
    try:
        yield from (
            pa.Table.from_batches([batch])
            for batch in arrow_json.open_json(
                path,
                read_options=arrow_json.ReadOptions(use_threads=False, block_size=_BLOCK),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=pa.schema(list(types.items())),
                    unexpected_field_behavior="ignore",
                ),
            )
        )
    except (pa.ArrowException, OSError):
        return


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
