"""Guess which column plays which role, and say why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.scaffold.sample import (
    ColumnFacts,
    facts_of,
    moments_of,
    unique_together,
    words_of,
)
from mlmon_dagster.spec.baseline import DATASETS
from mlmon_dagster.spec.metric_registry import MULTILABEL

ROLES = (  # of one column each, as the spec lists them
    "prediction_id", "event_time", "dataset", "model_version", "group", "rank", "score",
    "prediction", "actual", "actual_time", "latency_ms", "status", "trace_id",
)  # fmt: skip
_MOST_CLASSES = 50
_KEY_COLUMNS = 8  # more columns than this together are no key that a person would write


_Take = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Guess:
    """A column chosen for a role.

    Attributes:
        columns: One name, or several that identify an event together.
        reason: Why, in a few words.
    """

    columns: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Labels:
    """What is written for the two classes of a binary model, where that is not 0 and 1."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Roles:
    """The roles found, and the task that they suggest."""

    found: dict[str, Guess]
    task: str
    shap: dict[str, str] = field(default_factory=dict)  # column -> that of its SHAP values
    scores: dict[str, str] = field(default_factory=dict)  # class -> column of its probability
    task_reason: str = ""
    labels: Labels | None = None

    def used(self) -> set[str]:
        """Return the columns that have a role, and cannot be features; keys of several can."""
        single = {g.columns[0] for g in self.found.values() if len(g.columns) == 1}
        return single | set(self.shap.values()) | set(self.scores.values())


@dataclass(frozen=True)
class _Rule:
    role: str
    pattern: str
    fits: Callable[[ColumnFacts], bool]

    def matches(self, facts: ColumnFacts) -> bool:
        """Tell whether a column fits by its name and values."""
        return self.is_named(facts) and self.fits(facts)

    def is_named(self, facts: ColumnFacts) -> bool:
        """Tell whether a column is called like one of the role."""
        return bool(re.fullmatch(self.pattern, words_of(facts.name)))


def _is_share(facts: ColumnFacts) -> bool:
    is_number = _is_number(facts) and bool(facts.lower)
    return is_number and 0 <= float(facts.lower) <= float(facts.upper) <= 1


def _is_score(facts: ColumnFacts) -> bool:
    return facts.kind == "numeric" and _is_share(facts)


def _has_scores(facts: ColumnFacts) -> bool:
    """Tell whether a column has so many shares that a decision may be cut from them."""
    return _is_score(facts) and facts.n_distinct >= _MANY_SCORES


def _is_dataset(facts: ColumnFacts) -> bool:
    is_called = re.fullmatch(r"dataset|split|environment|env", words_of(facts.name))
    is_split = _is_text(facts) and {*facts.values} <= {*DATASETS}
    return bool(is_called and is_split) or bool(facts.datasets)


def _is_time(facts: ColumnFacts) -> bool:
    return facts.kind == "datetime"


def _is_number(facts: ColumnFacts) -> bool:
    return facts.kind in ("numeric", "integer")


def _is_name(facts: ColumnFacts) -> bool:
    return facts.kind in ("category", "text", "integer")


def _is_text(facts: ColumnFacts) -> bool:
    return facts.kind in ("category", "text")


def _is_group(facts: ColumnFacts) -> bool:
    return _is_name(facts) and 0 < facts.n_distinct <= facts.n / 2


def _is_rank(facts: ColumnFacts) -> bool:
    return facts.kind == "integer" and bool(facts.lower) and int(facts.lower) == 1


def _is_any(facts: ColumnFacts) -> bool:
    return facts.kind not in ("other", "datetime")


# In this order; a column is taken once.
_RULES = (
    _Rule("dataset", r".*", _is_dataset),  # whatever it is called, if its values say so
    _Rule("model_version", r"(modell?_?)?version", _is_name),
    _Rule("model_version", r"(modell?_?)?(release|revision)|modell?_?(build|tag|ver)", _is_text),
    _Rule("latency_ms", r"(latency|duration|response_time|elapsed)(_?ms)?", _is_number),
    _Rule("status", r"status(_code)?", _is_name),
    _Rule("trace_id", r"(trace|span)_?id", _is_name),
    _Rule("actual_time", r"(actual|label|labell?ed|outcome|known|truth|ergebnis|bekannt|gemeldet)_?"
          r"(time|at|ts|am)", _is_time),
    _Rule("event_time", r"(event|prediction|scoring)_?(time|ts|timestamp)|timestamp|ts|time|"
          r"(scored|predicted|requested|created|logged|bewertet|erstellt)_?(at|time|am)|"
          r"zeit(punkt|stempel)|date_?time|datum", _is_time),
    _Rule("score", r"p|p_\w+|(\w+_)?(score|prob|proba|probability|confidence|wk|risiko|risk|"
          r"\w*wahrscheinlichkeit)|(prob|proba|probability)_\w+", _is_score),
    _Rule("prediction", r"(?!.*_(id|uuid|key|version)$)((y_?)?forecast|(\w+_)?y_?hat|\w+_hat|"
          r"predicted_\w+|(output|response)_(class|label|value)|"
          r"(\w+_|y)?(pred|prediction|predicted|estimate|decision|vorhersage|prognose|entscheidung|"
          r"schaetzung)(_(class|label|value))?)",
          _is_any),
    _Rule("actual", r"(?!(output|response)_)(y|(actual|true|observed)_\w+|clicked|converted|"
          r"purchased|(y_)?true|"
          r"(\w+_)?(actual|label|target|ground_?truth|truth|relevance|wahrheit|tatsaechlich|istwert|"
          r"relevanz)(_(class|label|value))?|(wahre|tatsaechliche)_\w+)",
          _is_any),
    _Rule("outcome", r"(outcome|revenue|profit)", _is_number),
)  # fmt: skip
_SHAP_NAME = re.compile(
    r"shap(_values?)?[_.](?P<after>.+)|(?P<before>.+)[_.]shap(_values?)?", re.IGNORECASE
)
_ID_NAME = re.compile(
    r"(prediction|inference|request|event|transaction|row)?_?(id|uuid|key)|"
    r"(\w+_)?(id|uuid|guid|key|ref|nr|no|sk|kennung|\w*nummer|number)$"
)


_OF_TRUTH = ("actual", "actual_time", "outcome")
# Of a probability's name, what stands before or after the class.
_CLASS_NAMES = (
    re.compile(r"(?P<common>(\w*_)?((prob|proba|probability|score)s?|p)([_.]|(?=\d))"
               r"(for_|of_|class_)?)(?P<label>.+?)(_(val|value|pct))?", re.IGNORECASE),
    re.compile(r"(?P<label>.+)(?P<common>[_.][^_.]+)"),
    re.compile(r"(?P<common>[^_.]+[_.])(?P<label>.+)"),
)  # fmt: skip
_ARGMAX = 0.95  # of the rows, in which a decision is the class of the largest probability
_CERTAIN = 0.02  # a decision is cut from probabilities at least so far from 0 and 1
_CALIBRATED = 0.1  # how far the mean score of a ground truth may be off its rate
_LIKELY_AUC = 0.6  # of a score for its ground truth, at least
_TOGETHER = 0.6  # correlation of a predicted number and its truth, at least
_FEWEST = 30  # rows with both
_MANY_SCORES = 20  # different values at least of what a decision is cut from
_APART = 0.02  # of the mean scores of two labels, at least
_PLAIN = (("0", "1"), ("false", "true"))  # what ingest reads without a word in the spec
_YES = {
    "yes", "y", "ja", "j", "t", "oui", "si", "sì", "sí", "sim", "tak", "true", "1", "positive",
    "pos", "positiv", "churn", "churned", "fraud", "betrug", "default", "spam", "bad", "late",
    "cancelled", "gekuendigt", "gekündigt", "clicked", "converted", "bought", "hit", "fail",
}  # fmt: skip
_NO = {
    "no", "n", "nein", "f", "non", "não", "nie", "false", "0", "negative", "neg", "negativ",
    "stayed", "retained", "active", "ok", "legit", "genuine", "good", "gut", "ham", "none",
    "normal",
}  # fmt: skip
_SUMS_TO_ONE = 0.02  # how far from 1 the probabilities of a row may add up, in 99 of 100 rows


def _guess_of(name: str) -> Guess:
    return Guess((name,), "as it was said")


def guess_roles(
    table: pa.Table,
    facts: Sequence[ColumnFacts],
    shared: Sequence[str] | None = None,
    given: Mapping[str, str] | None = None,
) -> Roles:
    """Choose a column for each role that some column fits, by name and by values.

    Args:
        table: The sample.
        facts: What its columns look like.
        shared: Columns that the files of ground truth have too, among which is the id; None where
            ground truth is in the same files.
        given: Role -> column, where somebody has said it.
    """
    free = {f.name: f for f in facts}
    found = {
        role: _guess_of(free.pop(name).name)
        for role, name in (given or {}).items()
        if name in free and (shared is None or role not in _OF_TRUTH)
    }
    shap = _shap(free)
    scores = _class_scores(table, free)
    for column in (*shap.values(), *scores.values()):
        del free[column]

    def take(role: str, name: str, reason: str) -> None:
        if role not in (given or {}):
            found[role] = Guess((name,), reason)
            del free[name]

    _ranking(table, free, take)
    _decided(table, free, scores, take)
    for rule in _RULES:
        if rule.role in found or (shared is not None and rule.role in _OF_TRUTH):
            continue
        if fact := next(filter(rule.matches, free.values()), None):
            take(rule.role, fact.name, "by its name and values")
    if "rank" not in found:
        _cut_off(table, free, found, take)
    _times(table, free, found, take, looks_for_truth=shared is None)
    if shared is None:
        _actual(table, free, found, scores, take)
    if not scores and not found.keys() & {"score", "rank"}:
        _alike(table, free, found, take, looks_for_truth=shared is None)
    if "prediction_id" not in found:
        found["prediction_id"] = _key(table, free, found, shared or ())
    if scores:
        found.pop("score", None)
    known = {f.name: f for f in facts}
    task, reason = _task(known, found, scores, waits_for_truth=shared is not None)
    return _of_task(Roles(found, task, shap, scores, reason), known)


def percent_score(roles: Roles, facts: Sequence[ColumnFacts]) -> ColumnFacts | None:
    """Return what is called like an output and is from 0 to 100, where a model has no score."""
    if roles.task != "binary_classification" or "score" in roles.found:
        return None
    rules = [rule for rule in _RULES if rule.role in ("score", "prediction")]
    return next(
        (
            fact
            for fact in facts
            if fact.name not in roles.used()
            and any(rule.is_named(fact) for rule in rules)
            and _is_number(fact)
            and fact.lower
            and float(fact.lower) >= 0
            and 1 < float(fact.upper) <= 100
        ),
        None,
    )


def _of_task(roles: Roles, facts: Mapping[str, ColumnFacts]) -> Roles:
    """Leave out the roles that the task has no use for; of two outcomes, decimals are the score."""
    found = dict(roles.found)
    is_binary = roles.task == "binary_classification"
    if not is_binary and roles.task != "ranking":
        found.pop("score", None)
    predicted = facts[found["prediction"].columns[0]] if "prediction" in found else None
    if predicted is not None and is_binary and _is_number(predicted) and predicted.n_distinct > 2:
        del found["prediction"]
        if _is_score(predicted) and "score" not in found:
            found["score"] = Guess((predicted.name,), "decimals from 0 to 1, so it is no decision")
    if predicted is not None and "multiclass" in roles.task and _has_amounts(predicted):
        del found["prediction"]
    return replace(roles, found=found)


def _has_amounts(facts: ColumnFacts) -> bool:
    """Tell whether decimals are amounts or chances; two of them may be names of a decision."""
    return facts.kind == "numeric" and facts.n_distinct > 2


def with_actuals(
    roles: Roles,
    of_predictions: Sequence[ColumnFacts],
    facts: Sequence[ColumnFacts],
    given: Mapping[str, str] | None = None,
) -> Roles:
    """Add the roles of ground truth, from a sample of its own files.

    Args:
        roles: Of the predictions.
        of_predictions: What their columns look like.
        facts: What the columns of a sample of ground truth look like.
        given: Role -> column, where somebody has said it.

    Returns:
        The roles with ``actual``, ``actual_time`` and ``outcome`` as far as a column fits; what
        the predictions' files have under the same name is none of them.
    """
    known = {name for guess in roles.found.values() for name in guess.columns}
    free = {f.name: f for f in facts if f.name not in known}
    found = {
        role: _guess_of(free.pop(name).name)
        for role, name in (given or {}).items()
        if role in _OF_TRUTH and name in free
    }
    for rule in (rule for rule in _RULES if rule.role in _OF_TRUTH and rule.role not in found):
        if fact := next(filter(rule.matches, free.values()), None):
            found[rule.role] = Guess((fact.name,), "by its name and values")
            del free[fact.name]
    times = [f.name for f in free.values() if f.kind == "datetime"]
    if "actual_time" not in found and times:
        found["actual_time"] = Guess((times[0],), "the time in the files of ground truth")
    values = [  # a number may differ in every row and be no id
        f
        for f in free.values()
        if f.kind not in ("other", "datetime") and (f.kind == "numeric" or not f.is_unique)
    ]
    if "actual" not in found and values:
        several = f", the first of {len(values)}" if len(values) > 1 else ""
        found["actual"] = Guess((values[0].name,), f"in the files of ground truth{several}")
    every = roles.found | found
    if {"rank", "group"} <= every.keys() or "actual" not in found:
        return replace(roles, found=every)
    known_facts = {f.name: f for f in (*of_predictions, *facts)}
    task, reason = _task(known_facts, every, roles.scores)
    return _of_task(replace(roles, found=every, task=task, task_reason=reason), known_facts)


def _class_scores(table: pa.Table, free: dict[str, ColumnFacts]) -> dict[str, str]:
    """Find three columns or more, named alike, whose numbers add up to 1 in every row.

    Of several ways to read their names the one whose classes occur as values comes first.
    """
    shares = [name for name, fact in free.items() if _is_share(fact)]
    found: list[dict[str, str]] = []
    for pattern in _CLASS_NAMES:
        alike: dict[str, dict[str, str]] = {}
        for name in shares:
            # As it is written first: a class may have capitals, which words_of takes away.
            written = pattern.fullmatch(name) or pattern.fullmatch(words_of(name))
            if written:
                alike.setdefault(written["common"].lower(), {})[written["label"]] = name
        for scores in alike.values():
            if len(scores) < 3:
                continue
            total = sum(_numbers(table, name) for name in scores.values())
            if np.mean(np.abs(total - 1.0) < _SUMS_TO_ONE) >= 0.99:
                found.append({_class_of(label, free): name for label, name in scores.items()})
    seen = {value for fact in free.values() for value in fact.values if fact.n_distinct > 1}
    return max(found, key=lambda scores: len(seen & scores.keys()), default={})


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = table.column(name).cast(pa.float64()).to_numpy()
    return numbers


def _texts(table: pa.Table, name: str) -> NDArray[np.object_]:
    """Return a column's values as text, whole numbers as such; None where there is none."""
    column = table.column(name)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.equal(column, pc.round(column)), column, None).cast(pa.int64())
    texts: NDArray[np.object_] = column.cast(pa.string()).to_numpy()
    return texts


def _class_of(label: str, free: dict[str, ColumnFacts]) -> str:
    """Write a class as the decisions and the ground truth do."""
    for fact in free.values():
        if fact.kind == "category":
            for value in fact.values:
                if re.sub(r"\W", "_", value).lower() == label.lower():
                    return value
    return label


def _ranking(table: pa.Table, free: dict[str, ColumnFacts], take: _Take) -> None:
    """Find whole numbers that count 1, 2, 3 and so on in each group of another column."""
    ranks = [f for f in free.values() if _is_rank(f) and not f.n_null and f.n_distinct > 1]
    groups = [f for f in free.values() if _is_group(f) and not f.n_null]
    for rank, group in product(ranks, groups):
        if rank.n_distinct * group.n_distinct < rank.n or rank.name == group.name:
            continue
        name = rank.name
        kinds: list[tuple[str, str]] = [(name, kind) for kind in ("count", "count_distinct", "max")]
        counted = table.select([group.name, name]).group_by(group.name).aggregate(kinds)
        n, distinct, last = (counted.column(f"{name}_{kind}").to_numpy() for _, kind in kinds)
        # A sample may have cut the first and the last group.
        if np.mean((n == distinct) & (n == last) & (n > 1)) >= 0.95:
            take("group", group.name, f"{name} counts from 1 in each of its {len(n):,} values")
            take("rank", name, f"1, 2, 3 and so on within each {group.name}")
            return


def _decided(
    table: pa.Table, free: dict[str, ColumnFacts], scores: Mapping[str, str], take: _Take
) -> None:
    """Take for the decision the column that names the class of the largest probability."""
    if not scores:
        return
    numbers = np.column_stack([_numbers(table, name) for name in scores.values()])
    largest = np.array(list(scores), dtype=object)[np.nan_to_num(numbers).argmax(axis=1)]
    for fact in free.values():
        if fact.kind not in ("category", "integer") or fact.n_distinct > len(scores):
            continue
        if np.mean(_texts(table, fact.name) == largest) >= _ARGMAX:
            take("prediction", fact.name, "the class of the largest probability")
            return


def _cut_off(
    table: pa.Table, free: dict[str, ColumnFacts], found: dict[str, Guess], take: _Take
) -> None:
    """Take for score and decision two columns of which one is the other, cut in two."""
    missing = {"score", "prediction"} - found.keys()
    if not missing:
        return
    known = {role: guess.columns[0] for role, guess in found.items()}
    scores = [known["score"]] if "score" in known else [
        f.name for f in free.values() if _has_scores(f)
    ]  # fmt: skip
    decisions = [known["prediction"]] if "prediction" in known else [
        f.name for f in free.values() if f.n_distinct == 2 and f.kind not in ("other", "datetime")
    ]  # fmt: skip
    pairs = [
        (score, decision, cut)
        for score, decision in product(scores, decisions)
        if score != decision and (cut := _cut_of(table, score, decision)) is not None
    ]
    if len(pairs) != 1:
        return
    ((score, decision, cut),) = pairs
    reasons = {
        "score": (score, f"{decision} is cut from it, at {cut:.3g}"),
        "prediction": (decision, f"it follows from {score}, cut at {cut:.3g}"),
    }
    for role in sorted(missing):
        take(role, *reasons[role])


def _cut_of(table: pa.Table, score: str, decision: str) -> float | None:
    """Return where a decision changes with the score; None if it does not follow from it."""
    grouped = table.select([score, decision]).drop_null().group_by(decision)
    ends = grouped.aggregate([(score, "min"), (score, "max")])
    if ends.num_rows != 2:
        return None
    low, high = sorted(zip(*(ends.column(f"{score}_{end}").to_pylist() for end in ("min", "max")),
                           strict=True))  # fmt: skip
    is_cut = low[1] <= high[0] and low[1] > _CERTAIN and high[0] < 1 - _CERTAIN
    return float(high[0]) if is_cut else None


def _shap(free: dict[str, ColumnFacts]) -> dict[str, str]:
    """Find columns named like another column's SHAP values."""
    found: dict[str, str] = {}
    for name, fact in free.items():
        match = _SHAP_NAME.fullmatch(name)
        feature = (match["after"] or match["before"]) if match else None
        if feature in free and _is_number(fact):
            found[feature] = name
    return found if len(found) > 1 else {}


def _times(
    table: pa.Table,
    free: dict[str, ColumnFacts],
    found: dict[str, Guess],
    take: _Take,
    *,
    looks_for_truth: bool,
) -> None:
    """Give the roles of time to unnamed times: the complete one first, a later one with gaps."""
    times = [f for f in free.values() if f.kind == "datetime"]
    if "event_time" not in found and times:
        complete = [f for f in times if not f.n_null and f.has_clock]
        complete = complete or [f for f in times if not f.n_null] or times
        moments = {f.name: moments_of(table.column(f.name)) for f in complete}
        ordered = [name for name in moments if moments[name].is_monotonic_increasing]
        if len(complete) > 1 and ordered:
            # What was promised or is due comes later.
            name = min(ordered, key=lambda name: moments[name].iloc[0])
            take("event_time", name, "the first time that the rows are in the order of")
        else:
            take("event_time", complete[0].name, "the first time without gaps")
    if not looks_for_truth or "actual_time" in found or "event_time" not in found:
        return
    start = moments_of(table.column(found["event_time"].columns[0]))
    # A later time without gaps may as well be one that was promised.
    for fact in [f for f in times if f.name in free and f.n_null]:
        later = moments_of(table.column(fact.name))
        begin = start if fact.has_clock else start.dt.floor("D")
        if ((later >= begin) | later.isna()).all():
            take("actual_time", fact.name, f"never before {found['event_time'].columns[0]}")
            return


def _actual(
    table: pa.Table,
    free: dict[str, ColumnFacts],
    found: dict[str, Guess],
    scores: Mapping[str, str],
    take: _Take,
) -> None:
    """Take for ground truth the column that is null exactly when its time is, or names classes."""
    if "actual" in found:
        return
    values = [f for f in free.values() if f.kind not in ("other", "datetime") and not f.is_constant]
    if "actual_time" in found:
        unknown = table.column(found["actual_time"].columns[0]).is_null()
        for fact in values:
            same = pc.equal(table.column(fact.name).is_null(), unknown)
            if fact.n_null and pc.all(same).as_py():
                take(
                    "actual", fact.name, f"null exactly where {found['actual_time'].columns[0]} is"
                )
                return
    if "score" in found:
        score = found["score"].columns[0]
        likely = [(f, auc) for f in values if (auc := _auc_of(table, score, f)) >= _LIKELY_AUC]
        if len(likely) == 1:
            ((fact, auc),) = likely
            reason = f"as often true as {score} says, and ordered by it (ROC AUC {auc:.2f})"
            take("actual", fact.name, reason)
            return
    if not found.keys() & {"score", "prediction"} and not scores:
        candidates = [f.name for f in free.values() if _has_scores(f)]
        pairs = [
            (score, f.name, auc)
            for score, f in product(candidates, values)
            if (auc := _auc_of(table, score, f)) >= _LIKELY_AUC
        ]
        if len(pairs) == 1:
            ((score, name, auc),) = pairs
            take("score", score, f"it orders {name}, and is as large as that is often")
            take("actual", name, f"as often true as {score} says (ROC AUC {auc:.2f})")
            return
    named = [f for f in values if {*f.values} <= scores.keys()]
    if scores and len(named) == 1:
        take("actual", named[0].name, "its values are the classes that have probabilities")


def with_truth(predictions: pa.Table, truth: pa.Table, roles: Roles) -> pa.Table:
    """Return the events with the ground truth of their id beside them, if both have the id.

    Args:
        predictions: A sample of events.
        truth: A sample of ground truth.
        roles: Of both.
    """
    key = roles.found["prediction_id"].columns
    actual = roles.found["actual"].columns[0] if "actual" in roles.found else ""
    is_known = {*key, actual} <= {*truth.column_names} and {*key} <= {*predictions.column_names}
    if not is_known or actual in predictions.column_names:
        return predictions
    keys = list(key)
    wanted = truth.select([*keys, actual]).group_by(keys).aggregate([(actual, "min")])
    places = predictions.select(keys).append_column("place", pa.array(range(len(predictions))))
    try:
        joined = places.join(wanted, keys).sort_by("place")
    except pa.ArrowException:  # an id of another type than here
        return predictions
    return predictions.append_column(actual, joined.column(f"{actual}_min"))


def with_outputs(roles: Roles, events: pa.Table, facts: Sequence[ColumnFacts]) -> Roles:
    """Take for what a model without outputs said the numbers that its ground truth follows.

    Args:
        roles: Of all columns.
        events: With their ground truth.
        facts: Of the columns of events.
    """
    actual = roles.found["actual"].columns[0] if "actual" in roles.found else ""
    has_outputs = roles.scores or roles.found.keys() & {"score", "prediction", "rank"}
    if has_outputs or actual not in events.column_names:
        return roles
    used = roles.used() | {actual}
    free = [f for f in facts if f.name not in used]
    (truth,) = facts_of(events.select([actual]))
    likely = [
        (f.name, auc)
        for f in free
        if _has_scores(f) and (auc := _auc_of(events, f.name, truth)) >= _LIKELY_AUC
    ]
    if len(likely) == 1:
        ((name, auc),) = likely
        reason = f"{actual} is true as often as it says, and ordered by it (ROC AUC {auc:.2f})"
        found = {**roles.found, "score": Guess((name,), reason)}
        task = "binary_classification"
        return replace(roles, found=found, task=task, task_reason=f"{name} is from 0 to 1")
    alike = [f.name for f in free if _go_together(events, f.name, actual)]
    if roles.task != "regression" or len(alike) != 1:
        return roles
    reason = f"of the size of {actual}, and goes with it"
    return replace(roles, found={**roles.found, "prediction": Guess((alike[0],), reason)})


def _auc_of(table: pa.Table, score: str, fact: ColumnFacts) -> float:
    """Return how well a score orders the values of a column; 0.0 if it cannot be about them.

    It cannot, if there are not two values or they are not about as often true as the score says.
    """
    pair = pair_of(fact)
    if pair is None or score == fact.name:
        return 0.0
    said = np.array([folded(text) for text in _texts(table, fact.name)], dtype=object)
    scores = _numbers(table, score)
    known = np.isfinite(scores) & table.column(fact.name).is_valid().to_numpy()
    scores, said = scores[known], said[known]
    positive = _plain_positive(pair) or max(pair, key=lambda word: _mean(scores[said == word]))
    truth = said == positive
    n_true, n = int(truth.sum()), len(truth)
    if not 0 < n_true < n or abs(truth.mean() - scores.mean()) > _CALIBRATED:
        return 0.0
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable") + 1.0
    above = float(ranks[truth].sum()) - n_true * (n_true + 1) / 2
    return above / (n_true * (n - n_true))


def _alike(
    table: pa.Table,
    free: dict[str, ColumnFacts],
    found: dict[str, Guess],
    take: _Take,
    *,
    looks_for_truth: bool,
) -> None:
    """Take for a predicted number and its truth two columns of like size that go together."""
    missing = {"prediction", "actual"} - found.keys()
    if not missing or not looks_for_truth:
        return
    numbers = [f for f in free.values() if f.kind == "numeric" and f.n_distinct > _MOST_CLASSES]
    known = [found[role].columns[0] for role in ("prediction", "actual") if role in found]
    others = [(known[0], f.name) for f in numbers] if known else [
        (first.name, second.name) for first, second in combinations(numbers, 2)
    ]  # fmt: skip
    pairs = [pair for pair in others if _go_together(table, *pair)]
    if len(pairs) != 1:
        return
    ((first, second),) = pairs
    if known:
        take(missing.pop(), second, f"of the size of {first}, and goes with it")
        return
    # Ground truth is what is not always there; else predictions stray less than the truth.
    first, second = sorted(
        pairs[0], key=lambda name: (free[name].n_null, float(np.nanstd(_numbers(table, name))))
    )
    take("prediction", first, f"goes with {second}, and is always there or varies less")
    take("actual", second, f"of the size of {first}, and goes with it")


def _go_together(table: pa.Table, first: str, second: str) -> bool:
    """Tell whether two columns of numbers look like a prediction and its truth."""
    if not _is_numeric(table, first) or not _is_numeric(table, second):
        return False
    one, other = _numbers(table, first), _numbers(table, second)
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    narrow, spread = sorted(
        float(values.std()) if len(one) >= _FEWEST else 0.0 for values in (one, other)
    )
    if not spread or narrow < spread / 2:
        return False
    is_near = abs(float(one.mean() - other.mean())) < spread / 4
    correlation = float(np.corrcoef(one, other)[0, 1])
    return is_near and correlation > _TOGETHER


def _is_numeric(table: pa.Table, name: str) -> bool:
    kind = table.schema.field(name).type
    known = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)
    return any(is_it(kind) for is_it in known)


def _mean(numbers: NDArray[np.float64]) -> float:
    return float(numbers.mean()) if len(numbers) else 0.0


def folded(text: str | None) -> str:
    """Return a label as ingest compares it."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", (text or "").strip().lower())


def pair_of(facts: ColumnFacts) -> tuple[str, str] | None:
    """Return the two values of a column, folded; None if it has not two."""
    if facts.kind in ("other", "datetime") or facts.n_distinct != 2:
        return None
    first, second = sorted({folded(value) for value in facts.values} | {""})[-2:]
    return (first, second) if first else None


def _plain_positive(pair: Collection[str]) -> str:
    """Return which of two values is true as it stands; "" if they are words."""
    return next((yes for no, yes in _PLAIN if {*pair} <= {no, yes}), "")


def with_labels(roles: Roles, predictions: pa.Table, facts: Iterable[ColumnFacts]) -> Roles:
    """Say what the decisions and the ground truth of a binary model are written as.

    Args:
        roles: Of all columns.
        predictions: The sample of events.
        facts: Of all columns of both kinds of files.
    """
    if roles.task != "binary_classification":
        return roles
    known = {f.name: f for f in facts}
    told = [known[roles.found[r].columns[0]] for r in ("prediction", "actual") if r in roles.found]
    pairs = {f.name: pair for f in told if (pair := pair_of(f)) is not None}
    if all(_plain_positive(pair) for pair in pairs.values()):
        return roles
    score = roles.found["score"].columns[0] if "score" in roles.found else ""
    positive: dict[str, None] = {}
    negative: dict[str, None] = {}
    reasons: list[str] = []
    for name, pair in pairs.items():
        yes, reason = _positive(pair, known[name], predictions, score)
        positive[yes] = None
        negative[next(word for word in pair if word != yes)] = None
        reasons += [reason] if reason and reason not in reasons else []
    if positive.keys() & negative.keys():
        return replace(roles, task_reason=f"{roles.task_reason}; its columns contradict each other")
    return replace(roles, labels=Labels((*positive,), (*negative,), "; ".join(reasons)))


def positive_share(events: pa.Table, roles: Roles) -> float | None:
    """Return the share of positives among the events with ground truth.

    Args:
        events: The sample, with its ground truth beside it.
        roles: With `labels` found.

    Returns:
        0 to 1; None where there is no ground truth, or it is not of two classes.
    """
    guess = roles.found.get("actual")
    if guess is None or guess.columns[0] not in events.column_names:
        return None
    said = Counter(folded(text) for text in _texts(events, guess.columns[0]))
    del said[""]
    yes = roles.labels.positive if roles.labels else (_plain_positive(said),)
    return sum(said[word] for word in yes) / said.total() if len(said) == 2 else None


def _positive(
    pair: tuple[str, str], fact: ColumnFacts, table: pa.Table, score: str
) -> tuple[str, str]:
    """Return which of two words is the positive class, and why."""
    if yes := _plain_positive(pair):
        return yes, ""
    if score and fact.name in table.column_names:
        said = np.array([folded(text) for text in _texts(table, fact.name)], dtype=object)
        scores = _numbers(table, score)
        groups = {word: scores[(said == word) & np.isfinite(scores)] for word in pair}
        means = {word: _mean(group) for word, group in groups.items()}
        low, high = sorted(pair, key=lambda word: means[word])
        # Means of few rows differ by chance: three standard errors of a difference of means.
        noise = 3 * sum(float(g.var()) / max(len(g), 1) for g in groups.values() if len(g)) ** 0.5
        if means[high] - means[low] > max(_APART, noise):
            said_of = f"{means[high]:.2f} where {fact.name} is {high}, {means[low]:.2f} else"
            return high, f"{score} is {said_of}"
    by_word = [word for word in pair if word in _YES] or [
        word for word in pair if not {*pair} - {word} - _NO
    ]
    if len(by_word) == 1:
        return by_word[0], f"{by_word[0]} means that it is so"
    rarer = folded(fact.values[-1])
    return rarer, "the rarer one; turn them round if that is wrong"


def _key(
    table: pa.Table,
    free: dict[str, ColumnFacts],
    found: dict[str, Guess],
    shared: Sequence[str],
) -> Guess:
    """Find the id: a unique column named like one, else any unique one, else several together.

    One that the files of ground truth have too comes before all others.
    """
    unique = [f for f in free.values() if f.is_unique and f.kind in ("text", "category", "integer")]
    for fact in sorted(
        unique, key=lambda f: (f.name not in shared, not _ID_NAME.search(words_of(f.name)))
    ):
        del free[fact.name]
        also = ", and in the files of ground truth" if fact.name in shared else ""
        return Guess((fact.name,), f"a different value in every row{also}")
    together = [name for name in shared if name in table.column_names]
    if together and unique_together(table, together):
        return Guess(tuple(together), "together different in every row, and in both kinds of files")
    ranked = tuple(found[role].columns[0] for role in ("group", "rank") if role in found)
    if len(ranked) == 2 and unique_together(table, ranked):
        return Guess(ranked, "together different in every row")
    time = [found["event_time"].columns[0]] if "event_time" in found else []
    candidates = [
        f.name for f in free.values() if not f.n_null and f.kind in ("integer", "category", "text")
    ]
    names = _smallest_key(table, time, candidates)
    if names:
        return Guess(names, "together different in every row")
    everything = tuple(f.name for f in free.values() if f.kind != "other")
    reason = "no column or few together identify rows, so the whole row does"
    return Guess((*time, *everything), reason)


def _smallest_key(table: pa.Table, start: list[str], candidates: Sequence[str]) -> tuple[str, ...]:
    """Return the first few columns that identify a row together; () for none.

    One or two beside the time are tried in every combination, then all, thinned out one by one.
    """
    for n in (1, 2):
        for extra in combinations(candidates, n):
            if unique_together(table, [*start, *extra]):
                return (*start, *extra)
    names = [*start, *candidates]
    if not names or not unique_together(table, names):
        return ()
    for name in reversed(candidates):
        fewer = [other for other in names if other != name]
        if unique_together(table, fewer):
            names = fewer
    return tuple(names) if len(names) <= _KEY_COLUMNS else ()


def _task(
    facts: Mapping[str, ColumnFacts],
    found: Mapping[str, Guess],
    scores: Mapping[str, str],
    *,
    waits_for_truth: bool = False,
) -> tuple[str, str]:
    """Name the task that the values of the decision, or of the ground truth, suggest, and why."""
    if {"group", "rank"} <= found.keys():
        return "ranking", "places within groups"
    if scores:
        return "multiclass_classification", f"probabilities of {len(scores)} classes"
    told = [facts[found[r].columns[0]] for r in ("actual", "prediction") if r in found]
    score = found["score"].columns[0] if "score" in found else ""
    for fact in told:
        if _is_text(fact) and (pair := pair_of(fact)) and not _plain_positive(pair):
            return "binary_classification", f"{fact.name} says {' and '.join(pair)}"
    if score and all(f.n_distinct <= 2 for f in told):
        return "binary_classification", f"{score} is from 0 to 1"
    predicted = facts[found["prediction"].columns[0]] if "prediction" in found else None
    has_amounts = predicted is not None and _has_amounts(predicted)
    truth = next((fact for fact in told if fact is not predicted), None)
    if predicted is not None and has_amounts and _is_score(predicted) and not waits_for_truth:
        if truth is None:
            return "binary_classification", f"{predicted.name} is from 0 to 1, as chances are"
        if not truth.n_distinct or _plain_positive({folded(value) for value in truth.values}):
            return "binary_classification", f"{predicted.name} is from 0 to 1, {truth.name} 0 or 1"
    for fact in [fact for fact in told if not fact.is_constant] or told:
        if fact.labels:
            return MULTILABEL, f"{fact.name} holds several labels, such as {fact.values[0]}"
        if fact.kind == "boolean" or fact.n_distinct == 2:
            return "binary_classification", f"{fact.name} has two values"
        if _is_text(fact):
            return "multiclass_classification", f"{fact.name} has {fact.n_distinct:,} names"
        if fact.kind == "integer" and fact.n_distinct <= _MOST_CLASSES and not has_amounts:
            values = f"{fact.n_distinct:,} whole numbers"
            return "multiclass_classification", f"{fact.name} has {values}"
        return "regression", f"{fact.name} is a number"
    return "binary_classification", "nothing looks like a decision or ground truth; say what it is"
