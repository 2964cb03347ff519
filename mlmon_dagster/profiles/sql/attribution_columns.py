"""What is profiled of SHAP values: shares, signed values, what they add up to, who computed them.

Of a row the values count only where there are those of all features. What they add up to is the
output before the model's link, and which link that is the counts say: see `metrics.additivity`.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlmon_dagster.metrics.additivity import BROKEN, RAW, REST
from mlmon_dagster.metrics.statistics import Binning, Kind
from mlmon_dagster.profiles.sql.bin_codes import number
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.metric_registry import BINARY, RANKING, REGRESSION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.state.sql import literal, quote_identifier

SHARE = ":shap:"  # before a feature's name: its share of a row's attributions
SIGNED = ":signed:"  # before a feature's name: its SHAP value
BASE = ":base_value"
EXPLAINER = ":explainer"
_HUGE = number(1e35)  # squares of sums of it are still numbers
_SUM, _SIZE = quote_identifier(":sum"), quote_identifier(":size")
_OFFSET = "<offset {}>"
_LINKS = {
    "identity": "{0}",
    "logit": "CASE WHEN {0} > 0 AND {0} < 1 THEN LN({0} / (1 - {0})) END",
    "log": "CASE WHEN {0} > 0 THEN LN({0}) END",
}
Values = dict[str, tuple[Kind, str]]


def share_of(feature: str) -> str:
    """Return the name of the profiled column of a feature's share."""
    return f"{SHARE}{feature}"


def signed_of(feature: str) -> str:
    """Return the name of the profiled column of a feature's SHAP values."""
    return f"{SIGNED}{feature}"


def links(spec: ModelSpec) -> dict[str, str]:
    """Return what SHAP values may add up to and its SQL; {} where there is no single number."""
    if spec.task in (BINARY, RANKING) and spec.columns.score is not None:
        names = ("logit", "identity") if spec.task == BINARY else ("identity",)
        return {name: _LINKS[name].format("score") for name in names}
    if spec.task == REGRESSION and spec.columns.prediction is not None:
        return {name: _LINKS[name].format("prediction") for name in ("identity", "log")}
    return {}


def attribution_columns(spec: ModelSpec) -> Values:
    """Return name -> kind and SQL expression over `attribution_source`.

    Of a feature the share |SHAP| / the row's sum of |SHAP|, 0 to 1, NULL in rows whose values are
    all 0; and the value itself, in rows whose output is known, so that they add up to its mean.
    """
    columns = {f: quote_identifier(c) for f, c in attributed(spec).items()}
    if not columns:
        return {}
    # A quarter of each, so that no sum of numbers is beyond all numbers.
    found: Values = {
        share_of(f): ("loss", f"ABS({c} / 4) / NULLIF({_SIZE}, 0)") for f, c in columns.items()
    }
    is_known = f"{_SUM} IS NOT NULL"
    found |= {
        signed_of(f): ("loss", f"CASE WHEN {is_known} THEN {_cut(c)} END")
        for f, c in columns.items()
    }
    if has_base_value(spec):
        found[BASE] = ("loss", f"CASE WHEN {is_known} THEN {_cut('base_value')} END")
    if has_explainer(spec):
        found[EXPLAINER] = ("categorical", f"CASE WHEN {is_known} THEN COALESCE(explainer, '') END")
    return found | (_sums(spec) if len(columns) == len(spec.features) else {})


def _sums(spec: ModelSpec) -> Values:
    """Return what SHAP values of all features should add up to, what they leave, and whether."""
    found: Values = {}
    for link, sql in links(spec).items():
        raw = f"(CASE WHEN {_SUM} IS NOT NULL THEN {_cut(sql)} END)"
        known = spec.explain.base_value
        if has_base_value(spec):
            base = _cut("base_value")
        else:
            base = number(known) if known is not None else _OFFSET.format(link)
        rest = f"({raw} - {_SUM})"
        if not base.startswith("<"):
            rest = f"({raw} - {_SUM} - {base})"
        scale = f"(ABS({raw}) + ABS({base}) + 4 * LEAST({_SIZE}, {_HUGE}))"
        off = rest if not base.startswith("<") else f"({rest} - {base})"
        broken = (
            f"CASE WHEN {rest} IS NULL THEN NULL "
            f"WHEN ABS({off}) <= {number(spec.explain.tolerance)} * {scale} THEN 0e0 ELSE 1e0 END"
        )
        found |= {
            f"{RAW}{link}": ("loss", raw),
            f"{REST}{link}": ("loss", rest),
            f"{BROKEN}{link}": ("loss", broken),
        }
    return found


def has_base_value(spec: ModelSpec) -> bool:
    """Say whether every row has the base value that its SHAP values start from."""
    return spec.columns.base_value is not None or spec.explain.model is not None


def has_explainer(spec: ModelSpec) -> bool:
    """Say whether every row has the name of what computed its SHAP values."""
    return spec.columns.explainer is not None or spec.explain.model is not None


def has_offset(spec: ModelSpec, name: str) -> bool:
    """Say whether a column's middle in the baseline stands for the base value nobody knows."""
    is_known = has_base_value(spec) or spec.explain.base_value is not None
    return name.startswith(REST) and not is_known


def with_offsets(value: str, binnings: Mapping[str, Binning]) -> str:
    """Put the base values that were estimated from the baseline into an expression."""
    for link in _LINKS:
        mark = _OFFSET.format(link)
        if mark in value:
            value = value.replace(mark, number(binnings[f"{REST}{link}"].centre))
    return value


def attribution_source(spec: ModelSpec, from_sql: str) -> str:
    """Return the rows with the sums of their SHAP values, signed and of a quarter's magnitude.

    The signed one is NULL where a value, or the output that they should add up to, is missing.
    """
    columns = [quote_identifier(c) for c in attributed(spec).values()]
    size = " + ".join(f"ABS({c} / 4)" for c in columns)
    total = " + ".join(map(_cut, columns))
    is_known = [f"{c} IS NOT NULL" for c in columns]
    is_known += [f"({sql}) IS NOT NULL" for name, sql in links(spec).items() if name != "log"]
    return (
        f"(SELECT records.*, {size} AS {_SIZE}, "
        f"CASE WHEN {' AND '.join(is_known)} THEN {total} END AS {_SUM} FROM {from_sql} AS records)"
    )


def without_values(spec: ModelSpec, from_sql: str) -> str:
    """Return no rows, with the columns of computed SHAP values beside those of the records."""
    typed = {c: "DOUBLE PRECISION" for c in (*attributed(spec).values(), "base_value")}
    nulls = ", ".join(
        f"CAST(NULL AS {kind}) AS {quote_identifier(name)}"
        for name, kind in (typed | {"explainer": "VARCHAR"}).items()
    )
    return f"(SELECT records.*, {nulls} FROM {from_sql} AS records WHERE FALSE)"


def joined_values(spec: ModelSpec, from_sql: str, table: str) -> str:
    """Return the rows that a table of computed SHAP values has, with them."""
    names = (*attributed(spec).values(), "base_value", "explainer")
    values = ", ".join(f"computed.{quote_identifier(name)}" for name in names)
    return (
        f"(SELECT records.*, {values} FROM {from_sql} AS records JOIN {table} AS computed "
        "ON computed.dataset = records.dataset "
        "AND computed.prediction_id = records.prediction_id)"
    )


def sampled(share: float) -> str:
    """Return the condition of a share of the rows, by hash of their id: the same ones every day."""
    limit = literal(f"{min(int(share * 16**8), 16**8 - 1):08x}")
    return f"SUBSTR(MD5(prediction_id || ':explained'), 1, 8) <= {limit}"


def _cut(value: str) -> str:
    return f"(CASE WHEN {value} IS NOT NULL THEN LEAST(GREATEST({value}, -{_HUGE}), {_HUGE}) END)"
