"""The steps of every model as a table: names, order, what each is, and its monitor family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AssetInfo:
    """One asset of every model.

    Attributes:
        name: Last part of its key.
        deps: Names of the assets it is computed from.
        kinds: Icons in the UI.
        description: What it is, for a person who sees it in the UI.
        is_windowed: Whether it has one partition per window.
        family: Monitor family of its check, if it has one.
        check: What that check says when it fails.
    """

    name: str
    deps: tuple[str, ...]
    kinds: frozenset[str]
    description: str
    is_windowed: bool = True
    family: str | None = None
    check: str = ""


ASSETS: tuple[AssetInfo, ...] = (
    AssetInfo(
        "event_log",
        ("landing",),
        frozenset({"deltalake", "parquet", "greatexpectations"}),
        "Every accepted prediction event and actual, append-only. Materializing it takes in the "
        "landing files that are new: each is checked against the declared schema, bad rows go to "
        "the dead letter, broken files to quarantine, and each content is taken once.",
        is_windowed=False,
        family="freshness",
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
        family="schema",
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
        family="quality",
        check="A column has too many null, not-a-number, unseen or out-of-range values.",
    ),
    AssetInfo(
        "drift",
        ("profiles", "baseline"),
        frozenset({"scipy", "pandas"}),
        "Distance of every column from the baseline, with the bias of small windows taken off.",
        family="drift",
        check="A column's distribution is really and largely unlike the baseline's.",
    ),
    AssetInfo(
        "performance",
        ("profiles", "baseline"),
        frozenset({"scipy", "pandas"}),
        "Realized performance with intervals, as far as ground truth has arrived.",
        family="performance",
        check="Realized performance fell below the baseline or a fixed bound.",
    ),
    AssetInfo(
        "estimated_performance",
        ("profiles", "baseline"),
        frozenset({"scipy", "pandas"}),
        "Performance without ground truth, from what the baseline's scores meant, with the band "
        "that the truth will lie in; once the truth is there, how far the estimate was off.",
        family="estimated_performance",
        check="The estimate fell below the baseline's, or the truth turned out worse than the "
        "estimate: concept drift.",
    ),
    AssetInfo(
        "service_health",
        ("profiles",),
        frozenset({"pandas"}),
        "Volume, latency percentiles and error rate of the serving system.",
        family="service",
        check="Latency, errors or volume are past their bounds.",
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
            "performance_trace",
        ),
        frozenset({"html", "matplotlib"}),
        "One HTML file for people: status, firing alerts, months, curves and what explains them.",
        is_windowed=False,
    ),
)


BY_NAME = {info.name: info for info in ASSETS}
WINDOWED = tuple(info.name for info in ASSETS if info.is_windowed)
# What a window needs to be up to date: its assets, and the verdicts on them.
STEPS = WINDOWED + tuple(
    f"{info.family}_check" for info in ASSETS if info.is_windowed and info.family
)
REPORTED = ("performance_trace", "health_report")
MEASURED = ("data_quality", "drift", "performance", "estimated_performance", "service_health")
# What is judged differently once ground truth counts as mature or closed.
OF_ACTUALS = ("performance", "estimated_performance")
