"""What each task needs of a spec, and what follows from it: also which metrics are estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from mlmon_dagster.spec.metric_registry import (
    BINARY,
    GENERATION,
    METRICS,
    MULTICLASS,
    MULTILABEL,
    NAMED,
    RANKING,
    REGRESSION,
    of_outcome,
)
from mlmon_dagster.spec.monitors import (
    FAMILIES,
    BusinessMonitor,
    EstimateMonitor,
    PerformanceMonitor,
)
from mlmon_dagster.spec.names import (
    BUSINESS,
    CUSTOM,
    ESTIMATED_PERFORMANCE,
    VERSIONS,
    Found,
    column_problem,
    listed,
    offer,
    score_column,
)
from mlmon_dagster.spec.scalars import KOfN

if TYPE_CHECKING:
    from mlmon_dagster.spec.declaration import Declaration
    from mlmon_dagster.spec.evaluations import Evaluation

MAX_CLASSES = 100
RESIDUAL = "residual"
# Keys that only some tasks understand.
_ONLY_FOR: dict[tuple[str, ...], tuple[str, ...]] = {
    ("columns", "scores"): (MULTICLASS,),
    ("columns", "group"): (RANKING, GENERATION),
    ("columns", "rank"): (RANKING,),
    ("columns", "examined"): (RANKING,),
    ("labels",): (BINARY,),
    ("classes",): (MULTICLASS, MULTILABEL),
    ("costs",): (BINARY,),
    ("fairness",): (BINARY,),
    ("top_k",): (MULTICLASS, RANKING),
    ("top_share",): (BINARY,),
    ("max_weight",): (RANKING,),
    ("quantile",): (REGRESSION,),
}
_RANKED = ("group", "rank", "examined")  # roles of rankings
# What metrics of evaluations need: in words, and whether one is that.
_OF_EVALUATIONS: Final[Mapping[str, tuple[str, Callable[[Evaluation], bool]]]] = {
    "evaluations": ("an evaluation with good", lambda one: one.good is not None),
    "numbers": ("an evaluation without good, a number,", lambda one: one.good is None),
    "judges": ("an evaluation with of, a judge's,", lambda one: one.of is not None),
}
Answer = Literal["label", "class", "labels", "number"]
BETWEEN, NO_LABELS = "|", "(none)"  # labels of one row as text: sorted, or that there are none


@dataclass(frozen=True)
class TaskInfo:
    """A task: what its models answer, and what is said of them unless they say otherwise.

    Attributes:
        answer: What predictions and ground truth are: 0 or 1, the name of a class, any number of
            names, or a number.
        problems: Finds what a spec of the task lacks.
        watched: The metric that is monitored, and by how much it may drop.
        traced: The plainest metrics, which the trace explains whatever is monitored.
        shown: What the report's table of months shows.
        estimated: What can be estimated without ground truth.
        is_grouped: Whether rows were ranked together, so that groups are counted, not rows.
    """

    answer: Answer
    problems: Callable[[Declaration], Found]
    watched: tuple[str, float]
    traced: tuple[str, ...]
    shown: tuple[str, ...]
    estimated: tuple[str, ...] = ()
    is_grouped: bool = False


def task_of(spec: Declaration) -> TaskInfo:
    """Return the record of a model's task."""
    return TASKS[spec.task]


def class_scores(spec: Declaration) -> dict[str, str]:
    """Return class -> the store's column of its score, in the order of the classes' names."""
    return {label: score_column(label) for label in sorted(spec.columns.scores or {})}


def declared_classes(spec: Declaration) -> tuple[str, ...]:
    """Return the classes that a multiclass spec names, sorted; none if they are to be learnt."""
    return tuple(sorted({*(spec.classes or ()), *(spec.columns.scores or {})}))


def business_metrics(spec: Declaration) -> tuple[str, ...]:
    """Return what can be said of a model's worth, () without outcomes and costs."""
    return tuple(
        name
        for name, info in METRICS.items()
        if info.family == BUSINESS and metric_problem(spec, name) is None
    )


def families_of(spec: Declaration) -> tuple[str, ...]:
    """Return the families of monitors that a model has, in the order in which people look at them.

    Every model has most of them; ``business`` needs outcomes or costs, ``versions`` what it is to
    look at, ``custom`` metrics of the user.
    """
    has = {
        BUSINESS: bool(business_metrics(spec)),
        VERSIONS: spec.monitors.versions.is_declared,
        CUSTOM: bool(spec.metrics),
    }
    return tuple(family for family in FAMILIES if has.get(family, True))


def default_performance(spec: Declaration) -> tuple[PerformanceMonitor, ...]:
    """Return what is monitored of a model's performance unless it says otherwise."""
    metric, drop = task_of(spec).watched
    if spec.task == GENERATION:
        rates = [PerformanceMonitor(metric=metric, evaluation=name, drop=drop)
                 for name in evaluations_of(spec, metric)]  # fmt: skip
        beside = [
            PerformanceMonitor(metric=metric, evaluation=name, drop=drop, severity="WARN")
            for metric, drop in (("judge_agreement", 0.1), ("failed_rate", 0.05))
            for name in evaluations_of(spec, metric)
            if spec.evaluations[name].by in ("judge", "code")
        ]
        return (*rates, *beside)
    if spec.task == BINARY and spec.columns.score is None:
        metric = "f1"
    return (PerformanceMonitor(metric=metric, drop=drop),)


def default_levels(
    spec: Declaration, declared: tuple[PerformanceMonitor, ...]
) -> tuple[PerformanceMonitor, ...]:
    """Return what is monitored of where predictions lie, unless the spec has its own limit of it.

    Scores that mean what they say may be 2 points off, as decisions at a threshold and sums of
    scores are off by as much, or by a quarter of what comes true where fewer than 8 % do;
    predictions of a regression may lean to one side by a twentieth
    of their usual error, and the error may grow by a quarter; of several classes, two in a hundred
    actuals more than usual may be of a class that the model does not know. Nothing without other
    monitors.
    """
    if not declared or not spec.has_actuals or spec.task == GENERATION:
        return ()
    columns, found = spec.columns, []
    at_once: dict[str, Any] = {"severity": "WARN", "windows": KOfN(1, 1)}
    if (spec.task == BINARY and columns.score is not None) or columns.scores is not None:
        rare = 0.25 if spec.task == BINARY else None
        found.append(
            PerformanceMonitor(metric="calibration_gap", shift=0.02, of_rate=rare, **at_once)
        )
    if spec.task in NAMED:
        found.append(PerformanceMonitor(metric="unseen_class_rate", drop=0.02, severity="WARN"))
    if spec.task == REGRESSION:
        found.append(PerformanceMonitor(metric="bias", shift=0.05, **at_once))
        found.append(PerformanceMonitor(metric="mae", change=0.25, severity="WARN"))
    named = {monitor.metric for monitor in declared}
    return tuple(monitor for monitor in found if monitor.metric not in named)


def watches_only_data(spec: Declaration) -> bool:
    """Say whether a binary model's events hold inputs, and no output to measure."""
    return spec.columns.score is None and spec.columns.prediction is None


def task_signature(spec: Declaration) -> list[object]:
    """Return what of a spec decides how its task is profiled, besides features and slices."""
    clipped = [spec.max_weight] if spec.columns.examined is not None else []
    scores = sorted(spec.columns.scores or {})
    return [declared_classes(spec), scores, spec.top_k, spec.quantile, *clipped]


def task_problems(spec: Declaration) -> Found:
    """Find the roles that a task lacks and the keys that it has no use for."""
    columns = spec.columns
    for path, tasks in _ONLY_FOR.items():
        holder: Any = columns if path[0] == "columns" else spec
        if path[-1] in holder.model_fields_set and spec.task not in tasks:
            yield path, f"{path[-1]} is for {' and '.join(tasks)}, not for {spec.task}"
    yield from task_of(spec).problems(spec)
    for role in _RANKED:
        name = getattr(columns, role)
        if name is not None and (problem := column_problem(name)):
            yield ("columns", role), problem


def _binary(spec: Declaration) -> Found:
    if watches_only_data(spec) and spec.monitors.performance != ():
        yield (
            ("columns",),
            "a binary model needs columns.score or columns.prediction; to watch only its data "
            "write monitors: {performance: []}",
        )
    if spec.costs is not None and spec.columns.prediction is None:
        yield ("costs",), "costs are of decisions; declare columns.prediction"
    if spec.fairness is not None:
        yield from _fairness(spec)


def _fairness(spec: Declaration) -> Found:
    assert spec.fairness is not None
    if spec.columns.prediction is None:
        yield ("fairness",), "fairness compares rates of decisions; declare columns.prediction"
    known = [",".join(key) for key in spec.slices]
    for index, key in enumerate(spec.fairness.slices):
        if key not in known:
            said = f"'{key}' is not among the slices{offer(key, known, called='Slices')}"
            yield ("fairness", "slices", index), f"{said}; add it there"
    for key in spec.fairness.reference or {}:
        if key not in spec.fairness.slices:
            yield ("fairness", "reference", key), f"'{key}' is not under fairness.slices"


def _multiclass(spec: Declaration) -> Found:
    if spec.columns.score is not None:
        yield (
            ("columns", "score"),
            "a multiclass model has one score per class; write scores: {class: column, ...}",
        )
    if spec.columns.prediction is None:
        yield ("columns",), "a multiclass model needs columns.prediction, the class it decided for"
    scores = spec.columns.scores or {}
    if spec.columns.scores is not None and len(scores) < 2:
        yield ("columns", "scores"), "at least two classes are needed"
    for label, name in scores.items():
        if problem := column_problem(name):
            yield ("columns", "scores", label), problem
        if spec.classes is not None and label not in spec.classes:
            yield ("columns", "scores", label), f"'{label}' is not among classes"
    if len(set(scores.values())) < len(scores):
        yield ("columns", "scores"), "two classes have the same column"
    yield from _classes(spec)


def _classes(spec: Declaration) -> Found:
    found = declared_classes(spec)
    if len(found) > MAX_CLASSES:
        yield ("classes",), f"{len(found)} classes; at most {MAX_CLASSES} are supported"
    if spec.classes is not None and len(set(spec.classes)) < max(len(spec.classes), 2):
        yield ("classes",), "at least two different classes are needed, each listed once"


def _multilabel(spec: Declaration) -> Found:
    columns = spec.columns
    if columns.score is not None:
        yield ("columns", "score"), "a row has labels, and no score; declare columns.prediction"
    if columns.prediction is None:
        yield ("columns",), "a multilabel model needs columns.prediction, the labels it gave"
    if spec.classes is None:
        yield ("classes",), "a multilabel model needs classes, all labels that it can give"
    for label in spec.classes or ():
        if BETWEEN in label or label in ("", NO_LABELS):
            yield ("classes",), f"'{label}' cannot name a label: '{BETWEEN}' stands between labels"
    yield from _classes(spec)


def _regression(spec: Declaration) -> Found:
    if spec.columns.score is not None:
        yield ("columns", "score"), "a regression has no score; its output is columns.prediction"
    if spec.columns.prediction is None:
        yield ("columns",), "a regression model needs columns.prediction, the number it predicted"
    if RESIDUAL in spec.features:
        yield (
            ("features", RESIDUAL),
            f"'{RESIDUAL}' is what the errors are called; rename the feature",
        )


def _ranking(spec: Declaration) -> Found:
    columns = spec.columns
    if columns.group is None:
        yield (
            ("columns",),
            "a ranking model needs columns.group, which rows were ranked together",
        )
    if columns.rank is None and columns.score is None:
        yield ("columns",), "a ranking model needs columns.rank (1 is first) or columns.score"
    if columns.prediction is not None:
        yield (
            ("columns", "prediction"),
            "a ranking has no prediction; its output is columns.rank or columns.score",
        )
    if columns.examined is None and "max_weight" in spec.model_fields_set:
        yield ("max_weight",), "weights are of columns.examined; declare it"
    for name in _RANKED:
        if name in spec.features:
            yield (
                ("features", name),
                f"'{name}' is a column of the store itself; rename the feature",
            )


def _generation(spec: Declaration) -> Found:
    columns = spec.columns
    for role in ("score", "prediction"):
        if getattr(columns, role) is not None:
            yield ("columns", role), f"a call has no {role}; declare evaluations"


def evaluations_of(spec: Declaration, metric: str) -> list[str]:
    """Return the evaluations that a metric is measured of; none if it is not of evaluations."""
    needs = METRICS[metric].needs + METRICS[metric].fallback
    fits = [fit for need, (_, fit) in _OF_EVALUATIONS.items() if need in needs]
    return [name for name, one in spec.evaluations.items() if any(fit(one) for fit in fits)]


def shown_series(spec: Declaration) -> tuple[str, ...]:
    """Return what a table of months shows: metrics, of evaluations each with the evaluation."""
    if not spec.evaluations:
        return task_of(spec).shown
    metrics = ("good_rate", "mean_value", "judge_agreement")
    return tuple(of_outcome(m, name) for m in metrics for name in evaluations_of(spec, m))


def monitored_subject_problem(spec: Declaration, monitor: PerformanceMonitor) -> str | None:
    """Say why a monitor cannot be of its outcome or evaluation, or None if it can."""
    if isinstance(monitor, BusinessMonitor):
        what, said, fit = "outcome", monitor.outcome, outcomes_of(spec, monitor.metric)
        is_told = len(fit) < 2
    else:
        what, said, fit = "evaluation", monitor.evaluation, evaluations_of(spec, monitor.metric)
        is_told = not fit
    if said is None:
        return None if is_told else f"say which {what}: {listed(fit)}"
    if said in fit:
        return None
    wrong = f"{monitor.metric} has no {what} '{said}'"
    return wrong + offer(said, fit) if fit or what == "outcome" else f"{wrong}."


def metric_problem(spec: Declaration, metric: str) -> str | None:
    """Say why a model cannot have a metric, or None if it can."""
    info = METRICS[metric]
    if spec.task not in info.tasks:
        return f"{metric} is for {' and '.join(info.tasks)}, not for {spec.task}"
    missing = [need for need in info.needs if not _has(spec, need)]
    if missing and not (info.fallback and all(_has(spec, role) for role in info.fallback)):
        role = "scores" if spec.task == MULTICLASS and missing[0] == "score" else missing[0]
        place = role if role in ("costs", "fairness") else f"columns.{role}"
        if role in _OF_EVALUATIONS:
            return f"{metric} needs {_OF_EVALUATIONS[role][0]} under evaluations"
        if role.startswith("outcomes_"):
            place = f"an outcome of columns.outcomes with better: {role.removeprefix('outcomes_')}"
        return f"{metric} is computed from {place}; declare it"
    return None


def outcomes_of(spec: Declaration, metric: str) -> list[str]:
    """Return the outcomes, or evaluations, that a metric is measured of; none of the rest."""
    needs = METRICS[metric].needs
    if spec.evaluations:
        return evaluations_of(spec, metric)
    return [
        name
        for name, outcome in spec.columns.outcomes.items()
        if "outcomes" in needs or f"outcomes_{outcome.better}" in needs
    ]


def _has(spec: Declaration, need: str) -> bool:
    if need in _OF_EVALUATIONS:
        return any(map(_OF_EVALUATIONS[need][1], spec.evaluations.values()))
    if need.startswith("outcomes"):
        side = need.removeprefix("outcomes").lstrip("_")
        return any(side in ("", o.better) for o in spec.columns.outcomes.values())
    holder: object = spec if need in ("costs", "fairness") else spec.columns
    return getattr(holder, need) is not None


def estimated(metric: str) -> str:
    """Return the name of a metric's estimate."""
    return f"estimated_{metric}"


def residual(metric: str) -> str:
    """Return the name of what the estimate of a metric is above the realized value."""
    return f"{metric}_residual"


def estimated_of(metric: str) -> str:
    """Return the metric that a residual is of; empty if it is none."""
    return next((name for name in METRICS if residual(name) == metric), "")


def estimated_metrics(spec: Declaration) -> tuple[str, ...]:
    """Return the metrics that can be estimated of a model, () if none can.

    A classifier's decisions are weighed by its scores, so that it must log them; what is learnt
    is learnt from actuals, so that there must be some.
    """
    columns = spec.columns
    if columns.actual is None:
        return ()
    if spec.task == BINARY and columns.score is None:
        return ()
    if spec.task == MULTICLASS and columns.scores is None:
        return ()
    return tuple(
        metric
        for metric in task_of(spec).estimated
        if "prediction" not in METRICS[metric].needs or columns.prediction is not None
    )


def default_estimates(spec: Declaration) -> tuple[EstimateMonitor, ...]:
    """Return what is monitored of a model's estimates unless it says otherwise.

    Errors of a regression have a unit, so that no limit of theirs suits every model. Estimates are
    learnt from one half of a baseline and measured on the other; earlier windows have no halves.
    """
    if spec.baseline.is_rolling:
        return ()
    found = estimated_metrics(spec)
    wanted = {BINARY: "roc_auc", MULTICLASS: "accuracy"}.get(spec.task)
    return (EstimateMonitor(metric=wanted),) if wanted is not None and wanted in found else ()


def estimate_problems(spec: Declaration) -> Found:
    """Find declared monitors of estimates that the model cannot have."""
    seen: set[str] = set()
    for index, monitor in enumerate(spec.monitors.estimated_performance):
        where = ("monitors", ESTIMATED_PERFORMANCE, index)
        if monitor.metric in seen:
            yield where, f"{monitor.metric} is monitored twice; keep one"
        seen.add(monitor.metric)
        if problem := _problem(spec, monitor.metric):
            yield where, problem


def _problem(spec: Declaration, metric: str) -> str | None:
    if metric in estimated_metrics(spec):
        return None
    known = task_of(spec).estimated
    if metric not in known:
        return (
            f"{metric} cannot be estimated without ground truth for {spec.task}; "
            f"what can be: {listed(known, 20)}"
        )
    if spec.columns.actual is None:
        return f"what {metric} is estimated from is learnt from actuals; declare columns.actual"
    scores = "columns.scores" if spec.task == MULTICLASS else "columns.score"
    return f"{metric} is estimated from {scores} and columns.prediction; declare them"


TASKS: Final[Mapping[str, TaskInfo]] = {
    BINARY: TaskInfo(
        "label",
        _binary,
        watched=("roc_auc", 0.05),
        traced=("f1", "accuracy", "actual_rate"),
        shown=("roc_auc", estimated("roc_auc"), "f1", "accuracy", "actual_rate"),
        estimated=(
            "roc_auc", "pr_auc", "brier", "log_loss", "actual_rate", "accuracy",
            "balanced_accuracy", "precision", "recall", "specificity", "f1",
        ),
    ),
    MULTICLASS: TaskInfo(
        "class",
        _multiclass,
        watched=("accuracy", 0.05),
        traced=("accuracy", "log_loss"),
        shown=(
            "accuracy", estimated("accuracy"), "macro_f1", "macro_roc_auc", "unseen_class_rate",
        ),
        estimated=(
            "accuracy", "macro_roc_auc", "macro_precision", "macro_recall", "macro_f1", "brier",
            "log_loss",
        ),
    ),
    MULTILABEL: TaskInfo(
        "labels",
        _multilabel,
        watched=("micro_f1", 0.05),
        traced=("micro_f1", "subset_accuracy"),
        shown=("micro_f1", "macro_f1", "subset_accuracy", "hamming_loss", "unseen_class_rate"),
    ),
    REGRESSION: TaskInfo(
        "number",
        _regression,
        watched=("r2", 0.1),
        traced=("mae", "me"),
        shown=("mae", estimated("mae"), "rmse", "me", "r2"),
        estimated=("mae", "rmse"),
    ),
    RANKING: TaskInfo(
        "number",
        _ranking,
        watched=("ndcg", 0.05),
        traced=("ndcg", "mrr"),
        shown=("ndcg", "map", "mrr", "hit_rate"),
        is_grouped=True,
    ),
    GENERATION: TaskInfo("label", _generation, watched=("good_rate", 0.05), traced=(), shown=()),
}  # fmt: skip
