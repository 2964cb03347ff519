"""The table of topics: shares, how good and in which words, as counted from the files."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.profiles import load_baseline
from mlmon_dagster.report.curves import Asked
from mlmon_dagster.report.distributions import profiles_of
from mlmon_dagster.report.health import health_report
from mlmon_dagster.report.topics import Topics, list_topics
from tests.pipeline.looking import Place

KINDS, DIMENSION, ROWS, DAYS = 4, 16, 1_500, 15
FIRST, DAY = dt.date(2026, 2, 1), dt.date(2026, 3, 1)
NOW = dt.datetime(2026, 3, 2, 6, tzinfo=dt.UTC)
PERIOD = (dt.datetime(2026, 3, 1, tzinfo=dt.UTC), dt.datetime(2026, 3, 2, tzinfo=dt.UTC))
WORDS = ("refund please", "lost card", "wrong address", "late parcel")
SPEC = """\
model: assistant
task: generation
owners: [team:support]
time: {start: 2026-03-01}
source:
  predictions: {path: landing/predictions/*, settle: 0s}
  actuals: {path: landing/actuals/*, settle: 0s}
columns: {prediction_id: id, event_time: at, dataset: dataset, model_version: version}
evaluations:
  correct: {by: human, good: [right]}
  faithful: {by: judge, of: correct, good: {at_least: 4}}
features:
  meaning: {type: embedding}
  question: {type: text, pii: PII}
"""


def draw_calls(day: dt.date, dataset: str) -> pd.DataFrame:
    """Return calls of four kinds, each with words of its own; of the second most are bad."""
    rng = np.random.default_rng([day.toordinal(), len(dataset)])
    middles = 3 * np.random.default_rng(99).normal(size=(KINDS, DIMENSION))
    kind = rng.choice(KINDS, ROWS, p=[0.4, 0.3, 0.2, 0.1])
    vectors = middles[kind] + 0.3 * rng.normal(size=(ROWS, DIMENSION))
    return pd.DataFrame(
        {
            "id": [f"{dataset[:1]}{day:%m%d}-{i}" for i in range(ROWS)],
            "at": pd.Timestamp(day, tz="UTC") + pd.to_timedelta(np.arange(ROWS) * 50, unit="s"),
            "dataset": dataset,
            "version": "v1",
            "meaning": vectors.astype(np.float32).tolist(),
            "question": [f"my {WORDS[k]} now" for k in kind],
            "kind": kind,
            "score": np.where(rng.random(ROWS) < np.where(kind == 1, 0.3, 0.9), 5, 2),
        }
    )


def make_desk(folder: Path, *, personal: bool) -> tuple[Place, pd.DataFrame]:
    """Return a project with fifteen days of baseline and one day, and the calls of that day."""
    desk = Place(folder, SPEC.replace("PII", str(personal).lower()), NOW)
    usual = [draw_calls(FIRST + dt.timedelta(days=n), "validation") for n in range(DAYS)]
    calls = draw_calls(DAY, "production")
    for name, rows in (("validation", pd.concat(usual)), ("day", calls)):
        desk.land("predictions", name, rows.drop(columns=["kind", "score"]))
        said = pd.DataFrame({"id": rows["id"], "name": "faithful", "value": rows["score"]})
        said["at"] = rows["at"] + pd.Timedelta("1min")
        desk.land("actuals", name, said)
    desk.look()
    return desk, calls


def tell_topics(desk: Place, asked: Asked | None = None) -> Topics:
    asked = asked or Asked()
    baseline = load_baseline(desk.store, desk.spec)
    columns = [*desk.spec.features]
    profiles = profiles_of(desk.store, desk.spec, columns, PERIOD, asked)
    [found] = list_topics(desk.store, desk.spec, profiles, baseline, asked, PERIOD)
    return found


def test_each_topic_says_its_share_its_words_and_how_good_its_rows_are(tmp_path: Path) -> None:
    desk, calls = make_desk(tmp_path, personal=False)
    found = tell_topics(desk)
    assert found.good == "Good by faithful"
    assert len(found.rows) == 8
    told = [row for row in found.rows if row.good and row.words]
    assert told
    for row in told:
        # A large kind is several topics, none of them of two kinds.
        [kind] = [k for k, words in enumerate(WORDS) if {*words.split()} & {*row.words.split(", ")}]
        mine = calls[calls["kind"] == kind]
        share, of = row.good.split("% of ")
        assert int(of) == pytest.approx(float(row.share.rstrip("%")) / 100 * ROWS, abs=1)
        good = (mine["score"] >= 4).mean()
        error = np.sqrt(good * (1 - good) / int(of))
        assert float(share) / 100 == pytest.approx(good, abs=4 * error)
    assert found.whole.good == f"{(calls['score'] >= 4).mean():.1%} of {ROWS:,}"
    page = health_report(desk.store, desk.spec, NOW).html
    assert "Typical words" in page
    assert "Good by faithful" in page


def test_words_of_personal_texts_are_not_shown(tmp_path: Path) -> None:
    desk, _ = make_desk(tmp_path, personal=True)
    found = tell_topics(desk)
    assert not found.has_words
    assert found.good
    page = health_report(desk.store, desk.spec, NOW).html
    assert "Typical words" not in page
    assert "refund" not in page


def test_of_some_rows_alone_no_share_of_good_ones_is_said(tmp_path: Path) -> None:
    """The rows that are read are not those of a slice or a version."""
    desk, _ = make_desk(tmp_path, personal=False)
    found = tell_topics(desk, Asked(model_version="v1"))
    assert found.rows
    assert not found.good
    assert not found.has_words
