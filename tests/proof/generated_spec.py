"""The spec of a choice of options, as a mapping as it stands in YAML."""

from __future__ import annotations

from typing import Any

from mlmon_dagster.spec import spec_from_mapping
from mlmon_dagster.spec.metric_registry import COUNTED, METRICS
from mlmon_dagster.spec.tasks import business_metrics, estimated_metrics, metric_problem
from tests.proof.spec_space import BINARY, MULTICLASS, RANKING, REGRESSION, Choice

VARIABLE = "SOURCE_DB_URL"
CLASSES = ("bird", "cat", "dog")
_KINDS = {
    "all": {
        "amount": "numeric", "age": "numeric", "region": "categorical", "member": "boolean",
        "since": "datetime", "note": "text",
    },
    "numeric": {"amount": "numeric", "age": "numeric"},
    "categorical": {"region": "categorical", "shop": "categorical"},
    "text": {"note": "text"},
    "datetime": {"since": "datetime"},
    "boolean": {"member": "boolean"},
}  # fmt: skip
_MAIN = {name: next(iter(kinds)) for name, kinds in _KINDS.items()}
_ENDINGS = {
    "csv": "csv", "bare_csv": "csv", "csv_gz": "csv.gz", "parquet": "parquet", "jsonl": "jsonl",
    "kserve": "jsonl", "sagemaker": "jsonl",
}  # fmt: skip
_GRAINS = {"hour": "1h", "day": "1d", "week": "7d", "month": "31d"}
_MOVING = {"hour": "2h", "day": "2d", "week": "14d", "month": "62d"}
# How the roles are called in the files.
ROLES = {
    "event_time": "at", "score": "p", "prediction": "decided", "group": "query", "rank": "place",
    "actual": "truth", "actual_time": "known_at", "dataset": "set", "model_version": "version",
    "latency_ms": "took", "status": "state", "trace_id": "trace", "outcome": "gain",
}  # fmt: skip


def outputs_of(choice: Choice) -> list[str]:
    """Return the roles of the model's output."""
    kinds = {
        BINARY: {"all": ["score", "prediction"], "first": ["score"], "second": ["prediction"]},
        MULTICLASS: {"all": ["prediction", "scores"], "first": ["prediction"]},
        REGRESSION: {},
        RANKING: {
            "all": ["group", "rank", "score"], "first": ["group", "score"],
            "second": ["group", "rank"],
        },
    }[choice["task"]]  # fmt: skip
    fallback = ["prediction"] if choice["task"] != MULTICLASS else ["prediction", "scores"]
    return kinds.get(choice["outputs"], fallback)


def features_of(choice: Choice) -> dict[str, dict[str, Any]]:
    """Return the features; the first is what ``nullable``, ``range`` and ``pii`` are about."""
    found: dict[str, dict[str, Any]] = {}
    kinds = _KINDS[choice["features"]]
    for number, (name, kind) in enumerate(kinds.items()):
        feature: dict[str, Any] = {"type": kind}
        if choice["nullable"] == "yes" and number != 0:
            feature["nullable"] = True
        if choice["nullable"] == "yes" and len(kinds) == 1:
            feature["nullable"] = True
        if choice["range"] == "yes" and kind == "numeric":
            feature |= {"min": 0, "max": 1_000, "unit": "EUR"}
        if choice["importance"] == "yes":
            feature["importance"] = number
        if choice["pii"] == "false" or (
            choice["pii"] == "true" and name not in ("region", "member")
        ):
            feature["pii"] = choice["pii"] == "true"
        found[name] = feature
    return found


def source_names(choice: Choice) -> dict[str, str]:
    """Return role -> name in the files of predictions, for the roles that the model declares."""
    roles = ["event_time", *(role for role in outputs_of(choice) if role != "scores")]
    optional = ("dataset", "model_version", "latency_ms", "status", "trace_id")
    roles += [role for role in optional if choice[role] == "yes"]
    if choice["actuals"] != "none":
        roles += ["actual", *(r for r in ("actual_time", "outcome") if choice[r] == "yes")]
    return {role: ROLES[role] for role in roles}


def _declared_roles(choice: Choice) -> dict[str, Any]:
    """Return the roles as a spec declares them."""
    names: dict[str, Any] = source_names(choice)
    outcome = names.pop("outcome", None)
    return names | ({"outcomes": {"outcome": outcome}} if outcome else {})


def spec_of(choice: Choice) -> dict[str, Any]:
    """Return the spec."""
    features = features_of(choice)
    columns: dict[str, Any] = {"prediction_id": "id", **_declared_roles(choice)}
    if choice["id"] == "parts":
        columns["prediction_id"] = ["shop_no", "receipt"]
    if "scores" in outputs_of(choice):
        columns["scores"] = {label: f"p_{label}" for label in CLASSES}
    if choice["shap"] == "pattern":
        columns["shap"] = "shap_{feature}"
    elif choice["shap"] == "mapping":
        columns["shap"] = {name: f"why_{name}" for name in list(features)[:2]}
    values: dict[str, Any] = {
        "model": "generated",
        "task": choice["task"],
        "owners": ["team:proof"],
        "time": {
            "zone": choice["zone"], "granularity": choice["granularity"], "start": "2024-03-01",
        },
        "source": {"predictions": _predictions(choice)},
        "columns": columns,
        "features": features,
    }  # fmt: skip
    if choice["times"] == "naive":
        values["time"]["naive"] = "zone"
    if choice["actuals"] != "none":
        values["source"]["actuals"] = _actuals(choice)
    _payload_names(choice, values)
    values |= {key: value for key, value in _optional(choice).items() if value is not None}
    monitors = _monitors(choice, values)
    if monitors:
        values["monitors"] = monitors
    return values


def _files(choice: Choice, stream: str, format_: str) -> dict[str, Any]:
    if format_ == "sql":
        found: dict[str, Any] = {
            "sql": stream, "url_env": VARIABLE,
            "cursor": {"column": "row_no", "kind": "id"},
        }  # fmt: skip
    else:
        found = {"path": f"landing/{stream}/*.{_ENDINGS[format_]}", "settle": "0s"}
    if choice["times"] == "epoch":
        found["epoch"] = "ms"
    if choice["null_tokens"] == "some":
        found["null_tokens"] = ["-", "NULL"]
    if choice["bad_rate"] == "zero":
        found["max_bad_rate"] = 0
    return found


def _predictions(choice: Choice) -> dict[str, Any]:
    found = _files(choice, "predictions", choice["format"])
    if choice["format"] == "bare_csv":
        found |= {"delimiter": "semicolon", "header": prediction_columns(choice)}
    elif choice["format"] in ("kserve", "sagemaker"):
        found["format"] = choice["format"]
    return found


def _actuals(choice: Choice) -> dict[str, Any]:
    found = _files(choice, "actuals", choice["actuals"])
    if choice["names"] == "own":
        found["columns"] = {"prediction_id": "request", "actual": "label"}
    return found


def prediction_columns(choice: Choice) -> list[str]:
    """Return the columns of the files of predictions, in their order."""
    names = source_names(choice)
    roles = [n for r, n in names.items() if r not in ("actual", "actual_time", "outcome")]
    ids = ["id"] if choice["id"] == "one" else ["shop_no", "receipt"]
    features = list(features_of(choice))
    scores = [f"p_{label}" for label in CLASSES] if "scores" in outputs_of(choice) else []
    shap = {"no": [], "pattern": [f"shap_{f}" for f in features],
            "mapping": [f"why_{f}" for f in features[:2]]}[choice["shap"]]  # fmt: skip
    return [*ids, *roles, *scores, *shap, *features]


def _payload_names(choice: Choice, values: dict[str, Any]) -> None:
    """Say where in a logged request or response a column stands."""
    if choice["format"] not in ("kserve", "sagemaker"):
        return
    columns, own = values["columns"], {}
    for role, name in source_names(choice).items():
        if role in ("actual", "actual_time", "outcome"):
            continue
        own[role] = "time" if role == "event_time" else f"outputs.{name}"
    source = values["source"]["predictions"]
    source["columns"] = own
    for role in ("scores", "shap"):
        declared = columns.get(role)
        if isinstance(declared, dict):
            columns[role] = {key: f"outputs.{name}" for key, name in declared.items()}
        elif declared:
            columns[role] = f"outputs.{declared}"


def _optional(choice: Choice) -> dict[str, Any]:
    main = _MAIN[choice["features"]]
    key = "region" if choice["features"] in ("all", "categorical") else "member"
    predicate = {
        "none": None,
        "status": "state = 'error'",
        "feature": f"{main} is null",
    }[choice["no_actual_when"]]
    actuals: dict[str, Any] = {
        "default": {},
        "short": {"expected_within": "1h", "closed_after": "2d", "min_coverage": 0.5},
        "one_row": {"min_rows": 1, "unmatched_after": "1d"},
    }[choice["patience"]]
    if predicate:
        actuals = {**actuals, "no_actual_when": predicate.replace("state", "status")}
    amounts = {BINARY: {"top_share": 0.2}, REGRESSION: {"quantile": 0.9}}
    other = amounts.get(choice["task"], {"top_k": 2}) if choice["amounts"] == "other" else {}
    moving = _MOVING[choice["granularity"]]
    fairness: dict[str, Any] | None = None
    if choice["fairness"] != "no":
        fairness = {"slices": [key]}
        if choice["fairness"] == "reference":
            fairness["reference"] = {key: "north"}
    return {
        "actuals": actuals or None,
        "baseline": {
            "default": None,
            "training": {"dataset": "training"},
            "validation": {"dataset": "validation"},
            "moving": {"moving": moving},
            "gap": {"moving": moving, "gap": _GRAINS[choice["granularity"]]},
            "previous": "previous",
            "weekday": {"same": "weekday", "weeks": 2},
            "hour": {"same": "hour", "weeks": 2},
            "version": {"model_version": "1"},
        }[choice["baseline"]],
        "slices": {
            "none": None,
            "one": ["region"],
            "crossed": ["region", ["region", "member"]],
            "version": ["model_version"],
        }[choice["slices"]],
        "classes": [*CLASSES, "cow"] if choice["classes"] == "yes" else None,
        "costs": {"fp": 1.0, "fn": 5.0} if choice["costs"] == "yes" else None,
        "fairness": fairness,
        "retention": {"profiles": "400d", "dead_letter": "30d"}
        if choice["retention"] == "some"
        else None,
        "alerts": {
            "default": None,
            "slack": {"slack": {"channel": "#proof"}, "group_wait": "1h", "digest": "daily"},
            "routes": {
                "slack": {"channel": "#proof"},
                "routes": [{"severity": "ERROR", "slack": {"channel": "#loud"}}],
            },
        }[choice["alerts"]],
        **other,
    }


def _monitors(choice: Choice, values: dict[str, Any]) -> dict[str, Any]:
    features = list(values["features"])
    found: dict[str, Any] = {
        "schema": {
            "default": None,
            "strict": {"bad_rate": {"above": 0.001, "error_at": 0.5}, "windows": "1 of 2"},
            "off": {"duplicate_rate": None, "conflict_rate": None},
        }[choice["schema"]],
        "freshness": {
            "default": None,
            "off": {"actuals_missing": None, "no_data_for": "90d"},
        }[choice["freshness"]],
        "quality": {
            "default": None,
            "columns": {"columns": features[:1], "min_rows": 1},
            "strict": {"null_rate": {"above": 0.0, "error_at": 0.5}, "min_rows": 5},
        }[choice["quality"]],
        "drift": _drift(choice, features),
        "service": {
            "default": None,
            "latency": {"p95_latency_ms": {"above": 50}, "p99_latency_ms": {"above": 90}},
            "errors": {"error_rate": {"above": 0.1, "error_at": 0.5}, "n": {"below": 10}},
            "volume": {"volume_drop": None, "n": {"above": 1_000}},
        }[choice["service"]],
    }
    if choice["performance"] == "none":
        found["performance"] = []
    elif choice["performance"] != "default":
        found["performance"] = _performance(choice, values)
    spec = spec_from_mapping(values)
    if choice["estimates"] == "none":
        found["estimated_performance"] = []
    elif choice["estimates"] == "all":
        found["estimated_performance"] = [{"metric": m} for m in estimated_metrics(spec)]
    if spec.has_actuals and (worth := business_metrics(spec)):
        found["business"] = [
            {"metric": name, **({"above": 1e6} if name in COUNTED else {"change": "20%"})}
            for name in worth
            if METRICS[name].better != "neither"
        ]
    return {name: value for name, value in found.items() if value is not None}


def _performance(choice: Choice, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a monitor of each metric that the model can have."""
    spec = spec_from_mapping(values)
    metrics = [
        name
        for name, info in METRICS.items()
        if info.family == "performance" and metric_problem(spec, name) is None
    ]
    if choice["performance"] == "bounds":
        return [{"metric": name, "above": 0.5, "error_at": 0.9} for name in metrics]
    sided = [name for name in metrics if METRICS[name].better != "neither"]
    if choice["performance"] == "changes":
        return [{"metric": name, "change": "20%", "error_at": "50%"} for name in sided]
    return [{"metric": name, "drop": 0.05, "slices": True, "windows": "1 of 1"} for name in sided]


def _drift(choice: Choice, features: list[str]) -> dict[str, Any] | None:
    outputs = [r for r in outputs_of(choice) if r in ("score", "prediction")]
    found: dict[str, Any] = {
        "default": {},
        "further": {
            "method": "jensen_shannon", "error_at": 0.9,
            "also": ["chi_square", "hellinger", "total_variation", "l_infinity", "kl"],
        },
        "shifts": {"method": "mean_shift"},
        "scaled": {"method": "wasserstein_scaled", "windows": "1 of 1", "min_rows": 5},
        "distances": {"method": "wasserstein", "above": 3.0, "also": ["ks"]},
        "columns": {"columns": [features[0], *outputs], "q": 0.2},
        "sliced": {"slices": True, "windows": "1 of 1"},
    }[choice["drift"]]  # fmt: skip
    baseline = {
        "none": None,
        "previous": "previous",
        "moving": {"moving": _MOVING[choice["granularity"]]},
        "version": {"model_version": "1"},
    }[choice["drift_baseline"]]
    if baseline is not None:
        found = {**found, "baseline": baseline}
    attribution = {"default": None, "off": False, "ladder": {"above": 0.05, "error_at": 0.3}}
    if (value := attribution[choice["attribution"]]) is not None:
        found = {**found, "attribution": value}
    return found or None
