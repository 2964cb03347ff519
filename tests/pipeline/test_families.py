"""One record, one judge and one asset for each family of monitors."""

from __future__ import annotations

import pytest

from mlmon_dagster.families.family import Family
from mlmon_dagster.families.registry import JUDGED_BY, MEASURED_BY
from mlmon_dagster.pipeline.run import WINDOW_STEPS
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.steps import ASSETS, MEASURED
from tests.proof import world

SPEC = world.make_spec()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_declared_family_has_a_record_of_its_name(name: str) -> None:
    assert JUDGED_BY[name].name == name
    assert JUDGED_BY[name].declared is FAMILIES[name]
    assert (JUDGED_BY[name].measure is not None) == FAMILIES[name].is_measured


def test_every_measuring_asset_has_a_family_and_every_windowed_one_a_step() -> None:
    assert tuple(MEASURED_BY) == MEASURED
    assert tuple(WINDOW_STEPS) == tuple(info.name for info in ASSETS if info.is_windowed)


@pytest.mark.parametrize("family", JUDGED_BY.values(), ids=lambda family: family.name)
def test_a_family_says_its_limits_in_one_sentence_or_more(family: Family) -> None:
    said = family.limits(SPEC)

    assert said == "" or (said[0].isupper() and said.endswith("."))


@pytest.mark.parametrize("family", JUDGED_BY.values(), ids=lambda family: family.name)
def test_a_family_reads_metrics_of_its_own_or_counts_alone(family: Family) -> None:
    spec: ModelSpec = SPEC

    assert bool(family.metrics(spec)) <= (family.measure is not None)


def test_a_family_judged_by_counts_has_no_metrics_to_make() -> None:
    with pytest.raises(ValueError, match=r"family schema is judged by counts; it has no metrics"):
        JUDGED_BY["schema"].columns(SPEC)
