"""The Great Expectations suite of a stream, generated from the spec and run on every batch.

Its unexpected rows are the bad rows. Great Expectations calls a rule kept when no cell was there
to test it; such columns are named in the result instead of passing silently.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.errors import MlmonError
from mlmon_dagster.ingest.declared_columns import Column, Kind, columns_of, is_probability
from mlmon_dagster.ingest.faults import Fault
from mlmon_dagster.ingest.rows.canonical import Draft, known_datasets
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import Stream

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 250_000
_TYPES: Final[dict[Kind, str]] = {
    "id": "str",
    "text": "str",
    "number": "float64",
    "label": "float64",
    "time": "Timestamp",
}
# What an excused cell holds while the suite looks; any value that breaks no rule.
_STAND_INS: Final[dict[Kind, object]] = {
    "id": "",
    "text": "",
    "number": 0.0,
    "label": 0.0,
    "time": 0,
    "boolean": False,
}


@dataclass(frozen=True)
class Rule:
    """One expectation about one column, and what a row that breaks it is called."""

    expectation: str
    column: Column
    options: tuple[tuple[str, object], ...] = ()
    reason: str = "wrong_type"
    expected: str | None = None

    @property
    def judges_rows(self) -> bool:
        """Say whether it finds rows, not only a fault of the whole column."""
        return self.expectation not in {"ExpectColumnToExist", "ExpectColumnValuesToBeOfType"}


@dataclass(frozen=True)
class Verdict:
    """What the suite says of one file.

    Attributes:
        faults: Rows that break a rule, in the file's own numbering.
        untested: Columns with a rule but without a single value to test it on.
        report: The short result, ready for JSON.
    """

    faults: tuple[Fault, ...]
    untested: tuple[str, ...]
    report: dict[str, object]


def rules_of(spec: ModelSpec, stream: Stream) -> tuple[Rule, ...]:
    """Generate the rules of a stream from the spec."""
    return tuple(rule for column in _judged(spec, stream) for rule in _rules(column, spec, stream))


def judge(drafts: Sequence[Draft], spec: ModelSpec, stream: Stream) -> list[Verdict]:
    """Run the suite over many files as one batch, in chunks of 250,000 rows.

    Args:
        drafts: The typed rows of each file; files without rows get an empty verdict.
        spec: The model.
        stream: What the files hold.

    Returns:
        One verdict per file, in order.

    Raises:
        MlmonError: If an expectation could not be evaluated at all; never taken for a pass.
    """
    rules = rules_of(spec, stream)
    columns = _judged(spec, stream)
    sizes = [draft.parsed.n_rows for draft in drafts]
    batch = pa.concat_tables([_batch_rows(draft, columns) for draft in drafts])
    broken: dict[int, list[np.ndarray]] = {}
    for start in range(0, batch.num_rows, CHUNK_ROWS):
        chunk = batch.slice(start, CHUNK_ROWS)
        for position, rows in _evaluate(chunk, start, rules):
            broken.setdefault(position, []).append(rows)
    rows_by_rule = {position: np.sort(np.concatenate(found)) for position, found in broken.items()}
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return [
        _verdict(draft, rules, rows_by_rule, int(low), int(high))
        for draft, low, high in zip(drafts, offsets[:-1], offsets[1:], strict=True)
    ]


def _judged(spec: ModelSpec, stream: Stream) -> tuple[Column, ...]:
    found = columns_of(spec, stream)
    if any(column.name == "dataset" for column in found):
        return found
    return (*found, Column("dataset", "dataset", "text"))


def _rules(column: Column, spec: ModelSpec, stream: Stream) -> Iterator[Rule]:
    yield Rule("ExpectColumnToExist", column)
    if column.kind in _TYPES:
        yield Rule("ExpectColumnValuesToBeOfType", column, (("type_", _TYPES[column.kind]),))
    if not column.nullable:
        reason = "null_not_allowed" if column.is_feature else "null_required"
        yield Rule("ExpectColumnValuesToNotBeNull", column, reason=reason)
    if is_probability(spec, column.name):
        yield _score_rule(column)
    if column.kind == "label":
        reason = "bad_actual" if column.name == "actual" else "wrong_type"
        yield _set_rule(column, [0.0, 1.0], reason, "0 or 1")
    if column.name == "dataset":
        names = known_datasets(stream)
        yield _set_rule(column, list(names), "bad_dataset", f"one of {', '.join(names)}")


def _set_rule(column: Column, values: Sequence[object], reason: str, expected: str) -> Rule:
    options = (("value_set", list(values)),)
    return Rule("ExpectColumnValuesToBeInSet", column, options, reason, expected)


def _score_rule(column: Column) -> Rule:
    options = (("min_value", 0.0), ("max_value", 1.0))
    return Rule(
        "ExpectColumnValuesToBeBetween", column, options, "score_out_of_range",
        "a number from 0 to 1",
    )  # fmt: skip


def _batch_rows(draft: Draft, columns: Sequence[Column]) -> pa.Table:
    arrays = {}
    for column in columns:
        values = draft.columns[column.name]
        excused = draft.excused.get(column.name)
        if excused is not None:
            stand_in = pa.scalar(_STAND_INS[column.kind], values.type)
            values = pc.if_else(pa.array(excused), stand_in, values)
        arrays[column.name] = values
    return pa.table(arrays)


def _evaluate(
    chunk: pa.Table, offset: int, rules: Sequence[Rule]
) -> Iterator[tuple[int, np.ndarray]]:
    import pandas as pd

    frame = chunk.to_pandas()
    frame.index = pd.RangeIndex(offset, offset + len(frame))
    # Only rows decide about rows, so a whole chunk without a value has no type to be wrong.
    empty = {name for name in chunk.column_names if chunk.column(name).null_count == len(frame)}
    asked = [
        (i, rule)
        for i, rule in enumerate(rules)
        if not (rule.expectation == "ExpectColumnValuesToBeOfType" and rule.column.name in empty)
    ]
    results = _validate(frame, [rule for _, rule in asked])
    # The context lives on in cycles of references; the rows should not.
    for name in list(frame.columns):
        del frame[name]
    for (position, rule), result in zip(asked, results, strict=True):
        if result.exception_info.get("raised_exception") or "exception_message" not in (
            result.exception_info
        ):
            raise MlmonError(_not_evaluated(rule, result.exception_info))
        if result.success:
            continue
        if not rule.judges_rows:
            raise MlmonError(_not_evaluated(rule, result.result))
        yield position, np.asarray(result.result["unexpected_index_list"], dtype=np.int64)


def _validate(frame: pd.DataFrame, rules: Sequence[Rule]) -> list[Any]:
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral", project_config=_context_config())
    asset = context.data_sources.add_pandas("ingest").add_dataframe_asset("batch")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(
        name="rows",
        expectations=[
            getattr(gx.expectations, rule.expectation)(
                column=rule.column.name, meta={"rule": i}, **dict(rule.options)
            )
            for i, rule in enumerate(rules)
        ],
    )
    found = batch.validate(
        suite, result_format={"result_format": "COMPLETE", "include_unexpected_rows": False}
    )
    # The suite answers in an order of its own.
    return sorted(found.results, key=lambda result: result.expectation_config.meta["rule"])


@functools.cache
def _great_expectations() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import great_expectations
        import great_expectations.expectations
        from great_expectations.execution_engine import pandas_execution_engine
    # It hashes every cell of every batch, twice, for a fingerprint that nobody reads; that is 85 %
    # of its time. Above this size it leaves that out by itself.
    pandas_execution_engine.HASH_THRESHOLD = 0
    return great_expectations


def _context_config() -> object:
    """Return the settings of a context that reports to nobody and leaves nothing on disk."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )


def _not_evaluated(rule: Rule, why: object) -> str:
    return (
        f"{rule.expectation} of column {rule.column.name!r} could not be evaluated: "
        f"{str(why)[:500]}. This is a fault of the program or its libraries, not of the file."
    )


def _verdict(
    draft: Draft,
    rules: Sequence[Rule],
    rows_by_rule: Mapping[int, np.ndarray],
    low: int,
    high: int,
) -> Verdict:
    faults: list[Fault] = []
    failed = []
    for position, rows in rows_by_rule.items():
        mine = rows[np.searchsorted(rows, low) : np.searchsorted(rows, high)] - low
        if not mine.size:
            continue
        rule = rules[position]
        faults += Fault.of(mine, rule.reason, rule.column, rule.expected)
        failed.append(
            {"expectation": rule.expectation, "column": rule.column.name, "rows": int(mine.size)}
        )
    untested = _untested(draft, rules) if high > low else ()
    report = {
        "suite": f"great_expectations {_great_expectations().__version__}",
        "n_rows": high - low,
        "n_expectations": len(rules),
        "success": not failed,
        "failed": failed,
        "untested": list(untested),
    }
    return Verdict(tuple(faults), untested, report)


def _untested(draft: Draft, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return the file's names of columns that have a rule but not a single value."""
    found: dict[str, None] = {}
    for rule in rules:
        values = draft.columns[rule.column.name]
        is_there = rule.column.source not in draft.parsed.absent
        if is_there and values.null_count == len(values):
            found[rule.column.source] = None
    return tuple(found)
