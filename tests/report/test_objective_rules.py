"""Rules for Prometheus page when our own judgement of the same requests does."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlmon_dagster.metrics.objectives import BUCKET, RULES, burned
from mlmon_dagster.report.objective_rules import PAGES, objective_rules
from mlmon_dagster.spec.monitors import Objective
from tests.alerts.worlds import spec_of

TARGET, HOURS = 0.99, 30
COUNTERS = {"requests": 'asked_total{job="a\\"b"}', "bad": "lost_total"}
MINUTE = dt.timedelta(minutes=1)
N = HOURS * 60
QUIET = np.zeros(N)
OUT = slice(20 * 60, 22 * 60)  # when something is wrong


def lost(share: float, when: slice = OUT, asked: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Return requests by minute, and how many of them are lost."""
    bad = QUIET.copy()
    bad[when] = share * asked
    return np.full(N, asked), bad


SCENES = {
    "sharp": lost(0.5),
    "partial": lost(0.2),
    "slow": lost(0.08, slice(12 * 60, 30 * 60)),
    "clean": lost(0.0),
    "within the budget": lost(0.009, slice(0, N)),
    "a trickle": lost(1.0, slice(20 * 60, 20 * 60 + 9), asked=1.0),
}


def rules_file() -> str:
    objective = Objective(name="answered", good="x = 1", target=TARGET, counters=COUNTERS)  # type: ignore[arg-type]
    spec = spec_of("churn")
    service = spec.monitors.service.model_copy(update={"objectives": (objective,)})
    monitors = spec.monitors.model_copy(update={"service": service})
    return objective_rules(spec.model_copy(update={"monitors": monitors}))


def ours(scene: str, rule: str) -> int | None:
    """Return the minute at which a rule holds first by our own judgement; None if it never does."""
    minutes = round(BUCKET / MINUTE)
    n, bad = (values.reshape(-1, minutes).sum(axis=1) for values in SCENES[scene])
    alone = [one for one in RULES if one.name == rule]
    found = burned(n, np.round(bad), TARGET, 0, alone)
    return None if found.rule is None else (found.first + 1) * minutes


def series(name: str, by_minute: np.ndarray) -> dict[str, str]:
    values = " ".join(f"{v:.6g}" for v in [0.0, *np.cumsum(by_minute)])
    return {"series": name, "values": values}


def test_rules_need_no_series_of_lost_requests_and_name_the_hours_alone() -> None:
    (group,) = yaml.safe_load(rules_file())["groups"]
    records = [rule["record"] for rule in group["rules"] if "record" in rule]
    assert records == [f"mlmon:objective_bad:ratio_rate{o}" for o in ("5m", "30m", "1h", "6h")]
    assert [r.get("alert") for r in group["rules"] if "alert" in r] == [
        "MlmonBudgetBurnsFast", "MlmonBudgetBurnsSlow"
    ]  # fmt: skip


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_that_rules_fire_within_two_buckets_of_our_judgement_and_else_never(
    tmp_path: Path,
) -> None:
    (tmp_path / "rules.yml").write_text(rules_file())
    alerts = {
        rule["alert"]: {
            "exp_labels": rule["labels"], "exp_annotations": rule["annotations"]
        }
        for rule in yaml.safe_load(rules_file())["groups"][0]["rules"]
        if "alert" in rule
    }  # fmt: skip
    tests, told = [], {}
    for scene, (asked, bad) in SCENES.items():
        wanted = []
        for rule in PAGES:
            name = f"MlmonBudgetBurns{rule.name.capitalize()}"
            first = ours(scene, rule.name)
            told[scene, rule.name] = first is not None
            bounds = range(60, N, 60) if first is None else range(60, first - 10, 60)
            wanted += [(minute, name, []) for minute in bounds]
            if first is not None:
                wanted.append((first + 10, name, [alerts[name]]))
        lost_ones = [series("lost_total", bad)] if bad.any() else []
        tests.append({
            "interval": "1m",
            "input_series": [series('asked_total{job="a\\"b"}', asked), *lost_ones],
            "alert_rule_test": [
                {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": expected}
                for minute, name, expected in wanted
            ],
        })  # fmt: skip
    made = {"rule_files": ["rules.yml"], "evaluation_interval": "5m", "tests": tests}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(made))
    for command in (("check", "rules", "rules.yml"), ("test", "rules", "test.yml")):
        done = subprocess.run(
            ["promtool", *command], cwd=tmp_path, capture_output=True, text=True
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    assert {key for key, fires in told.items() if fires} == {
        ("sharp", "fast"), ("sharp", "slow"), ("partial", "fast"), ("partial", "slow"),
        ("slow", "slow"),
    }  # fmt: skip
