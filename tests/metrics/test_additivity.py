"""SHAP values that add up to a score, and those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlmon_dagster.metrics.quality import additivity_metrics, fitting_link
from mlmon_dagster.metrics.statistics import merge_columns
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.loss_columns import signed_of
from mlmon_dagster.profiles.measures import drift, quality
from tests.profiles.records import DuckEngine, make_records, make_spec

WEIGHTS = {"temp": 1.0, "hour": 0.6, "carrier": 0.3, "origin": 0.1}
BASE = -1.2
FEATURES = {name: make_spec().features[name].model_dump(exclude_unset=True) for name in WEIGHTS}


def spec_of(**more: Any) -> Any:
    columns = make_spec().columns.model_dump(exclude_none=True)
    columns |= {"shap": "shap_{feature}", **more.pop("columns", {})}
    return make_spec(slices=[["origin"]], features=FEATURES, columns=columns, **more)


def rows(
    rng: np.random.Generator,
    n: int = 400,
    days: int = 4,
    *,
    space: str = "logit",
    swapped: bool = False,
    explainer: str | None = None,
) -> pa.Table:
    """Return records with SHAP values that add up to the score, or to its logit."""
    shap = {name: weight * rng.normal(size=n) for name, weight in WEIGHTS.items()}
    if space == "identity":
        shap = {name: values * 0.01 for name, values in shap.items()}
    raw = BASE + sum(shap.values()) if space == "logit" else 0.5 + sum(shap.values())
    score = 1 / (1 + np.exp(-raw)) if space == "logit" else raw
    if swapped:
        shap["temp"], shap["origin"] = shap["origin"], shap["temp"]
    table = make_records(n, days=days, model_version=["1"] * n, score=score)
    for name, values in shap.items():
        table = table.append_column(f"shap:{name}", pa.array(values))
    if explainer is not None:
        table = table.append_column("explainer", pa.array([explainer] * n))
    return table


def profiled(spec: Any, baseline: pa.Table, *others: pa.Table) -> list[dict[str, Any]]:
    engine = DuckEngine(base=baseline)
    binnings = fit_binnings(engine, spec, "base")
    return [
        build_profiles(DuckEngine(base=table), spec, "base", binnings)
        for table in (baseline, *others)
    ]


@pytest.mark.parametrize("known", [{}, {"explain": {"base_value": BASE}}], ids=["unknown", "known"])
def test_values_that_add_up_to_the_log_odds_are_found_out(known: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    base, now = profiled(spec_of(**known), rows(rng), rows(rng))
    assert fitting_link(base, now) == ("logit", 0.0)
    found = additivity_metrics(now, base)
    assert set(found["value"]) == {0.0}
    assert set(found["method_version"]) == {"additive-1:logit"}
    assert int(found["n"].sum()) == 400


def test_values_in_the_space_of_probabilities_are_told_from_log_odds() -> None:
    rng = np.random.default_rng(1)
    base, now = profiled(spec_of(), rows(rng, space="identity"), rows(rng, space="identity"))
    assert fitting_link(base, now) == ("identity", 0.0)
    assert set(additivity_metrics(now, None)["method_version"]) == {"additive-1:identity"}


def test_values_of_another_version_or_unit_do_not_add_up() -> None:
    rng = np.random.default_rng(2)
    good = rows(rng)
    other = good.set_column(
        good.column_names.index("score"), "score", pa.array(rng.uniform(0.1, 0.9, 400))
    )
    base, wrong, unit = profiled(spec_of(), good, other, rows(rng, space="identity"))
    for side in (wrong, unit):
        assert additivity_metrics(side, base)["value"].min() > 0.9
    # The rows of both sides that add up are no majority of all.
    link, share = fitting_link(wrong) or ("", 0.0)
    assert share > 0.5, link


def test_a_base_value_in_a_column_may_differ_from_row_to_row() -> None:
    rng = np.random.default_rng(4)
    table = rows(rng)
    lower = pa.array(np.where(np.arange(400) % 2, BASE, BASE - 1))
    score = table["score"].to_numpy()
    raw = np.log(score / (1 - score)) + np.where(np.arange(400) % 2, 0, -1)
    table = table.set_column(
        table.column_names.index("score"), "score", pa.array(1 / (1 + np.exp(-raw)))
    )
    spec = spec_of(columns={"base_value": "base"})
    [now] = profiled(spec, table.append_column("base_value", lower))
    assert set(quality(spec, now, now).query("metric == 'not_additive_rate'")["value"]) == {0.0}


def test_of_some_features_or_several_classes_nothing_is_said_to_add_up() -> None:
    rng = np.random.default_rng(5)
    spec = spec_of(columns={"shap": {"temp": "a", "hour": "b"}})
    [now] = profiled(spec, rows(rng))
    assert fitting_link(now) is None
    assert additivity_metrics(now, None).empty
    assert signed_of("temp") in now


def test_signed_sums_merge_and_add_up_to_the_mean_output() -> None:
    rng = np.random.default_rng(6)
    [now] = profiled(spec_of(), rows(rng, 1_000, days=9))
    merged = merge_columns({k: now[k] for k in now if k[0] == ":" and k != ":score_order"},
                           ("dataset", "slice_key"))  # fmt: skip
    whole = (merged[":raw/logit"].cells["slice_key"] == "all").to_numpy()
    total = sum(merged[signed_of(f)].total[whole].sum() for f in WEIGHTS)
    raw = merged[":raw/logit"].total[whole].sum()
    assert raw == pytest.approx(total + 1_000 * BASE, rel=1e-12)


@pytest.mark.proof
def test_a_swapped_attribution_is_flagged_every_time_and_a_new_sample_is_not() -> None:
    """200 windows each; the sum of a row's values does not change by a swap, its shares do."""
    rng = np.random.default_rng(8)
    spec = spec_of()
    base, same, other = profiled(
        spec,
        rows(rng, 20_000, days=20),
        rows(rng, 40_000, days=200),
        rows(rng, 40_000, days=200, swapped=True),
    )
    flagged = {}
    for name, now in (("same", same), ("swapped", other)):
        found = drift(spec, now, base)
        frame = found[(found["metric"] == "attribution_shift") & (found["slice_key"] == "all")]
        fails = (frame["p_value"] <= 0.01 / len(WEIGHTS)) & (frame["value"].abs() > 0.1)
        flagged[name] = int(fails.groupby(frame["window_start"]).any().sum())
    assert flagged["swapped"] == 200
    assert flagged["same"] <= 2


@pytest.mark.parametrize(("explainer", "reason"), [("tree 1", ""), ("tree 2", "other_explainer")])
def test_another_explainer_is_no_drift(explainer: str, reason: str) -> None:
    rng = np.random.default_rng(9)
    spec = spec_of(columns={"explainer": "by"})
    base, now = profiled(
        spec, rows(rng, explainer="tree 1"), rows(rng, swapped=True, explainer=explainer)
    )
    frame = drift(spec, now, base)
    mine = frame[frame["metric"] == "attribution_shift"]
    assert set(mine["reason"]) == {reason}
    assert mine["value"].isna().all() == bool(reason)
    shares = frame[frame["metric"] == "attribution"]
    assert shares["value"].notna().all()
