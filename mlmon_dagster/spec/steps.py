"""The steps of a model as a table: names, order, what each is, and who has it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import FRESHNESS, PERFORMANCE, SCHEMA
from mlmon_dagster.spec.tasks import families_of


@dataclass(frozen=True)
class AssetInfo:
    """One asset of a model.

    Attributes:
        name: Last part of its key.
        deps: Names of the assets it is computed from.
        kinds: Icons in the UI.
        description: What it is, for a person who sees it in the UI.
        is_windowed: Whether it has one partition per window.
        check: What its check says when it fails; none without.
        formulas: Where, below ``metrics/``, the formulas are that its numbers come from.
        family: The monitor family of its check, if it has one.
    """

    name: str
    deps: tuple[str, ...]
    kinds: frozenset[str]
    description: str
    is_windowed: bool = True
    check: str = ""
    formulas: tuple[str, ...] = ()
    family: str | None = None


MEASURED = tuple(family.asset for family in FAMILIES.values() if family.is_measured)
ASSETS: tuple[AssetInfo, ...] = (
    AssetInfo(
        "event_log",
        ("landing",),
        frozenset({"deltalake", "parquet", "greatexpectations"}),
        "Every accepted prediction event and actual, append-only. Materializing it reads the "
        "new landing files: each is checked against the declared schema, bad rows go to the dead "
        "letter, broken files to quarantine, and each content is stored once.",
        is_windowed=False,
        check=FAMILIES[FRESHNESS].check,
        family=FRESHNESS,
    ),
    AssetInfo(
        "baseline",
        ("event_log",),
        frozenset({"duckdb", "deltalake"}),
        "What every window is compared with: bins and profiles of the baseline dataset.",
        is_windowed=False,
    ),
    AssetInfo(
        "inference_store",
        ("event_log",),
        frozenset({"duckdb", "deltalake"}),
        "One record per prediction of the window, with the newest actual joined. Rebuilt from the "
        "event log, so materializing a window again gives the same rows.",
        check=FAMILIES[SCHEMA].check,
        family=SCHEMA,
    ),
    AssetInfo(
        "profiles",
        ("inference_store", "baseline"),
        frozenset({"duckdb", "deltalake"}),
        "Mergeable statistics per window, slice and column; the only step that reads raw rows.",
    ),
    *(
        AssetInfo(
            family.asset,
            family.deps,
            family.kinds,
            family.description,
            check=family.check,
            formulas=family.formulas,
            family=family.name,
        )
        for family in FAMILIES.values()
        if family.is_measured
    ),
    AssetInfo(
        "performance_trace",
        (FAMILIES[PERFORMANCE].asset,),
        frozenset({"scipy", "pandas"}),
        "Which slices explain how performance changed since the baseline, over the newest windows "
        "with mature ground truth: an exact split into mix and within effects where there is one.",
        is_windowed=False,
    ),
    AssetInfo(
        "health_report",
        (*MEASURED, "performance_trace"),
        frozenset({"html"}),
        "One HTML file for people: status, firing alerts, months, curves and what explains them.",
        is_windowed=False,
    ),
)


BY_NAME = {info.name: info for info in ASSETS}
REPORTED = ("performance_trace", "health_report")
_OF_TRUTH = {family.asset for family in FAMILIES.values() if family.is_of_truth}


@lru_cache(maxsize=1_000)  # every step of a run asks several times
def assets_of(spec: ModelSpec) -> tuple[AssetInfo, ...]:
    """Return the assets that a model has, in the order of the lineage.

    All but those of families that it has not.
    """
    families = families_of(spec)
    return tuple(info for info in ASSETS if info.family is None or info.family in families)


def windowed_of(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of a model's assets that have one partition per window, in order."""
    return tuple(info.name for info in assets_of(spec) if info.is_windowed)


def of_actuals(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of a model's assets that ground truth is judged by, in order."""
    return tuple(name for name in windowed_of(spec) if name in _OF_TRUTH)


def steps_of(spec: ModelSpec) -> tuple[str, ...]:
    """Return what a window needs to be up to date: its assets, and the verdicts on them."""
    mine = [info for info in assets_of(spec) if info.is_windowed]
    return (
        *(info.name for info in mine),
        *(f"{info.family}_check" for info in mine if info.family),
    )
