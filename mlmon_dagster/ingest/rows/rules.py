"""The rules that follow from a spec: which rows can be stored at all.

They carry the names and arguments of Great Expectations, so that `mlmon expectations --export`
writes them as its suite. Here they are checked in Arrow: every file and every pushed batch meets
them, and none is to wait for a library that takes seconds to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.ingest.declared_columns import Column, Kind, columns_of, is_probability
from mlmon_dagster.ingest.report import Mask, mask_of
from mlmon_dagster.ingest.rows.canonical import Draft, known_datasets
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import Stream

_PANDAS_TYPES: Final[dict[Kind, str]] = {
    "id": "str",
    "text": "str",
    "number": "float64",
    "time": "Timestamp",
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
        """Say whether rows can break it; the others hold as soon as a file is parsed."""
        return self.expectation in _CHECKS

    def find_rows(self, draft: Draft) -> np.ndarray:
        """Return the rows that break it, ascending, but for cells that are excused."""
        wrong = _CHECKS[self.expectation](draft.columns[self.column.name], dict(self.options))
        excused = draft.excused.get(self.column.name)
        return np.flatnonzero(wrong if excused is None else wrong & ~excused)


def rules_of(spec: ModelSpec, stream: Stream) -> tuple[Rule, ...]:
    """Generate the rules of a stream from the spec."""
    columns = columns_of(spec, stream)
    if not any(column.name == "dataset" for column in columns):
        columns = (*columns, Column("dataset", "dataset", "text"))
    return tuple(rule for column in columns for rule in _column_rules(column, spec, stream))


def _column_rules(column: Column, spec: ModelSpec, stream: Stream) -> Iterator[Rule]:
    yield Rule("expect_column_to_exist", column)
    if column.kind in _PANDAS_TYPES:
        options = (("type_", _PANDAS_TYPES[column.kind]),)
        yield Rule("expect_column_values_to_be_of_type", column, options)
    if not column.nullable:
        yield Rule("expect_column_values_to_not_be_null", column, reason="null_required")
    if is_probability(spec, column.name):
        yield Rule(
            "expect_column_values_to_be_between", column, (("min_value", 0.0), ("max_value", 1.0)),
            "score_out_of_range", "a number from 0 to 1",
        )  # fmt: skip
    if column.kind == "label":
        reason = "bad_actual" if column.name == "actual" else "wrong_type"
        yield _set_rule(column, [0.0, 1.0], reason, "0 or 1")
    if column.name == "dataset":
        names = known_datasets(stream)
        yield _set_rule(column, list(names), "bad_dataset", f"one of {', '.join(names)}")


def _set_rule(column: Column, values: Sequence[object], reason: str, expected: str) -> Rule:
    options = (("value_set", list(values)),)
    return Rule("expect_column_values_to_be_in_set", column, options, reason, expected)


def _is_null(values: pa.Array, _options: Mapping[str, object]) -> Mask:
    return mask_of(values.is_null())


def _is_outside_set(values: pa.Array, options: Mapping[str, object]) -> Mask:
    allowed = pa.array(options["value_set"], values.type)
    return mask_of(values.is_valid()) & ~mask_of(pc.is_in(values, allowed))


def _is_outside_range(values: pa.Array, options: Mapping[str, object]) -> Mask:
    is_outside = pc.or_(
        pc.less(values, options["min_value"]), pc.greater(values, options["max_value"])
    )
    return mask_of(is_outside.fill_null(False))


# As in Great Expectations, a null breaks no rule but the one about nulls.
_CHECKS: Final[dict[str, Callable[[pa.Array, Mapping[str, object]], Mask]]] = {
    "expect_column_values_to_not_be_null": _is_null,
    "expect_column_values_to_be_in_set": _is_outside_set,
    "expect_column_values_to_be_between": _is_outside_range,
}
