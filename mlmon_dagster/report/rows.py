"""The rows behind a slice: how to pick them, and their ids. No other value leaves the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics.statistics import ALL
from mlmon_dagster.profiles.sql.compiler import NULL_SLICE
from mlmon_dagster.spec import (
    ModelSpec,
    Predicate,
    Task,
    Window,
    parse_predicate,
    predicate_columns,
)
from mlmon_dagster.spec.predicate import Comparison, Every, NullTest, to_sql, to_text
from mlmon_dagster.store import Store

MAX_ROWS = 10_000
# Wrong decisions first, then by how far the output was off; without ground truth, by id alone.
_WRONG = "(prediction IS NOT NULL AND actual IS NOT NULL AND prediction <> actual) DESC"
_WORST_FIRST: dict[Task, str] = {
    "binary_classification": f"{_WRONG}, abs(score - actual) DESC NULLS LAST",
    "multiclass_classification": _WRONG,
    "regression": "abs(prediction - actual) DESC NULLS LAST",
    "ranking": "actual DESC NULLS LAST, rank DESC NULLS LAST, score NULLS FIRST",
}


@dataclass(frozen=True)
class RowsBehind:
    """Rows of some windows that belong to a slice.

    Attributes:
        predicate: Picks them, in the language of `mlmon_dagster.spec.predicate`; empty for the
            whole; None if a value of the slice cannot be written in it.
        n: How many there are.
        prediction_ids: The first of them, worst first: wrong decisions, then large errors.
    """

    predicate: str | None
    n: int
    prediction_ids: list[str]


def rows_behind(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    slice_: tuple[str, str] = (ALL, ALL),
    limit: int = 100,
) -> RowsBehind:
    """Return the production rows of some windows behind one slice.

    Args:
        store: The store.
        spec: The model.
        windows: Which windows; none gives no rows.
        slice_: Its key and value as profiles and metrics name them, such as
            ``("origin,carrier", "JFK,UA")``.
        limit: At most so many ids, up to 10,000.

    Raises:
        ConfigError: If the model declares no such slice.
    """
    predicate = slice_predicate(spec, *slice_)
    source = store.inference_records(spec).from_sql(windows, ["production"])
    where = f" WHERE {to_sql(predicate)}" if predicate is not None else ""
    kept = max(0, min(limit, MAX_ROWS))
    ids = store.query(
        f"SELECT prediction_id FROM {source}{where} ORDER BY {_WORST_FIRST[spec.task]}, "
        f"prediction_id LIMIT {kept}"
    )
    counted = store.query(f"SELECT count(*) AS n FROM {source}{where}")
    return RowsBehind(
        predicate=_written(spec, predicate),
        n=int(counted.column("n")[0].as_py()),
        prediction_ids=[str(name) for name in ids.column("prediction_id").to_pylist()],
    )


def slice_predicate(spec: ModelSpec, slice_key: str, slice_value: str) -> Predicate | None:
    """Return what picks the rows of a slice; None for the whole.

    Raises:
        ConfigError: If the model declares no such slice, or the value does not fit its key.
    """
    if slice_key == ALL:
        return None
    keys = {",".join(key): key for key in spec.slices}
    if slice_key not in keys:
        raise ConfigError(
            f"Model {spec.model!r} has no slice {slice_key!r}. "
            f"It declares: {', '.join(keys) or 'none'}."
        )
    columns, values = keys[slice_key], split_values(slice_value)
    if len(values) != len(columns):
        raise ConfigError(
            f"Slice {slice_key!r} needs {len(columns)} values separated by commas (a comma in a "
            f"value is written \\,), not {slice_value[:200]!r}."
        )
    parts = tuple(_condition(spec, c, v) for c, v in zip(columns, values, strict=True))
    return parts[0] if len(parts) == 1 else Every(parts)


def split_values(slice_value: str) -> list[str]:
    r"""Take a slice value apart; ``\,`` and ``\\`` stand for a comma and a backslash.

    Example:
        >>> split_values(r"D\,L,JFK")
        ['D,L', 'JFK']
    """
    values, is_escaped = [""], False
    for character in slice_value:
        if not is_escaped and character in "\\,":
            is_escaped = character == "\\"
            if not is_escaped:
                values.append("")
            continue
        values[-1] += character
        is_escaped = False
    return values


def _condition(spec: ModelSpec, column: str, value: str) -> Predicate:
    # A text "<null>" in the data shares the slice of nulls; the slice is read as the nulls.
    if value == NULL_SLICE:
        return NullTest(column)
    feature = spec.features.get(column)
    if feature is not None and feature.type == "boolean":
        return Comparison(column, "=", value == "true")
    return Comparison(column, "=", value)


def _written(spec: ModelSpec, predicate: Predicate | None) -> str | None:
    """Write a predicate for people; the language has no backslashes and no control characters."""
    if predicate is None:
        return ""
    text = to_text(predicate)
    try:
        parse_predicate(text, predicate_columns(spec), spec.time.zone)
    except ConfigError:
        return None
    return text
