"""Guess which column plays which role, and say why."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.scaffold.sample import ColumnFacts, unique_together
from mlmon_dagster.spec import DATASETS

_MOST_CLASSES = 50
_KEY_COLUMNS = 8  # more columns than this together are no key that a person would write


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
class Roles:
    """The roles found, and the task that they suggest."""

    found: dict[str, Guess]
    task: str
    shap: dict[str, str] = field(default_factory=dict)  # column -> that of its SHAP values
    scores: dict[str, str] = field(default_factory=dict)  # class -> column of its probability

    def used(self) -> set[str]:
        """Return the columns that have a role, and cannot be features; keys of several can."""
        single = {g.columns[0] for g in self.found.values() if len(g.columns) == 1}
        return single | set(self.shap.values()) | set(self.scores.values())


@dataclass(frozen=True)
class _Rule:
    role: str
    pattern: str
    fits: Callable[[ColumnFacts], bool]


def _is_score(facts: ColumnFacts) -> bool:
    return (
        facts.kind == "numeric"
        and bool(facts.lower)
        and 0 <= float(facts.lower) <= float(facts.upper) <= 1
    )


def _is_dataset(facts: ColumnFacts) -> bool:
    return facts.kind in ("text", "category") and {*facts.values} <= {*DATASETS}


def _is_time(facts: ColumnFacts) -> bool:
    return facts.kind == "datetime"


def _is_number(facts: ColumnFacts) -> bool:
    return facts.kind in ("numeric", "integer")


def _is_name(facts: ColumnFacts) -> bool:
    return facts.kind in ("category", "text", "integer")


def _is_group(facts: ColumnFacts) -> bool:
    return _is_name(facts) and 0 < facts.n_distinct <= facts.n / 2


def _is_rank(facts: ColumnFacts) -> bool:
    return facts.kind == "integer" and bool(facts.lower) and int(facts.lower) == 1


def _is_any(facts: ColumnFacts) -> bool:
    return facts.kind not in ("other", "datetime")


# In this order; a column is taken once.
_RULES = (
    _Rule("dataset", r"dataset|split|environment|env", _is_dataset),
    _Rule("model_version", r"(model_?)?version", _is_name),
    _Rule("latency_ms", r"(latency|duration|response_time|elapsed)(_?ms)?", _is_number),
    _Rule("status", r"status(_code)?", _is_name),
    _Rule("trace_id", r"(trace|span)_?id", _is_name),
    _Rule("actual_time", r"(actual|label|labell?ed|outcome)_?(time|at|ts)", _is_time),
    _Rule("event_time", r"event_?(time|ts|timestamp)|timestamp|ts|time|(scored|predicted|requested|"
          r"created|logged)_?(at|time)", _is_time),
    _Rule("group", r"(query|search|session|request|list|impression|basket|ranking)(_?id)?|qid",
          _is_group),
    _Rule("rank", r"rank|position|(shown_)?rank(ing)?_?position|rank_shown", _is_rank),
    _Rule("score", r"(y_?)?(score|prob|proba|probability)|p_\w+|\w+_(score|prob|proba|probability)|"
          r"prediction_(score|probability)", _is_score),
    _Rule("prediction", r"(y_?)?(pred|prediction|predicted|y_hat|forecast)|\w+_predicted|"
          r"predicted_\w+|\w+_pred", _is_any),
    _Rule("actual", r"(actual|label|target|y|y_true|ground_?truth|truth|relevance)(_value)?",
          _is_any),
    _Rule("outcome", r"(outcome|revenue|profit)", _is_number),
)  # fmt: skip
_SHAP_NAME = re.compile(
    r"shap(_values?)?[_.](?P<after>.+)|(?P<before>.+)[_.]shap(_values?)?", re.IGNORECASE
)
_ID_NAME = re.compile(r"(prediction|inference|request|event|transaction|row)?_?(id|uuid|key)", re.I)


_OF_TRUTH = ("actual", "actual_time", "outcome")
_OF_RANKING = ("group", "rank")
# Of a probability's name, what stands before or after the class.
_CLASS_NAME = re.compile(
    r"(?P<before>(\w*_)?(prob|proba|probability|score|p)[_.](for_|of_|class_)?)(?P<label>.+)|"
    r"(?P<other>.+)(?P<after>[_.](prob|proba|probability|score))",
    re.IGNORECASE,
)
_SUMS_TO_ONE = 0.02  # how far from 1 the probabilities of a row may add up, in 99 of 100 rows


def guess_roles(
    table: pa.Table, facts: Sequence[ColumnFacts], shared: Sequence[str] | None = None
) -> Roles:
    """Choose a column for each role that some column fits, by name and by values.

    Args:
        table: The sample.
        facts: What its columns look like.
        shared: Columns that the files of ground truth have too, among which is the id; None where
            ground truth is in the same files.
    """
    found: dict[str, Guess] = {}
    free = {f.name: f for f in facts}
    shap = _shap(free)
    scores = _class_scores(table, free)
    for column in (*shap.values(), *scores.values()):
        del free[column]

    def take(role: str, name: str, reason: str) -> None:
        found[role] = Guess((name,), reason)
        del free[name]

    for rule in _RULES:
        if shared is not None and rule.role in _OF_TRUTH:
            continue
        pattern = re.compile(rule.pattern, re.IGNORECASE)
        for name, fact in free.items():
            if pattern.fullmatch(name) and rule.fits(fact):
                take(rule.role, name, "by its name and values")
                break
    _ranking_or_none(free, found, facts)
    _times(table, free, found, take, looks_for_truth=shared is None)
    if shared is None:
        _actual(table, free, found, take)
    found["prediction_id"] = _key(table, free, found, shared or ())
    if scores:
        found.pop("score", None)
    return Roles(found, _task({f.name: f for f in facts}, found, scores), shap, scores)


def with_actuals(roles: Roles, facts: Sequence[ColumnFacts]) -> Roles:
    """Add the roles of ground truth, from a sample of its own files.

    Args:
        roles: Of the predictions.
        facts: What the columns of a sample of ground truth look like.

    Returns:
        The roles with ``actual``, ``actual_time`` and ``outcome`` as far as a column fits; what
        the predictions' files have under the same name is none of them.
    """
    known = {name for guess in roles.found.values() for name in guess.columns}
    free = {f.name: f for f in facts if f.name not in known}
    found: dict[str, Guess] = {}
    for rule in (rule for rule in _RULES if rule.role in _OF_TRUTH):
        for name, fact in free.items():
            if re.fullmatch(rule.pattern, name, re.IGNORECASE) and rule.fits(fact):
                found[rule.role] = Guess((name,), "by its name and values")
                del free[name]
                break
    times = [f.name for f in free.values() if f.kind == "datetime"]
    if "actual_time" not in found and times:
        found["actual_time"] = Guess((times[0],), "the time in the files of ground truth")
    values = [f for f in free.values() if f.kind not in ("other", "datetime") and not f.is_unique]
    if "actual" not in found and values:
        several = f", the first of {len(values)}" if len(values) > 1 else ""
        found["actual"] = Guess((values[0].name,), f"in the files of ground truth{several}")
    every = roles.found | found
    task = _task({f.name: f for f in facts}, found, roles.scores) if "actual" in found else ""
    is_told = {"rank", "group"} <= every.keys() or not task
    return replace(roles, found=every, task=roles.task if is_told else task)


def _class_scores(table: pa.Table, free: dict[str, ColumnFacts]) -> dict[str, str]:
    """Find three columns or more, named alike, whose numbers add up to 1 in every row."""
    alike: dict[str, dict[str, str]] = {}
    for name, fact in free.items():
        match = _CLASS_NAME.fullmatch(name)
        if match and _is_share(fact):
            common = match["before"] or match["after"]
            alike.setdefault(common.lower(), {})[match["label"] or match["other"]] = name
    for scores in alike.values():
        if len(scores) < 3:
            continue
        total = pa.array([0.0] * table.num_rows)
        for name in scores.values():
            total = pc.add(total, table.column(name).cast(pa.float64()))
        near = pc.less(pc.abs(pc.subtract(total, 1.0)), _SUMS_TO_ONE).fill_null(False)
        if pc.mean(near.cast(pa.int8())).as_py() >= 0.99:
            return {_class_of(label, free): name for label, name in scores.items()}
    return {}


def _is_share(facts: ColumnFacts) -> bool:
    is_number = facts.kind in ("numeric", "integer") and bool(facts.lower)
    return is_number and 0 <= float(facts.lower) <= float(facts.upper) <= 1


def _class_of(label: str, free: dict[str, ColumnFacts]) -> str:
    """Write a class as the decisions and the ground truth do."""
    for fact in free.values():
        if fact.kind == "category":
            for value in fact.values:
                if re.sub(r"\W", "_", value).lower() == label.lower():
                    return value
    return label


def _ranking_or_none(
    free: dict[str, ColumnFacts], found: dict[str, Guess], facts: Sequence[ColumnFacts]
) -> None:
    """Give back what looks like a group or a rank where there is no ranking of both."""
    if {"group", "rank"} <= found.keys():
        return
    for role in _OF_RANKING:
        if role in found:
            name = found.pop(role).columns[0]
            free[name] = next(f for f in facts if f.name == name)


def _shap(free: dict[str, ColumnFacts]) -> dict[str, str]:
    """Find columns named like another column's SHAP values."""
    found: dict[str, str] = {}
    for name, fact in free.items():
        match = _SHAP_NAME.fullmatch(name)
        feature = (match["after"] or match["before"]) if match else None
        if feature in free and _is_number(fact):
            found[feature] = name
    return found if len(found) > 1 else {}


_Take = Callable[[str, str, str], None]


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
        complete = [f for f in times if not f.n_null] or times
        take("event_time", complete[0].name, "the first time without gaps")
    if not looks_for_truth or "actual_time" in found or "event_time" not in found:
        return
    start = table.column(found["event_time"].columns[0])
    for fact in [f for f in times if f.name in free]:
        later = table.column(fact.name)
        if later.type == start.type and pc.all(pc.greater_equal(later, start)).as_py():
            take("actual_time", fact.name, f"never before {found['event_time'].columns[0]}")
            return


def _actual(
    table: pa.Table, free: dict[str, ColumnFacts], found: dict[str, Guess], take: _Take
) -> None:
    """Take for ground truth the column that is null exactly when its time is."""
    if "actual" in found or "actual_time" not in found:
        return
    unknown = table.column(found["actual_time"].columns[0]).is_null()
    for fact in list(free.values()):
        if fact.kind in ("other", "datetime") or fact.is_constant:
            continue
        if fact.n_null and pc.all(pc.equal(table.column(fact.name).is_null(), unknown)).as_py():
            take("actual", fact.name, f"null exactly where {found['actual_time'].columns[0]} is")
            return


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
    for fact in sorted(unique, key=lambda f: (f.name not in shared, not _ID_NAME.search(f.name))):
        del free[fact.name]
        also = ", and in the files of ground truth" if fact.name in shared else ""
        return Guess((fact.name,), f"a different value in every row{also}")
    together = [name for name in shared if name in table.column_names]
    if together and unique_together(table, together):
        return Guess(tuple(together), "together different in every row, and in both kinds of files")
    time = [found["event_time"].columns[0]] if "event_time" in found else []
    candidates = [
        f.name for f in free.values() if not f.n_null and f.kind in ("integer", "category", "text")
    ]
    names = _smallest_key(table, time, candidates)
    if names:
        return Guess(names, "together different in every row")
    everything = tuple(f.name for f in free.values() if f.kind != "other")
    reason = "no column or few together tell rows apart, so the whole row does"
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


def _task(facts: dict[str, ColumnFacts], found: dict[str, Guess], scores: Mapping[str, str]) -> str:
    """Name the task that the values of the decision, or of the ground truth, suggest."""
    if {"group", "rank"} <= found.keys():
        return "ranking"
    if scores:
        return "multiclass_classification"
    told = [facts[found[r].columns[0]] for r in ("actual", "prediction") if r in found]
    if "score" in found and all(f.n_distinct <= 2 for f in told):
        return "binary_classification"
    for fact in told:
        if fact.kind == "boolean" or fact.n_distinct == 2:
            return "binary_classification"
        if fact.kind in ("text", "category"):
            return "multiclass_classification"
        if fact.kind == "integer" and fact.n_distinct <= _MOST_CLASSES:
            return "multiclass_classification"
        return "regression"
    return "binary_classification"
