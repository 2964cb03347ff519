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
    declared = {column.name: column.evaluation for column in wanted if column.evaluation}
    kept = [c for c in wanted if c.name in ("prediction_id", "actual_time", "dataset")]
    keys = (NAME, _VALUE, _LABEL, _BY, _EVALUATOR, _EXPLANATION, _ERROR)
    named = [Column(key, key, "text", must_exist=False) for group in keys for key in group]
    for raw in load_format(form).read(path, place, [*kept, *named], options):
        if raw.n_rows and not any(key in raw.columns for key in NAME):
            raise refused(place, "missing_column", f"no column '{NAME[0]}', the evaluation's name.")
        yield _spread(raw, kept, declared)


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


def _spread(raw: RawFile, kept: Sequence[Column], declared: Mapping[str, Evaluation]) -> RawFile:
    """Give each row's value to the column of its evaluation."""
    read = _read(raw)
    by_source: dict[str, list[str]] = {}
    for name, one in declared.items():
        if name != "actual":
            by_source.setdefault(one.from_ or name, []).append(name)
    cells: dict[str, dict[int, str]] = {}
    refusals: dict[tuple[str, str, str], list[int]] = {}
    others: dict[str, None] = {}
    rows: list[int] = []
    for row, source in enumerate(read.name):
        if source is None:
            refusals.setdefault(("malformed_payload", "the evaluation's name", NAME[0]), []).append(
                len(rows)
            )
            rows.append(row)
            continue
        name = _choose(by_source.get(source, ()), declared, read.by[row])
        if name is None:
            if len(others) < _MOST_NAMES:
                others[source] = None
            continue
        place = len(rows)
        rows.append(row)
        try:
            value = _value(declared[name], read, row)
        except ValueError:
            reason = ("bad_evaluation", f"{declared[name].expected} for {source}", name)
            refusals.setdefault(reason, []).append(place)
            continue
        said = (
            (name, value),
            (evaluator_column(name), read.evaluator[row]),
            (explanation_column(name), read.explanation[row]),
            (error_column(name), (read.error[row] or "")[:_MOST_ERROR] or None),
        )
        for column, cell in said:
            if cell is not None:
                cells.setdefault(column, {})[place] = cell
    chosen = pa.array(rows, pa.int64())
    columns = {
        c.source: raw.columns[c.source].take(chosen) for c in kept if c.source in raw.columns
    }
    own = [name for name in declared if name != "actual"]
    for name in (*own, *list_texts(own)):
        mine = cells.get(name, {})
        columns[name] = pa.array([mine.get(place) for place in range(len(rows))], pa.string())
    refused_rows = tuple(
        Refusal(reason, expected, tuple(places), column)
        for (reason, expected, column), places in refusals.items()
    )
    moved = tuple(
        replace(refusal, rows=tuple(p for p, row in enumerate(rows) if row in set(refusal.rows)))
        for refusal in raw.refusals
    )
    lines = raw.lines_of
    return replace(
        raw,
        columns=columns,
        n_rows=len(rows),
        present=(*columns, *others),
        place_of=lambda found: raw.place_of([rows[n] for n in found]),
        lines_of=None if lines is None else lambda found: lines([rows[n] for n in found]),
        refusals=(*moved, *refused_rows),
    )


def _choose(names: Sequence[str], declared: Mapping[str, Evaluation], by: str | None) -> str | None:
    """Return the evaluation that a row is of: by its name, and by who gave it where that is said."""
    who = _WHO.get((by or "").strip().lower())
    fit = [name for name in names if who is None or declared[name].by == who]
    return fit[0] if fit else None


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
