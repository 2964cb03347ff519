"""What follows when a key of a spec changes after the first events: one table for all keys.

A key is followed (what it decides is computed again), kept (it holds from now on, what is stored
stays), or refused, with the way to do it. Whether each does so is tested through a store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from mlmon_dagster.spec.alerting import RECEIVERS
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.monitors import Monitors
from mlmon_dagster.spec.names import DRIFT, VERSIONS
from mlmon_dagster.spec.scalars import Declared
from mlmon_dagster.spec.sources import STREAMS

Effect = Literal["followed", "kept", "refused"]
Held = Literal["windows", "predictions", "actuals"]


@dataclass(frozen=True)
class Rule:
    """What becomes of some keys.

    Attributes:
        where: Their place, ``""`` for the top level.
        keys: The last parts of their names; each stands for all that is below it.
        effect: What becomes of a change.
        how: In words.
    """

    where: str
    keys: tuple[str, ...]
    effect: Effect
    how: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the keys in full."""
        return tuple(f"{self.where}.{key}" if self.where else key for key in self.keys)


_PLACE: Final = "stored rows lie in windows of the old value, and alerts are about those"
_SEND: Final = "the next message goes there"
_JUDGED: Final = "windows judged from now on; earlier ones with `mlmon run MODEL --from --to`"
_FILES: Final = "the next file or batch; tables in place are read again"
_REFIT: Final = "the baseline is fitted again and every window with rows is computed again"
_MATURITY: Final = "windows whose maturity changes by it are judged again"
_LINEAGE: Final = "the lineage in Dagster's UI, from the next load on; nothing is computed again"
_UPKEEP: Final = "the next daily upkeep"

_OTHERWISE: Final = {  # keys that have rules of their own
    DRIFT: {"baseline"},
    VERSIONS: {"compare", "skew", "staleness"},
}


def _of_monitors() -> Iterator[Rule]:
    """Yield a rule a family: verdicts that were told stand, whatever is declared later."""
    for name, field in Monitors.model_fields.items():
        family = field.alias or name
        monitor = next(iter(get_args(field.annotation)), field.annotation)  # of a list, its items
        assert isinstance(monitor, type)
        assert issubclass(monitor, Declared)
        keys = (key for key in monitor.model_fields if key not in _OTHERWISE.get(family, ()))
        yield Rule(f"monitors.{family}", tuple(keys), "kept", _JUDGED)


RULES: Final[tuple[Rule, ...]] = (
    Rule("", ("model",), "kept", "what is stored stays under the old name: another name is another "
         "model, which reads every file again"),
    Rule("", ("task",), "refused", "stored predictions and ground truth have the task's type"),
    Rule("time", ("zone", "granularity"), "refused", _PLACE),
    Rule("columns", ("prediction_id",), "refused", "it identifies events; if only new "
         "files have another name for it, declare that under `source.<stream>.columns`"),
    Rule("features.<name>", ("type",), "refused", "a stored column keeps its type; between "
         "`categorical` and `text`, which are stored alike, it is followed: the baseline is fitted "
         "and windows are computed again. For another type give the feature another name"),
    Rule("", ("description", "owners", "currency"), "kept", "pages, reports and messages written "
         "from now on"),
    Rule("time", ("start",), "followed", "windows that begin with it are computed; those before it "
         "keep their numbers and are not looked at any more"),
    Rule("time", ("end",), "followed", "windows after it are not computed, and their numbers stay; "
         "rows refused for it are read again"),
    Rule("time", ("allowed_lateness",), "followed", _MATURITY),
    Rule("time", ("naive", "skew_tolerance"), "kept", _FILES),
    Rule("time", ("holidays",), "kept", _JUDGED),
    Rule("events", ("name", "from", "to", "every", "explains"), "kept",
         "alerts of windows judged from now on"),
    *(Rule(f"source.{stream}", ("asset",), "kept", _LINEAGE) for stream in STREAMS),
    Rule("baseline", ("asset",), "kept", _LINEAGE),
    *(Rule(f"source.{stream}", ("path", "format", "delimiter", "quote", "multiline", "header",
         "inputs", "outputs", "null_tokens", "epoch", "time_format", "decimal", "thousands",
         "columns", "settle", "max_bad_rate", "max_bytes", "max_rows", "sql", "url_env", "cursor",
         "delta", "iceberg", "kafka", "config_env", "group", "batch_rows", "spans"), "kept",
         "the next file or batch; known content is not read again") for stream in STREAMS),
    *(Rule(f"source.{stream}", ("in_place",), "kept", "the next look, which finds all windows of "
         "the tables changed; what was stored before stays") for stream in STREAMS),
    Rule("evaluations", ("by", "of"), "followed", _REFIT),
    Rule("evaluations", ("good", "from", "evaluator"), "kept",
         "the next file or batch; stored evaluations keep what they said; where good comes or "
         "goes the baseline is fitted and windows are computed again"),
    Rule("columns", ("event_time", "dataset", "actual", "actual_time"), "kept",
         "the next file or batch; stored rows keep their time, dataset and ground truth"),
    Rule("columns", ("score", "scores", "shap", "base_value", "explainer", "prediction", "group",
         "rank", "examined", "model_version", "latency_ms", "status", "trace_id", "outcomes"),
         "kept",
         "the next file or batch; where a role comes or goes the baseline is fitted and windows "
         "are computed again"),
    Rule("actuals", ("expected_within", "closed_after", "min_coverage", "min_rows"), "followed",
         _MATURITY),
    Rule("actuals", ("no_actual_when",), "followed", _REFIT),
    Rule("actuals", ("unmatched_after",), "kept", "the next ingest that brings ground truth"),
    Rule("actuals", ("unit",), "kept", "alerts of windows judged from now on"),
    Rule("features.<name>", ("from", "alias"), "followed", f"the next file; {_REFIT}"),
    Rule("features.<name>", ("min", "max", "pii"), "followed", _REFIT),
    Rule("features.<name>", ("describe",), "followed", f"stored texts are described; {_REFIT}"),
    Rule("features.<name>", ("embedder", "prices"), "followed", _REFIT),
    Rule("features.<name>", ("nullable",), "kept", f"{_FILES}; {_JUDGED}"),
    Rule("features.<name>", ("null_rate",), "kept", _JUDGED),
    Rule("features.<name>", ("unit", "importance", "description"), "kept",
         "pages, reports and messages written from now on"),
    Rule("baseline", ("dataset", "moving", "gap", "previous", "same", "weeks", "model_version"),
         "followed", "windows with rows are compared again; for another kind the bins are fitted "
         "again. A promoted baseline goes on until it is undone"),
    Rule("", ("slices", "classes", "top_k", "max_weight", "quantile"), "followed", _REFIT),
    Rule("", ("labels",), "kept", "the next file or batch; stored rows keep their decisions and "
         "ground truth, and rows refused for their words are read again"),
    Rule("", ("datasets",), "kept", "the next file or batch; stored rows keep their dataset, and "
         "rows refused for its name are read again"),
    Rule("", ("fairness", "top_share"), "kept", "windows measured from now on; earlier "
         "ones with `mlmon run MODEL --from --to`"),
    Rule("", ("explain",), "followed", f"where SHAP values are logged: {_REFIT}"),
    Rule("expectations", ("expect", "arguments", "severity", "stream"), "kept",
         "the next file or batch; rows that one refused are read again where those change"),
    Rule("metrics", ("of", "name", "columns", "arguments", "needs_actuals", "better", "change",
         "min_rows", "sample", "severity", "windows", "owner", "runbook"), "followed",
         "the first of them declared: every window with rows is measured by it; what else changes: "
         "windows measured from now on, earlier ones with `mlmon run MODEL --from --to`. Where a "
         "function has another text, the baseline's windows are computed again"),
    Rule("", ("costs",), "followed", "declared or taken away: every window with rows is valued; "
         "other numbers: windows measured from now on, earlier ones with `mlmon run MODEL --from "
         "--to`"),
    Rule("effects", ("cause", "per", "outcome", "within", "experiment"), "kept", "what "
         "`mlmon effect` says from now on"),
    Rule("", ("spans",), "kept", "spans that come, and windows computed from now on, earlier ones "
         "with `mlmon run MODEL --from --to`; declared, or with other stages or columns, the "
         "baseline is fitted and windows are computed again"),
    Rule("", ("registry",), "kept", "the next look at the registry, and tags from now on; of "
         "another registered model what was known is forgotten, and its events stay"),
    *_of_monitors(),
    Rule("monitors.drift", ("baseline",), "followed", "the newest 1,000 windows are judged again"),
    Rule("monitors.versions", ("compare", "skew", "staleness"), "followed", "the first of them "
         "declared: every window with rows is measured by it; what else changes: windows measured "
         "from now on, earlier ones with `mlmon run MODEL --from --to`"),
    Rule("alerts", (*RECEIVERS, "routes", "fallback"), "kept", _SEND),
    Rule("alerts", ("repeat", "group_wait", "group_interval", "digest"), "kept",
         "the next message or digest"),
    Rule("retention", ("production", "training", "validation", "shadow", "canary", "spans",
         "versions", "profiles", "dead_letter", "quarantine"), "kept", _UPKEEP),
    Rule("retention", ("min_cell",), "kept", "the next erasure"),
    Rule("", ("run_tags",), "kept", "runs that are asked for from now on"),
    Rule("", ("key_prefix",), "kept", "the keys that Dagster shows after its next reload; its "
         "history stays under the old ones, and `mlmon model rebuild-history` reports the past "
         "under the new ones"),
    Rule("compute", ("engine", "at_least"), "kept",
         "windows computed from now on; the numbers are the same"),
)  # fmt: skip

_WAY: Final = {
    "features": "Write the old type back, or give the feature another name",
    "columns": "Write it back; if new files merely call it otherwise, name it under "
    "source.predictions.columns and source.actuals.columns: {prediction_id: NAME}",
}
_STORED_AS: Final = {"categorical": "text"}


def fixed_values(spec: ModelSpec, *held: Held) -> dict[str, str]:
    """Return the keys that cannot change any more, and their values.

    The type of a feature is what it is stored as.

    Args:
        spec: The model.
        held: What is there that rests on them: windows, rows of predictions, rows of actuals. What
            was refused rests on nothing, so that a first mistake is mended by mending it.
    """
    found: dict[str, str] = {}
    if held:
        found |= {"time.zone": spec.time.zone, "time.granularity": spec.time.granularity}
    if "predictions" in held or "actuals" in held:
        parts = spec.columns.id_parts or (str(spec.columns.prediction_id),)
        found |= {"task": spec.task, "columns.prediction_id": " + ".join(parts)}
    if "predictions" in held:
        for name, feature in spec.logged_features.items():
            found[f"features.{name}.type"] = _STORED_AS.get(feature.type, feature.type)
    return found


def refused_changes(spec: ModelSpec, stored: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the keys that a spec says otherwise than events of its model were stored, and the way.

    Args:
        spec: As it is declared now.
        stored: The fixed values when events came, of features that are gone too.
    """
    now = fixed_values(spec, "predictions")
    for name, feature in spec.features.items():
        for old in feature.alias:  # rows stored under an earlier name are read as this feature
            now[f"features.{old}.type"] = now[f"features.{name}.type"]
    for key, before in sorted(stored.items()):
        after = now.get(key, before)
        if after != before:
            way = _WAY.get(key.partition(".")[0], f"Write {before!r} back")
            why = rule_of(key).how.partition(";")[0]
            yield (
                key,
                f"is {after!r}, but events are stored with {before!r}: {why}. {way}. Or keep it, "
                f"and have every file read again under it: mlmon model rebuild {spec.model}",
            )


def rule_of(key: str) -> Rule:
    """Return what becomes of a key, such as ``time.zone`` or ``features.age.type``.

    Raises:
        KeyError: If the table has no row for it.
    """
    parts = key.split(".")
    if parts[0] == "features" and len(parts) > 1:
        parts[1] = "<name>"
    for n in range(len(parts), 0, -1):
        if rule := _BY_PATH.get(".".join(parts[:n])):
            return rule
    raise KeyError(key)


_BY_PATH: Final = {path: rule for rule in RULES for path in rule.paths}
