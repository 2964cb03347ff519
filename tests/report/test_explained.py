"""What a trace says of a world whose story is known: the region that broke, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from mlmon_dagster.report.trace import explained, searched
from mlmon_dagster.spec.names import joined
from mlmon_dagster.trace.explain import Explained
from mlmon_dagster.trace.sentences import MOST_LINES, describe_trace, signed, value
from tests.report.worlds import DAY, World

pytestmark = pytest.mark.xdist_group("report")  # they share a world

BINNED = 0.002  # ROC AUC of 256 groups of scores against that of the rows


@pytest.fixture(scope="module")
def found(world: World) -> Explained:
    explained_ = explained(world.store, world.spec, "roc_auc", world.period)
    assert explained_ is not None
    return explained_


def known(world: World, dataset: str) -> pd.DataFrame:
    rows = world.side(dataset)
    return rows[rows["actual"] >= 0]


def area(rows: pd.DataFrame) -> float:
    return float(roc_auc_score(rows["actual"], rows["score"]))


def test_values_and_change_are_those_of_the_rows(world: World, found: Explained) -> None:
    now, then = known(world, "production"), known(world, "validation")

    assert found.now.value == pytest.approx(area(now), abs=1e-4)
    assert found.then.value == pytest.approx(area(then), abs=1e-4)
    assert (found.now.n, found.then.n) == (len(now), len(then))
    assert (found.now.windows, found.then.windows) == (8, 8)


def test_slices_add_up_and_the_broken_region_is_the_worst(world: World, found: Explained) -> None:
    change = area(known(world, "production")) - area(known(world, "validation"))
    for key in ("region", "region,member"):
        split = found.values[key]
        assert split.effects.sum() == pytest.approx(change, abs=BINNED)
    by_region = dict(zip(found.values["region"].parts, found.values["region"].effects, strict=True))

    assert min(by_region, key=lambda name: by_region[name]) == "north"


def test_decisions_and_scores_are_those_of_the_rows(world: World, found: Explained) -> None:
    now, then = known(world, "production"), known(world, "validation")
    decided = found.decisions["f1"]

    change = f1_score(now["actual"], now["prediction"]) - f1_score(
        then["actual"], then["prediction"]
    )
    assert decided.split.change == pytest.approx(change, abs=1e-12)
    caught = now.loc[now["actual"] == 1, "prediction"].mean()
    assert decided.rates[1] == pytest.approx(caught, abs=1e-12)
    assert decided.threshold is not None
    assert decided.threshold.now == pytest.approx(0.5, abs=0.01)
    assert decided.threshold.value == pytest.approx(
        f1_score(now["actual"], now["prediction"]), abs=0.01
    )
    assert found.scores is not None
    assert found.scores.mean == pytest.approx(now["score"].mean(), abs=0.005)
    assert found.scores.rate_then == pytest.approx(then["actual"].mean(), abs=1e-12)


def test_windows_are_those_that_add_most(world: World, found: Explained) -> None:
    rows = known(world, "production")
    whole = area(rows)
    first = found.windows.iloc[0]
    rest = rows[rows["window_start"] != first["window_start"]]

    assert first["effect"] == pytest.approx(whole - area(rest), abs=1e-3)
    assert list(found.windows["effect"]) == sorted(found.windows["effect"])
    worst = set(found.windows["window_start"][:3])
    left = rows[~rows["window_start"].isin(worst)]
    assert found.without == pytest.approx(area(left), abs=1e-3)


def test_the_story_is_told_in_plain_sentences(world: World, found: Explained) -> None:
    lines = describe_trace(world.spec, found, "the week", "the baseline")

    assert len(lines) <= MOST_LINES
    assert lines[0].startswith("ROC AUC of the week is .")
    assert "more than chance" in lines[0]
    assert any(line.startswith("By region it is above all north with -") for line in lines)
    assert not any("nan" in line.lower() for line in lines), lines


def test_sides_may_be_two_periods_and_nothing_is_known_of_few_windows(world: World) -> None:
    middle = world.windows[3].end
    halves = (world.windows[0].start, middle), (middle, world.windows[-1].end)
    one = explained(world.store, world.spec, "accuracy", halves[1], halves[0])
    other = explained(world.store, world.spec, "accuracy", halves[0], halves[1])
    assert one is not None
    assert other is not None

    assert one.change == pytest.approx(-other.change, abs=1e-12)
    said = describe_trace(world.spec, one, "now", "before")
    assert "whether this is chance is not known" in said[0]
    few = explained(world.store, world.spec, "roc_auc", halves[1], halves[0])
    assert few is not None
    # The margins of slices are unknown as well: nothing says that none of them is the cause.
    said = describe_trace(world.spec, few, "now", "before")
    assert "in 4 windows: too few to say which slice got worse" in said[1]
    assert len(said) == 2
    nothing = (world.period[1] + 9 * DAY, world.period[1] + 10 * DAY)
    assert explained(world.store, world.spec, "roc_auc", nothing) is None


def test_few_windows_are_not_searched_and_that_is_no_finding(world: World) -> None:
    result = searched(world.store, world.spec, world.period)

    assert result is not None
    assert result.slices == ()
    assert result.columns == ("age", "region", "member")  # not the column of secrets


def test_numbers_are_written_for_people() -> None:
    assert [value(x) for x in (0.645, -0.0866, 1.5, 12.34, 1234.5)] == [
        ".645", "-.087", "1.500", "12.3", "1,234",
    ]  # fmt: skip
    assert [signed(x) for x in (0.026, -0.087, np.nan)] == ["+.026", "-.087", "not known"]
    assert [joined(x) for x in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
