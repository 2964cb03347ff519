"""Other versions, features served otherwise than computed, and old age: measured and judged."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from mlmon_dagster.spec import load_model
from mlmon_dagster.store.state import monitor_results
from tests.defs.small_model import (
    FIRST,
    MODEL,
    ZONE,
    customers,
    drop,
    land_validation,
    landing,
    make_project,
    windows_of_days,
    write_declaration,
)
from tests.pipeline.looking import look

pytestmark = pytest.mark.slow

DAYS = tuple(FIRST + dt.timedelta(days=i) for i in range(10))
LAST = DAYS[-1]
MOMENT = dt.datetime(2024, 3, 12, 12, tzinfo=dt.UTC)
Frame = pd.DataFrame


def declare(folder: Path, versions: dict[str, object] | None) -> Path:
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    declared = yaml.safe_load(path.read_text())
    if versions is not None:
        declared["monitors"]["versions"] = versions
    path.write_text(yaml.safe_dump(declared, sort_keys=False))
    return path


def land(
    folder: Path,
    more: Callable[[Frame, np.random.Generator], Sequence[Frame]],
    n: int = 150,
    days: Sequence[dt.date] = DAYS,
) -> tuple[Frame, Frame]:
    """Land some days, each with what ``more`` makes of its predictions; return all of both."""
    land_validation(folder)
    rng = np.random.default_rng(11)
    landed = [customers(day, n=n) for day in days]
    made = pd.concat([frame for served, _ in landed for frame in more(served, rng)])
    truth = pd.concat([truth for _, truth in landed])
    drop(made, landing(folder, "predictions") / "served.parquet")
    drop(truth, landing(folder, "actuals") / "known.parquet")
    return made, truth


Verdicts = Mapping[str, Mapping[str, Any]]


@contextmanager
def looked_at(folder: Path, now: dt.datetime = MOMENT) -> Iterator[Callable[..., Verdicts]]:
    """Take in and judge what has landed; yield what gives the verdicts of a family on a day."""
    project = make_project(folder, lambda: now)
    spec = load_model(folder / "models" / f"{MODEL}.yaml")
    look(project, spec, "run")

    def verdicts(family: str = "versions", day: dt.date = LAST) -> Verdicts:
        [window] = windows_of_days(spec, [day])
        rows = monitor_results.newest(
            project.store.state, MODEL, window.start, window.end, family
        ).to_dict("records")
        return {str(row["monitor"]): {str(k): v for k, v in row.items()} for row in rows}

    yield verdicts
    project.store.close()


def shadowed(score: Callable[[Frame, np.random.Generator], np.ndarray]):  # type: ignore[no-untyped-def]
    """Return what lands a shadow, version 4, whose scores are those given."""

    def more(served: Frame, rng: np.random.Generator) -> list[Frame]:
        theirs = served.assign(dataset="shadow", version="4", score=score(served, rng))
        theirs["decision"] = (theirs["score"] >= 0.5).astype(int)
        return [served, theirs]

    return more


def noisy(spread: float) -> Callable[[Frame, np.random.Generator], np.ndarray]:
    def scores(served: Frame, rng: np.random.Generator) -> np.ndarray:
        logit = np.log(served["score"] / (1 - served["score"]))
        found: np.ndarray = 1 / (1 + np.exp(-(logit + rng.normal(0, spread, len(served)))))
        return found

    return scores


@pytest.mark.proof
@pytest.mark.parametrize(
    ("spread", "verdict", "status", "loss"),
    [(0.6, "worse", "WARN", (0.018, 0.025)), (0.05, "not worse", "OK", (-0.002, 0.002))],
)
def test_of_20_000_shared_ids_a_loss_of_2_points_is_worse_and_an_equal_version_not_worse(
    tmp_path: Path,
    spread: float,
    verdict: str,
    status: str,
    loss: tuple[float, float],
) -> None:
    declare(tmp_path, {"compare": {"dataset": "shadow", "metric": "roc_auc", "margin": 0.01}})
    made, truth = land(tmp_path, shadowed(noisy(spread)), n=2_000)
    with looked_at(tmp_path) as verdicts:
        joined = made.merge(truth, on="id")
        areas = {
            dataset: roc_auc_score(part["left"], part["score"])
            for dataset, part in joined.groupby("dataset")
        }
        lost = areas["production"] - areas["shadow"]
        assert loss[0] < lost < loss[1]
        row = verdicts()["versions/shadow_roc_auc_gain"]
        assert row["value"] == pytest.approx(-lost, abs=1e-12)
        assert row["n"] == 20_000
        assert row["status"] == status, row["message"]
        assert str(row["message"]).startswith(f"Version 4 (shadow) is {verdict} than version 3: ")
        early = verdicts(day=DAYS[3])["versions/shadow_roc_auc_gain"]
        assert (early["status"], early["reason"]) == ("NO_DATA", "few_shared_windows")


def test_an_undecided_comparison_is_not_judged_and_says_about_how_many_more_rows(
    tmp_path: Path,
) -> None:
    declare(tmp_path, {"compare": {"dataset": "shadow", "metric": "accuracy", "margin": 0.01}})
    land(tmp_path, shadowed(noisy(0.5)))
    with looked_at(tmp_path) as verdicts:
        row = verdicts()["versions/shadow_accuracy_gain"]
        assert (row["status"], row["reason"]) == ("NO_DATA", "undecided")
        assert " is undecided: " in str(row["message"])
        assert str(row["message"]).endswith(" more rows will tell.")


def split(share: Sequence[float]) -> Callable[[Frame, np.random.Generator], list[Frame]]:
    """Return what gives each day's share of the requests to version 4, which guesses."""
    days = iter(share)

    def more(served: Frame, rng: np.random.Generator) -> list[Frame]:
        chosen = rng.random(len(served)) < next(days)
        guess = np.where(chosen, rng.random(len(served)), served["score"])
        version = np.where(chosen, "4", "3")
        decided = (guess >= 0.5).astype(int)
        return [served.assign(version=version, score=guess, decision=decided)]

    return more


def test_a_canary_is_compared_while_it_gets_its_share_and_not_after(tmp_path: Path) -> None:
    compare = {"champion": "3", "challenger": "4", "metric": "roc_auc", "share": 0.3}
    declare(tmp_path, {"compare": [compare]})
    land(tmp_path, split([0.3] * 9 + [0.9]), n=400)
    with looked_at(tmp_path) as verdicts:
        before, after = verdicts(day=DAYS[8]), verdicts()
        assert before["versions/canary_share"]["status"] == "OK"
        gain = before["versions/canary_roc_auc_gain"]
        assert gain["status"] == "WARN", gain["message"]
        assert " is worse than version " in str(gain["message"])
        assert after["versions/canary_share"]["status"] == "WARN"
        assert "was to answer 30 %" in str(after["versions/canary_share"]["message"])
        silent = after["versions/canary_roc_auc_gain"]
        assert (silent["status"], silent["reason"]) == ("NO_DATA", "sample_ratio")


def replaced_on(first: dt.date) -> Callable[[Frame, np.random.Generator], list[Frame]]:
    """Return what has version 4 answer from a day on; in the south it guesses."""

    def more(served: Frame, rng: np.random.Generator) -> list[Frame]:
        if served["at"].dt.tz_convert(ZONE).dt.date.iloc[0] < first:
            return [served]
        is_bad = served["region"] == "south"
        score = np.where(is_bad, rng.random(len(served)), served["score"])
        return [served.assign(version="4", score=score, decision=(score >= 0.5).astype(int))]

    return more


@pytest.mark.parametrize("over", [None, 8], ids=["alone", "beside a shorter comparison"])
def test_a_version_is_compared_with_the_one_it_replaced_and_the_trace_names_the_rows(
    tmp_path: Path, over: int | None
) -> None:
    canary = {"champion": "3", "challenger": "4", "metric": "roc_auc", "over": over}
    declare(tmp_path, {"compare": [canary]} if over else None)
    days = [FIRST + dt.timedelta(days=i) for i in range(19)]
    land(tmp_path, replaced_on(days[11]), n=400, days=days)
    with looked_at(tmp_path, MOMENT + dt.timedelta(days=10)) as verdicts:
        assert "performance/release_change" not in verdicts("performance", days[11 + 6])
        row = verdicts("performance", days[-1])["performance/release_change"]
        assert row["status"] == "WARN", row["message"]
        assert str(row["message"]).startswith("Version 4 is worse than version 3: ROC AUC 0.")
        details = json.loads(row["details"])
        assert "By region it is above all south" in details["why"]
        assert details["traced"] == {
            "from": f"{days[11]}", "to": f"{days[18]}", "against": f"{days[0]}..{days[10]}",
        }  # fmt: skip


def skewed(served: Frame, rng: np.random.Generator) -> list[Frame]:
    """Offline the age is that of another row in 5 % of them, and the balance in cents."""
    offline = served.assign(dataset="training", balance=served["balance"] * 100)
    chosen = rng.choice(len(offline), len(offline) // 20, replace=False)
    age = offline["age"].to_numpy().copy()
    age[chosen] = age[np.roll(chosen, 1)]
    return [served, offline.assign(age=age)]


@pytest.mark.proof  # a skewed feature is found by id: tests/cli/test_compare.py
def test_a_permuted_twentieth_of_a_column_is_skew_by_id_while_its_drift_is_silent(
    tmp_path: Path,
) -> None:
    declare(tmp_path, {"skew": {"dataset": "training"}})
    land(tmp_path, skewed, n=2_000)
    with looked_at(tmp_path) as verdicts:
        found = verdicts()
        age = found["versions/skew_rate/age"]
        assert age["value"] == pytest.approx(0.05, abs=0.005)
        assert age["lower"] < 0.05 < age["upper"]
        assert age["status"] == "WARN"
        assert f"mlmon skew {MODEL} --from {LAST} --to {LAST} --dataset training" in str(
            age["message"]
        )
        assert "unit of 0.01" in str(found["versions/skew_rate/balance"]["message"])
        assert found["versions/skew_rate/region"]["status"] == "OK"
        assert verdicts("drift")["drift/psi/age"]["status"] == "OK"


def test_a_version_that_served_for_longer_than_declared_is_stale_until_another_one_serves(
    tmp_path: Path,
) -> None:
    def more(served: Frame, rng: np.random.Generator) -> list[Frame]:
        new = (served["at"] >= pd.Timestamp(LAST, tz="America/New_York")).all()
        return [served.assign(version="4" if new else "3")]

    declare(tmp_path, {"staleness": {"above": "8d"}})
    land(tmp_path, more)
    with looked_at(tmp_path) as verdicts:
        name = "versions/version_age_days"
        rows = [verdicts(day=day)[name] for day in DAYS]
        assert [row["value"] for row in rows] == [*range(1, 10), pytest.approx(23 / 24)]
        assert [row["status"] for row in rows] == [*["OK"] * 8, "WARN", "OK"]
        assert rows[8]["message"] == "Version 3 has served for 9 days, above 8 days."
