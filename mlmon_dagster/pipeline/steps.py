"""The steps of a model as a table: names, order, what each is, and who has it."""

from __future__ import annotations

from dataclasses import dataclass

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.tasks import families_of

_FAMILY_OF = {asset: family for family, asset in FAMILIES.items()}


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
    """

    name: str
    deps: tuple[str, ...]
    kinds: frozenset[str]
    description: str
    is_windowed: bool = True
    check: str = ""
    formulas: tuple[str, ...] = ()

    @property
    def family(self) -> str | None:
        """The monitor family of its check, if it has one."""
        return _FAMILY_OF.get(self.name)


ASSETS: tuple[AssetInfo, ...] = (
    AssetInfo(
        "event_log",
        ("landing",),
        frozenset({"deltalake", "parquet", "greatexpectations"}),
        "Every accepted prediction event and actual, append-only. Materializing it takes in the "
        "landing files that are new: each is checked against the declared schema, bad rows go to "
        "the dead letter, broken files to quarantine, and each content is taken once.",
        is_windowed=False,
        check="Predictions have stopped coming: no event for longer than `no_data_for`.",
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
        check="Rows or files of this window broke the declared schema.",
    ),
    AssetInfo(
        "profiles",
        ("inference_store", "baseline"),
        frozenset({"duckdb", "deltalake"}),
        "Mergeable statistics per window, slice and column; the only step that reads raw rows.",
    ),
    AssetInfo(
        "data_quality",
        ("profiles",),
        frozenset({"pandas"}),
        "Shares of null, not-a-number, unseen and out-of-range values per column.",
        check="A column has too many null, not-a-number, unseen or out-of-range values.",
        formulas=("quality.py",),
    ),
    AssetInfo(
        "drift",
        ("profiles", "baseline"),
        frozenset({"scipy", "pandas"}),
        "Distance of every column from the baseline, with the bias of small windows taken off.",
        check="A column's distribution is really and largely unlike the baseline's.",
        formulas=("drift",),
    ),
    AssetInfo(
        "performance",
        ("profiles", "baseline"),
        frozenset({"scipy", "pandas"}),
        "Realized performance with intervals, as far as ground truth has arrived.",
        check="Realized performance fell below the baseline or a fixed bound.",
        formulas=("performance", "quality.py"),
    ),
    AssetInfo(
        "estimated_performance",
        ("profiles", "baseline"),
        frozenset({"scipy", "pandas"}),
        "Performance without ground truth, from what the baseline's scores meant, with the band "
        "that the truth will lie in; once the truth is there, how far the estimate was off.",
        check="The estimate fell below the baseline's, or the truth turned out worse than the "
        "estimate: concept drift.",
        formulas=("estimated",),
    ),
    AssetInfo(
        "service_health",
        ("profiles",),
        frozenset({"pandas"}),
        "Volume, latency percentiles and error rate of the serving system.",
        check="Latency, errors or volume are past their bounds.",
        formulas=("service.py",),
    ),
    AssetInfo(
        "business_impact",
        ("profiles", "baseline"),
        frozenset({"pandas"}),
        "What came of the predictions: the mean outcome, and what decisions were worth at the "
        "declared costs, as far as ground truth has arrived.",
        check="Predictions are worth less than the baseline's, or than a fixed bound.",
        formulas=("business.py",),
    ),
    AssetInfo(
        "versions",
        ("inference_store", "profiles"),
        frozenset({"scipy", "pandas"}),
        "Another version beside the one in service, on the same predictions or on others; features "
        "as they were served beside the same predictions' computed offline; the version's age.",
        check="A challenger is worse, a canary did not get its share, features are served "
        "otherwise than computed, or the version is old.",
        formulas=("versions.py", "performance"),
    ),
    AssetInfo(
        "performance_trace",
        ("performance",),
        frozenset({"scipy", "pandas"}),
        "Which slices explain how performance changed since the baseline, over the newest windows "
        "with mature ground truth: an exact split into mix and within effects where there is one.",
        is_windowed=False,
    ),
    AssetInfo(
        "health_report",
        (
            "data_quality",
            "drift",
            "performance",
            "estimated_performance",
            "service_health",
            "business_impact",
            "versions",
            "performance_trace",
        ),
        frozenset({"html"}),
        "One HTML file for people: status, firing alerts, months, curves and what explains them.",
        is_windowed=False,
    ),
)


BY_NAME = {info.name: info for info in ASSETS}
REPORTED = ("performance_trace", "health_report")
MEASURED = tuple(
    info.name for info in ASSETS if info.family and info.is_windowed and "profiles" in info.deps
)
# What is judged differently once ground truth counts as mature or closed.
_OF_ACTUALS = ("performance", "estimated_performance", "business_impact", "versions")


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
    """Return the names of a model's assets that are about its ground truth, in order."""
    return tuple(name for name in windowed_of(spec) if name in _OF_ACTUALS)


def steps_of(spec: ModelSpec) -> tuple[str, ...]:
    """Return what a window needs to be up to date: its assets, and the verdicts on them."""
    mine = [info for info in assets_of(spec) if info.is_windowed]
    return (
        *(info.name for info in mine),
        *(f"{info.family}_check" for info in mine if info.family),
    )
