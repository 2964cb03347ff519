"""Judge a batch by the declaration of its model, before anything of it is stored.

The rules are those of ingest; what the spec itself expects, only ingest judges.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import Column, columns_of
from mlmon_dagster.ingest.faults import (
    FILE_REASONS,
    ROW_REASONS,
    Fault,
    Mask,
    did_you_mean,
    names,
    rows_at_fault,
)
from mlmon_dagster.ingest.formats.parse import Parsed, typed_columns
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.raw import (
    MAX_COLUMNS,
    RawFile,
    with_aliases,
    with_nulls,
)
from mlmon_dagster.ingest.row_hash import columns_to_read, with_derived_id
from mlmon_dagster.ingest.rows.canonical import Draft, draft_rows
from mlmon_dagster.ingest.rows.rules import rules_of
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import Stream

PLACE = "the batch"
_UNREAD: Final = {
    "malformed_json": "a JSON object",
    "duplicate_column": "every key once",
    "too_large": "at most 4 Mi characters a row",
}


@dataclass(frozen=True)
class Judged:
    """A batch and what is wrong with it.

    Attributes:
        parsed: Its columns with their declared types.
        bad: Which rows are refused.
        errors: Every reason: row (0-based; absent if it concerns the whole batch), column, reason
            code, what is expected, and a sentence.
        warnings: What is odd without being wrong.
    """

    parsed: Parsed
    bad: Mask
    errors: tuple[dict[str, object], ...]
    warnings: tuple[str, ...]

    @property
    def is_refused_whole(self) -> bool:
        """Whether a reason concerns the batch and not single rows."""
        return any("row" not in error for error in self.errors)


class Judge:
    """Judges the batches of one stream of one model.

    Args:
        spec: The model.
        stream: The stream.
    """

    def __init__(self, spec: ModelSpec, stream: Stream) -> None:
        self.spec, self.stream = spec, stream
        self._columns = columns_of(spec, stream)
        self._read = columns_to_read(self._columns, spec)
        self.wanted = with_aliases(self._read)
        source = spec.source.of(stream)
        if source is None:
            raise ValueError(f"model {spec.model} has no source of {stream}")
        self._source = source
        self._rules = tuple(rule for rule in rules_of(spec, stream) if rule.judges_rows)
        self._staged = Staged(stream, PLACE, None, "", 0, 0)

    def judge(self, raw: RawFile, unread: Mapping[int, str], now: dt.datetime) -> Judged:
        """Return all that is wrong with a batch.

        Args:
            raw: The batch as it was read.
            unread: Row number -> reason code of rows that are no rows at all.
            now: The moment that times may not lie ahead of.

        Raises:
            Problem: If a column as a whole cannot be read, or there are too many.
        """
        if len(raw.present) > MAX_COLUMNS:
            raise Problem("too_large", f"More than {MAX_COLUMNS:,} columns.")
        known = set(raw.columns)
        missing = [
            column
            for column in self._read
            if column.must_exist and not known & {column.source, *column.aliases}
        ]
        raw = with_nulls(raw, self._source.null_tokens)
        raw = with_derived_id(raw, self._columns, self.spec)
        if unread and len(unread) == raw.n_rows:
            missing = []
        try:
            parsed = typed_columns(self._staged, raw, self._columns, self.spec, self._source)
            draft = draft_rows(parsed, self.spec, now)
        except SchemaError as error:
            raise Problem("rows_refused", str(error), [{"reason": error.reason}]) from None
        draft = draft.with_faults(self._rule_faults(draft))
        absent = {column.name for column in missing}
        faults = [fault for fault in draft.faults if fault.name not in absent]
        bad = rows_at_fault(faults, raw.n_rows)
        bad[list(unread)] = True
        errors = [
            *(_missing(column, raw.present) for column in missing),
            *_unread_errors(unread),
            *_row_errors(faults, unread),
        ]
        errors.sort(key=lambda error: error.get("row", -1))
        return Judged(parsed, bad, tuple(errors), _warnings(parsed, self.wanted))

    def _rule_faults(self, draft: Draft) -> tuple[Fault, ...]:
        return tuple(
            fault
            for rule in self._rules
            for fault in Fault.of(rule.find_rows(draft), rule.reason, rule.column, rule.expected)
        )


def _missing(column: Column, present: Iterable[str]) -> dict[str, Any]:
    expected = column.expected
    hint = did_you_mean(column.source, list(present)).strip()
    return {
        "column": column.source,
        "reason": "missing_column",
        "expected": expected,
        "detail": f"No row has it; expected {expected}. {hint or FILE_REASONS['missing_column']}",
    }


def _unread_errors(unread: Mapping[int, str]) -> list[dict[str, object]]:
    return [
        {"row": row, "reason": reason, "expected": _UNREAD[reason], "detail": FILE_REASONS[reason]}
        for row, reason in unread.items()
    ]


def _row_errors(faults: Iterable[Fault], unread: Mapping[int, str]) -> list[dict[str, object]]:
    found = {
        (int(row), fault.source, fault.reason): fault for fault in faults for row in fault.rows
    }
    return [
        {
            "row": row,
            "column": source,
            "reason": reason,
            "expected": found[row, source, reason].expected,
            "detail": ROW_REASONS[reason],
        }
        for row, source, reason in sorted(found)
        if row not in unread
    ]


def _warnings(parsed: Parsed, wanted: Iterable[Column]) -> tuple[str, ...]:
    ours = {column.source for column in wanted}
    dropped = [name for name in parsed.extra if name not in ours]
    if not dropped:
        return ()
    return (f"columns {names(dropped)} are not declared and not kept",)
