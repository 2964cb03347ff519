"""A promise on requests is judged by how fast its budget burns, and says who spent it."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, MODEL, ZONE, customers, drop, landing, write_declaration
from tests.defs.worlds import opened

pytestmark = pytest.mark.slow

GOOD, OUT, AFTER = DAYS[0], DAYS[1], DAYS[2]
MOMENT = dt.datetime(2024, 3, 4, 12, tzinfo=dt.UTC)
OUTAGE = tuple(dt.datetime.combine(OUT, dt.time(hour), ZONE) for hour in (10, 13))
OBJECTIVE = {"name": "answered", "good": "status = 'ok' and latency_ms <= 900", "target": 0.99}
ROWS = 4_000


def requests(day: dt.date) -> pd.DataFrame:
    """Return a day's predictions; for three hours of a day the west is not answered."""
    frame = customers(day, n=ROWS)[0]
    moments = pd.to_datetime(frame["at"], utc=True)
    out = (frame["region"] == "west") & (moments >= OUTAGE[0]) & (moments < OUTAGE[1])
    rng = np.random.default_rng(day.toordinal())
    return frame.assign(
        status=np.where(out, "error", "ok"), latency_ms=rng.lognormal(4.6, 0.4, len(frame))
    )


def declare(folder: Path, *objectives: object) -> None:
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["columns"]["status"] = "status"
    declared["monitors"]["service"] = {"objectives": list(objectives), "error_rate": {"above": 0.5}}
    path.write_text(yaml.safe_dump(declared, sort_keys=False))


def test_an_outage_of_three_hours_is_an_error_of_its_day_with_its_times_and_who_spent_the_budget(
    tmp_path: Path, mlmon: Command
) -> None:
    declare(tmp_path, OBJECTIVE)
    for day in (GOOD, OUT, AFTER):
        drop(requests(day), landing(tmp_path, "predictions") / f"{day}.parquet")
    with opened(tmp_path, MOMENT) as world:
        assert world.launcher.materialize(world.spec, ("event_log",)).is_success
        assert world.compute([GOOD, OUT, AFTER]).is_success
        found = {
            day: world.verdicts("service", day)
            .set_index("monitor")
            .loc["service/burn_rate/answered"]
            for day in (GOOD, OUT, AFTER)
        }
        check = world.evaluations("service_health", "service")[str(OUT)]

    assert (found[GOOD]["status"], found[OUT]["status"]) == ("OK", "ERROR")
    said = found[OUT]["message"]
    first, second = said.splitlines()
    times = re.fullmatch(
        r"answered burned its budget ([\d.]+) times too fast, from 02 Mar (\d\d:\d\d) to 02 Mar "
        r"(\d\d:\d\d)\.", first
    )  # fmt: skip
    assert times, said
    assert "10:05" <= times[2] <= "10:45"
    assert "12:50" <= times[3] <= "13:05"
    assert second.startswith(
        "The rule fast fails from 14.4 times the even rate on, over 1 hour and 5 minutes. "
        "The budget of 28 days is spent"
    )
    assert found[OUT]["value"] == pytest.approx(float(times[1]), rel=0.01)
    assert check.status.value == "FAILED"
    # The day after still burns the three days' budget, without a new bad request it is no news.
    assert found[AFTER]["status"] == "OK"

    lost = sum((requests(day)["status"] == "error").sum() for day in (GOOD, OUT, AFTER))
    ended = mlmon("--project", tmp_path, "--now", MOMENT.isoformat(), "budget", MODEL)
    assert ended.code == 1
    assert f"{lost} of 12,000 were not good, 120 may be" in ended.out
    rows = {line.split()[0]: line.split() for line in ended.out.splitlines()[1:] if "=" in line}
    assert rows["region=west"][2:4] == [
        str(lost),
        f"{lost / int(rows['region=west'][1].replace(',', '')):.3%}",
    ]
    assert rows["region=west"][4] == f"{lost / 120:.1%}"
    assert all(
        row[2] == "0"
        for name, row in rows.items()
        if name.startswith("region=") and row[0] != "region=west"
    )


def test_what_cannot_be_promised_is_said_with_the_place(tmp_path: Path, mlmon: Command) -> None:
    late = {**OBJECTIVE, "good": "actual = 1"}
    declare(tmp_path, late, {**OBJECTIVE, "over": "1d"}, OBJECTIVE)
    ended = mlmon("--project", tmp_path, "--now", MOMENT.isoformat(), "validate")

    assert ended.code != 0
    said = ended.out + ended.err
    assert "monitors.service.objectives" in said
    assert "actual" in said
    assert "between 3 and 92 days" in said
    assert "'answered' is declared twice" in said
