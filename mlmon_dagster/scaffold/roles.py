"""Guess which column plays which role, and say why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.scaffold.columns import ColumnFacts, unique_together
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

    def used(self) -> set[str]:
        """Return the columns that have a role, and cannot be features; keys of several can."""
        single = {g.columns[0] for g in self.found.values() if len(g.columns) == 1}
        return single | set(self.shap.values())


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
    _Rule("score", r"(y_?)?(score|prob|proba|probability)|p_\w+|\w+_(score|prob|proba|probability)|"
          r"prediction_(score|probability)", _is_score),
    _Rule("prediction", r"(y_?)?(pred|prediction|predicted|y_hat|forecast)|\w+_predicted|"
          r"predicted_\w+|\w+_pred", _is_any),
    _Rule("actual", r"(actual|label|target|y|y_true|ground_?truth|truth)(_value)?", _is_any),
    _Rule("outcome", r"(outcome|revenue|profit)", _is_number),
)  # fmt: skip
_SHAP_NAME = re.compile(
    r"shap(_values?)?[_.](?P<after>.+)|(?P<before>.+)[_.]shap(_values?)?", re.IGNORECASE
)
_ID_NAME = re.compile(r"(prediction|inference|request|event|transaction|row)?_?(id|uuid|key)", re.I)


def guess_roles(table: pa.Table, facts: Sequence[ColumnFacts]) -> Roles:
    """Choose a column for each role that some column fits, by name and by values.

    Args:
        table: The sample.
        facts: What its columns look like.
    """
    found: dict[str, Guess] = {}
    free = {f.name: f for f in facts}
    shap = _shap(free)
    for column in shap.values():
        del free[column]

    def take(role: str, name: str, reason: str) -> None:
        found[role] = Guess((name,), reason)
        del free[name]

    for rule in _RULES:
        pattern = re.compile(rule.pattern, re.IGNORECASE)
        for name, fact in free.items():
            if pattern.fullmatch(name) and rule.fits(fact):
                take(rule.role, name, "by its name and values")
                break
    _times(table, free, found, take)
    _actual(table, free, found, take)
    found["prediction_id"] = _key(table, free, found)
    return Roles(found, _task({f.name: f for f in facts}, found), shap)


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
    table: pa.Table, free: dict[str, ColumnFacts], found: dict[str, Guess], take: _Take
) -> None:
    """Give the roles of time to unnamed times: the complete one first, a later one with gaps."""
    times = [f for f in free.values() if f.kind == "datetime"]
    if "event_time" not in found and times:
        complete = [f for f in times if not f.n_null] or times
        take("event_time", complete[0].name, "the first time without gaps")
    if "actual_time" in found or "event_time" not in found:
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


def _key(table: pa.Table, free: dict[str, ColumnFacts], found: dict[str, Guess]) -> Guess:
    """Find the id: a unique column named like one, else any unique one, else several together."""
    unique = [f for f in free.values() if f.is_unique and f.kind in ("text", "category", "integer")]
    for fact in sorted(unique, key=lambda f: not _ID_NAME.search(f.name)):
        del free[fact.name]
        return Guess((fact.name,), "a different value in every row")
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


def _task(facts: dict[str, ColumnFacts], found: dict[str, Guess]) -> str:
    """Name the task that the values of the decision, or of the ground truth, suggest."""
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
