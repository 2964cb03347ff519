"""Read evaluations: a row says what somebody thinks of one call, under the evaluation's name.

CSV, Parquet or JSON Lines, as their endings say. What a row holds is known by the names that the
field has for it: the product's own, those of OpenTelemetry (``gen_ai.evaluation.*``), MLflow's
assessments, OpenInference's annotations and Langfuse's scores. The store has a column for each
evaluation, so a row becomes one whose other evaluations are null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.known import ending_of, load_endings, load_format
from mlmon_dagster.ingest.raw import Options, RawFile, Refusal, refused
from mlmon_dagster.spec.evaluations import (
    Evaluation,
    error_column,
    evaluator_column,
    explanation_column,
    list_texts,
)
from mlmon_dagster.spec.names import listed

ENDINGS: Final[tuple[str, ...]] = ()  # its files look like any other
NAME: Final = ("name", "gen_ai.evaluation.name", "annotation.name")
_VALUE: Final = (
    "value", "score", "gen_ai.evaluation.score.value", "feedback.value", "expectation.value",
    "annotation.score",
)  # fmt: skip
_LABEL: Final = ("label", "gen_ai.evaluation.score.label", "annotation.label", "stringValue")
_BY: Final = ("by", "annotator_kind", "annotation.annotator_kind", "source.source_type", "source")
_EVALUATOR: Final = ("evaluator", "source.source_id", "annotation.identifier", "identifier")
_EXPLANATION: Final = (
    "explanation", "gen_ai.evaluation.explanation", "rationale", "annotation.explanation",
    "comment",
)  # fmt: skip
_ERROR: Final = ("error", "error.type")
_WHO: Final = {
    "human": "human", "annotation": "human", "judge": "judge", "llm": "judge",
    "llm_judge": "judge", "ai_judge": "judge", "eval": "judge", "user": "user", "code": "code",
}  # fmt: skip
_MOST_NAMES = 100  # that nobody declared, of a file
_MOST_ERROR = 200


def read_evaluations(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a file of evaluations; a row of one that nobody declared is left out, and named.

    Raises:
        SchemaError: If the file is none of the formats, or has no column with names.
    """
    form = load_endings().get(ending_of(place).removesuffix(".gz").removesuffix(".zst"), "")
    if not form:
        raise refused(place, "unknown_format", "expected .csv, .jsonl or .parquet evaluations.")
    for raw in load_format(form).read(path, place, columns_as_written(wanted), options):
        if raw.n_rows and not any(key in raw.columns for key in NAME):
            raise refused(place, "missing_column", f"no column '{NAME[0]}', the evaluation's name.")
        yield spread_rows(raw, wanted)


def columns_as_written(wanted: Sequence[Column]) -> list[Column]:
    """Return the columns that rows of evaluations may have.

    Args:
        wanted: Those that the store has for them.
    """
    keys = (NAME, _VALUE, _LABEL, _BY, _EVALUATOR, _EXPLANATION, _ERROR)
    named = [Column(key, key, "text", must_exist=False) for group in keys for key in group]
    return [*_shared(wanted), *named]


def _shared(wanted: Sequence[Column]) -> list[Column]:
    return [c for c in wanted if c.name in ("prediction_id", "actual_time", "dataset")]


@dataclass(frozen=True)
class _Read:
    """What each row of a file says, as text; None where it says nothing."""

    name: list[str | None]
    value: list[str | None]
    label: list[str | None]
    by: list[str | None]
    evaluator: list[str | None]
    explanation: list[str | None]
    error: list[str | None]


def _read(raw: RawFile) -> _Read:
    def first(keys: Sequence[str]) -> list[str | None]:
        present = [_as_text(raw.columns[key]) for key in keys if key in raw.columns]
        if not present:
            return [None] * raw.n_rows
        return [
            next((cell for cell in cells if cell), None) for cells in zip(*present, strict=True)
        ]

    groups = (NAME, _VALUE, _LABEL, _BY, _EVALUATOR, _EXPLANATION, _ERROR)
    return _Read(*map(first, groups))


def _as_text(values: pa.Array) -> list[str | None]:
    cells = values.to_pylist()
    return [None if c is None else c if isinstance(c, str) else str(c) for c in cells]


def spread_rows(raw: RawFile, wanted: Sequence[Column], *, keeps_all: bool = False) -> RawFile:
    """Give each row's value to the column of its evaluation.

    Args:
        raw: Rows of evaluations.
        wanted: The columns that the store has for them.
        keeps_all: Refuse rows of evaluations that nobody declared, instead of leaving them out.
    """
    read = _read(raw)
    own = {c.name: c.evaluation for c in wanted if c.evaluation and c.name != "actual"}
    names = [_choose(source, own, by) for source, by in zip(read.name, read.by, strict=True)]
    # A row without a name is kept, to be refused; one of another evaluation is none of ours.
    rows = [r for r, name in enumerate(names) if name or keeps_all or read.name[r] is None]
    cells: dict[str, list[str | None]] = {
        column: [None] * len(rows) for column in (*own, *list_texts(own))
    }
    refusals: dict[tuple[str, str, str], list[int]] = {}
    for place, row in enumerate(rows):
        name = names[row]
        if name is None:
            lacking = ("bad_evaluation", f"one of {listed(own)}", NAME[0])
            refusals.setdefault(lacking, []).append(place)
            continue
        try:
            cells[name][place] = _value(own[name], read, row)
        except ValueError:
            wrong = ("bad_evaluation", f"{own[name].expected} for {name}", name)
            refusals.setdefault(wrong, []).append(place)
            continue
        cells[evaluator_column(name)][place] = read.evaluator[row]
        cells[explanation_column(name)][place] = read.explanation[row]
        cells[error_column(name)][place] = (read.error[row] or "")[:_MOST_ERROR] or None
    return _wide(raw, _shared(wanted), rows, cells, refusals, _name_others(read, names))


def _name_others(read: _Read, names: Sequence[str | None]) -> list[str]:
    """Return the evaluations that nobody declared."""
    found = {n: None for n, mine in zip(read.name, names, strict=True) if n and mine is None}
    return list(found)[:_MOST_NAMES]


def _wide(
    raw: RawFile,
    kept: Sequence[Column],
    rows: Sequence[int],
    cells: Mapping[str, list[str | None]],
    refusals: Mapping[tuple[str, str, str], list[int]],
    others: Sequence[str],
) -> RawFile:
    """Return some rows of a file with the columns of evaluations beside those that all have."""
    chosen, place_of = pa.array(rows, pa.int64()), {row: place for place, row in enumerate(rows)}
    columns = {
        c.source: raw.columns[c.source].take(chosen) for c in kept if c.source in raw.columns
    }
    columns |= {name: pa.array(mine, pa.string()) for name, mine in cells.items()}
    moved = (
        replace(found, rows=tuple(place_of[row] for row in found.rows if row in place_of))
        for found in raw.refusals
    )
    mine = (
        Refusal(reason, expected, tuple(places), column)
        for (reason, expected, column), places in refusals.items()
    )
    lines = raw.lines_of
    return replace(
        raw,
        columns=columns,
        n_rows=len(rows),
        present=(*columns, *others),
        place_of=lambda places: raw.place_of([rows[place] for place in places]),
        lines_of=None if lines is None else lambda places: lines([rows[p] for p in places]),
        refusals=(*moved, *mine),
    )


def _choose(source: str | None, own: Mapping[str, Evaluation], by: str | None) -> str | None:
    """Return the evaluation that a row is of: by its name, and by who gave it if that is said."""
    who = _WHO.get((by or "").strip().lower())
    fit = (
        name for name, one in own.items() if (one.from_ or name) == source and who in (None, one.by)
    )
    return next(fit, None)


def _value(one: Evaluation, read: _Read, row: int) -> str | None:
    """Return what is stored of a row's value; None of an evaluation that has failed itself.

    Raises:
        ValueError: If it is no number where one is expected, or says nothing.
    """
    if read.error[row] is not None:
        return None
    said = (read.label[row], read.value[row])
    if not isinstance(one.good, tuple):
        said = said[::-1]
    cell = next((cell for cell in said if cell is not None), None)
    if cell is None:
        raise ValueError("no value")
    return repr(one.read(cell))
