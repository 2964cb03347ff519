"""Features -> training -> registry -> serving -> monitoring -> gate -> training again."""

import datetime as dt
import os
from pathlib import Path

import dagster as dg
import pandas as pd

from mlmon_dagster import MonitoringResource, build_definitions, load_models
from retrain.bank import FEATURES, Bank
from retrain.registry import Registry

PROJECT = Path(os.environ.get("MLMON_PROJECT", "."))
REGISTRY = Registry(PROJECT / "data" / "registry")
LANDING = PROJECT / "landing" / "loans"
TRAINING_DAYS = 2
GOOD_ENOUGH = 0.7  # ROC AUC on held-out rows, below which a version does not serve
DAYS = dg.DailyPartitionsDefinition("2024-04-29", end_date="2024-06-01")
A_DAY = {"partitions_def": DAYS, "backfill_policy": dg.BackfillPolicy.single_run()}
PERFORMANCE = dg.AssetKey(["loans", "performance"])


def write(rows: pd.DataFrame, path: Path) -> None:
    """Put rows into a file in one step, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path.with_suffix(".partial"), index=False)
    path.with_suffix(".partial").replace(path)


def features_of(day: str) -> Path:
    """Return the file of the feature table that holds a day."""
    return PROJECT / "data" / "features" / f"{day}.parquet"


@dg.asset(**A_DAY, group_name="serving")
def features(context: dg.AssetExecutionContext, bank: Bank) -> None:
    """The feature table: the applications of a day and, once known, what became of them."""
    for day in context.partition_keys:
        write(bank.customers(dt.date.fromisoformat(day)), features_of(day))


@dg.asset(deps=[features], group_name="training")
def trained_model() -> dg.MaterializeResult:
    """A new version in the registry, trained on the newest days."""
    files = sorted((PROJECT / "data" / "features").glob("*.parquet"))[-TRAINING_DAYS:]
    rows = pd.concat([pd.read_parquet(file) for file in files])
    version = REGISTRY.register(rows, trained_until=files[-1].stem)
    return dg.MaterializeResult(
        metadata={"version": version.number, "roc_auc": version.roc_auc},
        data_version=dg.DataVersion(str(version.number)),
    )


@dg.asset(deps=[trained_model], group_name="training")
def champion() -> dg.MaterializeResult:
    """The version that serves: the newest one, unless it is bad on rows that it has not seen."""
    candidate = REGISTRY.newest()
    if candidate.roc_auc < GOOD_ENOUGH:
        raise dg.Failure(f"Version {candidate.number} has a ROC AUC of {candidate.roc_auc:.2f}.")
    REGISTRY.promote(candidate)
    return dg.MaterializeResult(metadata={"version": candidate.number})


@dg.asset(deps=[features, champion], **A_DAY, group_name="serving")
def predictions(context: dg.AssetExecutionContext) -> None:
    """What the champion says of the applications of a day, as events for the monitoring."""
    model = REGISTRY.champion()
    for day in context.partition_keys:
        rows = pd.read_parquet(features_of(day))
        score = model.score(rows)
        events = rows[["application", "applied_at", *FEATURES]].assign(
            p_default=score, refused=(score >= 0.5).astype(int), model_version=str(model.number)
        )
        write(events, LANDING / "predictions" / f"{day}.parquet")


@dg.asset(deps=[features], **A_DAY, group_name="serving")
def outcomes(context: dg.AssetExecutionContext) -> None:
    """Which loans of a day were not paid back."""
    for day in context.partition_keys:
        rows = pd.read_parquet(features_of(day))
        actuals = rows[["application", "defaulted", "known_at"]]
        write(actuals, LANDING / "actuals" / f"{day}.parquet")


@dg.asset(deps=[champion, PERFORMANCE], group_name="training")
def rollout(monitoring: MonitoringResource) -> dg.MaterializeResult:
    """All branches use the champion: only while its performance is good where it serves now."""
    gate = monitoring.gate("loans", "performance")  # fails the step unless it is open
    version = REGISTRY.champion()
    (PROJECT / "data" / "rollout.txt").write_text(str(version.number))
    return dg.MaterializeResult(metadata={"version": version.number, "because": gate.text()})


@dg.sensor(
    target=[trained_model, champion],
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def retrain_when_performance_failed(
    context: dg.SensorEvaluationContext, monitoring: MonitoringResource
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a new version, once a failure."""
    gate = monitoring.look("loans", "performance", no_data="open")
    if gate.is_open:
        return dg.SkipReason(gate.text())
    [failed] = gate.closed_by
    version = REGISTRY.champion()
    if failed.window <= version.trained_until:
        return dg.SkipReason(f"version {version.number} was trained on {failed.window} already")
    return dg.RunRequest(run_key=failed.window, tags={"reason": f"performance of {failed.window}"})


defs = dg.Definitions.merge(
    dg.Definitions(
        assets=[features, trained_model, champion, predictions, outcomes, rollout],
        sensors=[retrain_when_performance_failed],
        resources={"bank": Bank(), "monitoring": MonitoringResource(project=str(PROJECT))},
    ),
    build_definitions(load_models(PROJECT / "models")),
)
