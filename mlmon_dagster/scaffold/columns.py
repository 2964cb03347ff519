"""What each column of a sample looks like, as plain facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["numeric", "integer", "boolean", "datetime", "category", "text", "other"]

_PII_NAME = re.compile(
    r"(^|_)(e?mail|phone|mobile|ssn|passport|iban|address|street|zip|postcode|postal|birth|dob|"
    r"first_?name|last_?name|surname|full_?name|ip|ip_?addr(ess)?|lat|lon|latitude|longitude|"
    r"user_?name|card_?number|pan|tax_?id)(_|$)",
    re.IGNORECASE,
)
_PII_VALUE = {
    "e-mail addresses": r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$",
    "IP addresses": r"^(\d{1,3}\.){3}\d{1,3}$",
    "phone numbers": r"^\+?\d[\d ()/-]{7,17}\d$",
    "card numbers": r"^(\d{4}[ -]?){3}\d{4}$",
    "IBANs": r"^[A-Z]{2}\d{2}[A-Z0-9]{11,30}$",
}
_CALENDAR_NAME = re.compile(
    r"(\w+_)?(month|season|quarter|weekday|day_?of_?week|dow|hour(_?of_?day)?|week(_?of_?year)?|"
    r"day(_?of_?month)?)",
    re.IGNORECASE,
)
_YEAR_NAME = re.compile(r"(\w+_)?(year|yr)", re.IGNORECASE)
_DATE_NAME = re.compile(r"(\w+_)?(date|day|ymd|yyyymmdd)(_\w+)?", re.IGNORECASE)
_SPLIT_NAME = re.compile(
    r"(\w+_)?(partition|period|split|subset|set|fold|dataset|data_?set|sample)", re.IGNORECASE
)
_SPLITS = {
    "reference", "analysis", "baseline", "current", "train", "training", "test", "testing", "val",
    "valid", "validation", "holdout", "dev", "prod", "production", "live", "monitoring", "serving",
}  # fmt: skip
_TIME_TEXT = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}"
_MOST_CATEGORIES = 1000
_LONG_TEXT = 40  # characters on average


@dataclass(frozen=True)
class ColumnFacts:
    """One column of the sample.

    Attributes:
        n: Rows of the sample.
        n_null: Nulls among them.
        n_distinct: Different values, nulls left out.
        lower: The smallest value as text; "" for none.
        upper: The largest.
        values: Up to ten values, the commonest first, as text.
        pii: Why the column looks personal; "" if it does not.
        is_utc: A time with a zone or an offset.
    """

    name: str
    kind: Kind
    n: int
    n_null: int
    n_distinct: int
    lower: str
    upper: str
    values: tuple[str, ...]
    pii: str
    is_utc: bool = True

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.n_null == 0 and self.n_distinct == self.n

    @property
    def is_constant(self) -> bool:
        """Whether there is at most one value."""
        return self.n_distinct <= 1

    @property
    def is_calendar(self) -> bool:
        """Whether whole numbers name a place in the year, week or day, and are no quantity."""
        return (
            self.kind == "integer"
            and _CALENDAR_NAME.fullmatch(self.name) is not None
            and 0 <= int(self.lower or -1) <= int(self.upper or 99) <= 53
        )

    @property
    def not_of_model(self) -> str:
        """Why the column describes the data and not the case, so that it is no feature; or ""."""
        shown = ", ".join(self.values[:4])
        is_split = self.kind in ("category", "text") and _SPLIT_NAME.fullmatch(self.name)
        if is_split and {value.lower() for value in self.values} <= _SPLITS:
            return f"its values ({shown}) say which part of the data a row is in"
        if self.kind == "integer" and self.lower:
            low, high = int(self.lower), int(self.upper)
            if 1900 <= low <= high <= 2100 and _YEAR_NAME.fullmatch(self.name):
                return "a year, which only goes up: every new one would be drift"
            if 19000101 <= low <= high <= 21001231 and _DATE_NAME.fullmatch(self.name):
                return "a date written as a number; write it as a timestamp to use its age"
        return ""


def facts_of(table: pa.Table) -> list[ColumnFacts]:
    """Describe every column of a sample, in the table's order."""
    return [_facts(name, table.column(name)) for name in table.column_names]


def unique_together(table: pa.Table, names: Sequence[str]) -> bool:
    """Tell whether columns together have a different value in every row, and no nulls."""
    chosen = table.select(list(names))
    if any(column.null_count for column in chosen.columns):
        return False
    return bool(chosen.group_by(list(names)).aggregate([]).num_rows == table.num_rows)


def _facts(name: str, column: pa.ChunkedArray) -> ColumnFacts:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = _kind(column)
    n_distinct, lower, upper = 0, "", ""
    values: tuple[str, ...] = ()
    if kind != "other" and column.null_count < len(column):
        n_distinct = pc.count_distinct(column).as_py()
        values = _commonest(column)
        if kind in ("numeric", "integer", "datetime"):
            ends = pc.min_max(_finite(column))
            lower, upper = (_text(ends[end].as_py()) for end in ("min", "max"))
    if kind == "text" and n_distinct <= _category_limit(column):
        kind = "category"
    return ColumnFacts(
        name, kind, len(column), column.null_count, n_distinct, lower, upper, values,
        _pii(name, column, kind), _is_utc(column),
    )  # fmt: skip


def _kind(column: pa.ChunkedArray) -> Kind:
    type_ = column.type
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "numeric"
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "datetime"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "datetime" if _matches(column, _TIME_TEXT) == 1 else "text"
    return "other"


def _category_limit(column: pa.ChunkedArray) -> int:
    """Return how many values a text column may have to count as a category."""
    length = pc.mean(pc.utf8_length(column)).as_py() or 0
    if length > _LONG_TEXT:
        return 0
    return min(_MOST_CATEGORIES, max(len(column) // 4, 20))


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.filter(pc.is_finite(column)) if pa.types.is_floating(column.type) else column


def _commonest(column: pa.ChunkedArray) -> tuple[str, ...]:
    counts = pc.value_counts(column.drop_null().combine_chunks())
    values, n = counts.field("values"), counts.field("counts")
    order = pc.sort_indices(n, sort_keys=[("", "descending")]).slice(0, 10)
    return tuple(_text(value) for value in values.take(order).to_pylist())


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _matches(column: pa.ChunkedArray, pattern: str) -> float:
    """Return the share of a text column's values that match, 0 for none."""
    present = column.drop_null()
    if not len(present):
        return 0.0
    return float(pc.mean(pc.match_substring_regex(present, pattern).cast(pa.int8())).as_py())


def _pii(name: str, column: pa.ChunkedArray, kind: Kind) -> str:
    if kind in ("text", "category"):
        for what, pattern in _PII_VALUE.items():
            if _matches(column, pattern) > 0.5:
                return f"the values look like {what}"
    if _PII_NAME.search(name):
        return "the name says so"
    return ""


def _is_utc(column: pa.ChunkedArray) -> bool:
    if pa.types.is_timestamp(column.type):
        return column.type.tz is not None
    if pa.types.is_string(column.type):
        return _matches(column, r"(Z|[+-]\d{2}:?\d{2})$") == 1
    return not pa.types.is_date(column.type)
