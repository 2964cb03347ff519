from __future__ import annotations

import datetime as dt
import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mlmon_dagster.report.charts import Beside, Curve, Episode
from mlmon_dagster.report.plots import draw

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
NAN = float("nan")


def curve(values: list[float], **changes: object) -> Curve:
    starts = [START + i * DAY for i in range(len(values))]
    made = Curve("ROC AUC", starts, values, end=START + len(values) * DAY)
    return replace(made, **changes)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int64)


def reddish(png: bytes) -> float:
    red, green, blue = np.moveaxis(pixels(png), 2, 0)
    return float(((red - green > 20) & (red - blue > 20) & (red > 200)).mean())


@pytest.mark.parametrize(
    "drawn",
    [
        curve([]),
        curve([NAN, NAN]),
        curve([0.7]),
        curve([0.7, 0.7, 0.7]),
        curve([0.7, NAN, 0.9], lower=[0.6, NAN, 0.8], upper=[0.8, NAN, 0.95]),
        curve([0.0] * 400, zone="America/New_York", is_share=True),
        curve([1e9, -1e9], baseline=NAN, limit=0.0),
        curve([0.5, 0.6], baseline=0.55, limit=0.55, title="cost in $ of $x_{2$"),
    ],
    ids=["none", "no values", "one", "constant", "gaps", "year", "large", "dollars"],
)
def test_whatever_the_values_there_is_a_picture_of_one_size(drawn: Curve) -> None:
    assert pixels(draw(drawn)).shape == (286, 990, 3)


@pytest.mark.filterwarnings("error")
def test_a_limit_that_no_share_reaches_takes_no_room() -> None:
    never = curve([0.0, 0.0], baseline=0.0, is_share=True)
    assert draw(replace(never, limit=-0.05)) == draw(never)


def test_alert_episodes_are_shaded_as_wide_as_they_are_long() -> None:
    values = [0.7] * 10
    plain = reddish(draw(curve(values)))
    half = reddish(draw(curve(values, episodes=[Episode(START + 5 * DAY, None)])))
    tenth = reddish(draw(curve(values, episodes=[Episode(START, START + DAY)])))
    outside = reddish(draw(curve(values, episodes=[Episode(START - 9 * DAY, START - DAY)])))

    assert plain == outside == 0
    assert half / tenth == pytest.approx(5, rel=0.2)


def test_values_intervals_baseline_limit_and_a_line_beside_all_change_the_picture() -> None:
    plain = curve([0.7, 0.8, 0.6])
    more = [
        replace(plain, lower=[0.6, 0.7, 0.5], upper=[0.8, 0.9, 0.7]),
        replace(plain, baseline=0.75),
        replace(plain, limit=0.65),
        replace(plain, beside=Beside("ground truth", "estimated", [0.72, 0.5, NAN])),
        curve([0.7, 0.8, 0.61]),
    ]

    assert len({draw(c) for c in (plain, *more)}) == 6


def test_pictures_stay_small_enough_for_many_in_one_file() -> None:
    rng = np.random.default_rng(0)
    values = list(rng.uniform(size=400))

    assert len(draw(curve(values, lower=values, upper=[v + 0.1 for v in values]))) < 80_000


def test_no_global_figures_are_made() -> None:
    def global_figures() -> list[int]:
        pyplot = sys.modules.get("matplotlib.pyplot")
        return pyplot.get_fignums() if pyplot else []

    before = global_figures()
    draw(curve([0.5]))

    assert global_figures() == before
