"""The shapes of columns: what is drawn is the density, and values have their names."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.report.charts import MOST_NAMED, Bars, write_scale
from mlmon_dagster.report.distributions import Side, _histogram

Floats = NDArray[np.float64]
QUANTILES = np.linspace(0, 1, 21)[1:-1]


def shape_of(values: Floats, now: Floats | None = None) -> Bars:
    """Count values in coarse bins of equal shares, as a baseline's are, and draw them."""
    edges = np.quantile(values, QUANTILES)
    binning = Binning(
        "x", "numeric", len(edges) + 1, "x", tuple(edges), low=values.min(), high=values.max()
    )

    def side(of: Floats) -> Side:
        places = np.searchsorted(edges, of)
        return Side(np.bincount(places, minlength=len(edges) + 1), len(of), 0)

    drawn = _histogram("x", binning, side(values if now is None else now), side(values))
    assert drawn is not None
    return drawn


def steps_of(path: str) -> tuple[list[float], list[float]]:
    """Return where the steps of a drawn shape end, and how high they are."""
    pairs = re.findall(r"V([\d.]+)H([\d.]+)", path)
    return [float(x) for _, x in pairs], [60 - float(y) for y, _ in pairs]


def drawn_path(bars: Bars, kind: str) -> str:
    return re.search(rf'class="{kind}" d="([^"]+)"', bars.picture)[1]


WORLD = np.random.default_rng(7)
LOG_NORMAL = np.exp(WORLD.normal(3, 1, 20_000))
AGES = np.clip(WORLD.normal(42, 12, 20_000), 18, 99)


@pytest.mark.parametrize("values", [LOG_NORMAL, AGES], ids=["log-normal", "ages"])
def test_the_area_over_each_bin_is_its_share(values: Floats) -> None:
    bars = shape_of(values)
    ends, heights = steps_of(drawn_path(bars, "then"))
    areas = np.diff([0.0, *ends]) * np.array(heights)

    assert len(ends) == len(QUANTILES) + 1
    # The picture is rounded to a tenth of its 58 units of height and 400 of width.
    assert areas / areas.sum() == pytest.approx(np.array(bars.then), abs=0.012)
    density = np.array(bars.density(bars.then))
    assert density @ np.diff(bars.edges) == pytest.approx(sum(bars.then))


def test_a_value_far_away_leaves_room_for_the_others() -> None:
    bars = shape_of(np.append(AGES, 1e9))

    assert bars.edges[-1] < 150


def test_the_scale_is_written_below_and_a_shift_is_seen() -> None:
    bars = shape_of(AGES, AGES + 15)
    low, middle, high = (float(tick.replace(",", "")) for tick in bars.ticks)

    assert low < middle < high
    assert drawn_path(bars, "over") != drawn_path(bars, "then")


def test_whole_numbers_have_no_decimals() -> None:
    assert write_scale([5.0, 14.0, 1_023.0]) == ["5", "14", "1,023"]
    assert write_scale([5.0, 14.5]) == ["5.00", "14.5"]


def test_values_of_a_category_stand_beside_their_bars() -> None:
    names = [f"value {i}" for i in range(MOST_NAMED + 3)]
    then = [0.2, *[0.8 / (len(names) - 1)] * (len(names) - 1)]
    now = [0.5, *[0.5 / (len(names) - 1)] * (len(names) - 1)]
    bars = Bars("carrier", names, now, then, is_named=True)

    first, share, picture = bars.named[0]
    assert (first, share) == ("value 0", "50 %")
    assert len(bars.named) == MOST_NAMED
    assert 'class="now" d="M0 3h100' in picture
    assert 'class="then" d="M0 0h40' in picture
