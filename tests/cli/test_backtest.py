"""``mlmon backtest`` on a processed fortnight."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa

from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW, make_project

AT = ("--now", NOW.isoformat())


def opened(folder: Path) -> dict[str, int]:
    """Alerts that the pipeline opened, by monitor."""
    query = sa.text(
        "SELECT a.monitor, COUNT(*) FROM alert_event e JOIN alert a USING (fingerprint)"
        " WHERE e.kind = 'opened' AND a.family <> 'freshness' GROUP BY a.monitor"
    )
    with make_project(folder).store.state.connect() as conn:
        return {monitor: n for monitor, n in conn.execute(query)}


def test_a_backtest_opens_what_the_pipeline_opened_and_sends_nothing(
    folder: Path, mlmon: Command
) -> None:
    mlmon("--project", folder, *AT, "alerts", "deliver")
    real = opened(folder)
    ended = mlmon("--project", folder, *AT, "backtest", MODEL, "--format", "json")

    assert ended.code == 0, ended.err
    tests = [json.loads(line) for line in ended.out.splitlines()]
    assert {t["monitor"]: len(t["opened"]) for t in tests if t["opened"]} == real
    assert real
    assert opened(folder) == real


def test_a_threshold_may_be_tried_without_computing_anything(folder: Path, mlmon: Command) -> None:
    path = folder / "models" / f"{MODEL}.yaml"
    strict = mlmon("--project", folder, *AT, "backtest", MODEL).out
    text = path.read_text()
    path.write_text(text.replace("null_rate: {above: 0.2}", "null_rate: {above: 1}"))
    assert path.read_text() != text
    loose = mlmon("--project", folder, *AT, "backtest", MODEL).out

    assert "quality: Null share" in strict
    assert "False incidents a year of an unchanged model: at most" in strict
    assert "quality: Null share" not in loose
