"""Write the spec of a model as commented YAML, from what a sample shows."""

from __future__ import annotations

import datetime as dt
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import yaml

from mlmon_dagster.scaffold import NOTE
from mlmon_dagster.scaffold.label_lag import LabelLag
from mlmon_dagster.scaffold.roles import ROLES, Roles
from mlmon_dagster.scaffold.sample import ColumnFacts, Notation, words_of
from mlmon_dagster.spec.baseline import PRODUCTION, default_baseline
from mlmon_dagster.spec.metric_registry import MULTILABEL
from mlmon_dagster.spec.names import column_problem, feature_problem

_SLICE_LEVELS = range(2, 13)
_MOST_SLICES = 2
_RARE = 0.05  # share of positives below which roc_auc says little about them
_NULLS = 0.15  # share of nulls from which on a column has a limit of its own
_SHARE_NAME = re.compile(r"(\w+_)?(share|fraction|prob|proba|probability|anteil)(_\w+)?")
_SHARED = 10  # rows a value on average, from which on values are written into the spec
_TYPES = {
    "numeric": "numeric",
    "integer": "numeric",
    "boolean": "boolean",
    "datetime": "datetime",
    "category": "categorical",
    "text": "text",
    "vector": "embedding",
}


@dataclass(frozen=True)
class Files:
    """Where the files of a stream are, and what the spec must say to read them.

    Attributes:
        path: Their glob, relative to the project.
        delimiter: Of CSV, as the spec calls it; "" for a comma.
        multiline: Cells of CSV hold line ends.
        epoch: Unit of times that are numbers; "" for none.
        notation: How texts write numbers and times.
        key: The name of the prediction's id in these files, if it is not that of the others.
    """

    path: str
    delimiter: str = ""
    multiline: bool = False
    epoch: str = ""
    notation: Notation = field(default_factory=Notation)
    key: str = ""

    def __str__(self) -> str:
        """Write them as the spec does."""
        options = [f"path: {_quoted(self.path)}"]
        options += [f"delimiter: {self.delimiter}"] if self.delimiter else []
        options += ["multiline: true"] if self.multiline else []
        options += [f"epoch: {self.epoch}"] if self.epoch else []
        options += [f"columns: {{prediction_id: {_quoted(self.key)}}}"] if self.key else []
        reasons = ["its values are ids of predictions"] if self.key else []
        reasons += ["cells hold line ends"] if self.multiline else []
        reasons += ["times are numbers, counted from 1970 on"] if self.epoch else []
        written = self.notation
        if written.nulls:
            options.append(f"null_tokens: [{', '.join(map(_quoted, written.nulls))}]")
            reasons.append("null_tokens are null in every column")
        if written.decimal:
            options.append(f"decimal: {written.decimal}")
            options += [f"thousands: {written.thousands}"] if written.thousands else []
            reasons.append("numbers have decimal commas")
        if written.times:
            formats = ", ".join(map(_quoted, written.times))
            options.append(f"time_format: {f'[{formats}]' if len(written.times) > 1 else formats}")
            reasons.append(f"times are written {_one_line(written.example)}")
        reason = f"  # {'; '.join(reasons)}" if reasons else ""
        return f"{{{', '.join(options)}}}{reason}"


@dataclass(frozen=True)
class Scaffold:
    """What a spec is written from.

    Attributes:
        predictions: The landing files, and how they are written.
        actuals: The files with ground truth; None for none.
        start: First day of production.
        end: First day after the last event of data that has ended; None for a live model.
        zone_reason: Why this zone.
        per_day: Events of a day, on average.
        quiet: On which weekdays and between which hours no event happened.
        positives: Share of the rows with ground truth that are positive; None if not known.
        notes: What a person has to decide, as names and values do not tell it.
        datasets: Dataset -> the words of a column, or of the files' names, that mean it.
        datasets_reason: Where these words stand.
        label_lag: How late ground truth was; None if that is not known.
        has_month: Whether production has four weeks of events or more.
    """

    model: str
    predictions: Files
    actuals: Files | None
    start: dt.date
    end: dt.date | None
    zone: str
    granularity: str
    owner: str
    n_rows: int
    zone_reason: str = ""
    per_day: float = 0.0
    quiet: str = ""
    positives: float | None = None
    notes: tuple[str, ...] = ()
    datasets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    datasets_reason: str = ""
    label_lag: LabelLag | None = None
    has_month: bool = False


def spec_text(
    scaffold: Scaffold,
    roles: Roles,
    facts: Sequence[ColumnFacts],
    of_truth: Sequence[ColumnFacts] = (),
) -> str:
    """Return the YAML; every guess has its reason beside it.

    Args:
        scaffold: What does not come from the columns.
        roles: Which column is what.
        facts: Every column of the sample.
        of_truth: Every column of the files of ground truth, if it has its own.
    """
    n_seen = facts[0].n if facts else 0
    used, keys = roles.used(), feature_names(roles, facts)
    lines = [
        f"# Written from {n_seen:,} of {scaffold.n_rows:,} events by mlmon init. Each guess says "
        "why: read it once, then delete",
        "# the comments. mlmon schema --format text says what every key means; mlmon validate "
        "checks this file.",
        *(f"{NOTE}{_one_line(note, 600)}" for note in scaffold.notes),
        f"model: {scaffold.model}",
        f"task: {roles.task}  # {roles.task_reason}",
        *_classes(roles, facts, of_truth),
        f"owners: [{_quoted(scaffold.owner)}]  # who is alerted: team:<name> or an e-mail address",
        "time:",
        f"  zone: {scaffold.zone}  # windows follow this time zone{_because(scaffold.zone_reason)}",
        f"  granularity: {scaffold.granularity}  # about {scaffold.per_day:,.0f} events a day",
        f"  start: {scaffold.start}  # the first day in production; older events may be a baseline",
        *([f"  end: {scaffold.end}"] if scaffold.end else []),
        *_quiet(scaffold),
        *_naive(roles, facts, of_truth),
        "source:",
        f"  predictions: {scaffold.predictions}",
        *_actuals(scaffold),
        "columns:",
        *_columns(roles, has_actuals=scaffold.actuals is not None),
        *_scores(roles),
        *_shap(roles, keys),
        *_labels(roles),
        *_datasets(scaffold),
        *([scaffold.label_lag.text()] if scaffold.label_lag and scaffold.actuals else []),
        "features:",
        *(
            line
            for f in facts
            if f.name not in used
            for line in (_feature(f, keys.get(f.name, "")), *_number_hint(f))
        ),
        *_slices(keys, facts),
        *_baseline(scaffold, roles, facts),
        *_monitors(roles, scaffold.positives),
    ]
    return "\n".join(lines) + "\n"


def _actuals(scaffold: Scaffold) -> Iterator[str]:
    if scaffold.actuals is not None:
        yield f"  actuals: {scaffold.actuals}"
        return
    yield "  # Ground truth, once there is some: files with the prediction's id, the truth and when"
    yield "  # it was known; name these two below: actual: ..., actual_time: ..."
    yield f"  # actuals: {{path: landing/{scaffold.model}/actuals/*.parquet}}"


def _quiet(scaffold: Scaffold) -> Iterator[str]:
    if scaffold.quiet:
        yield f"  # {scaffold.quiet}; what is usually empty is learnt, and no alert"
        yield "  # holidays: DE-BE  # your country or region, if few events come on public holidays"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _naive(
    roles: Roles, facts: Sequence[ColumnFacts], of_truth: Sequence[ColumnFacts]
) -> Iterator[str]:
    used = roles.used()
    read = [f for f in facts if f.name in used or _left_out(f) is None]
    read += [f for f in of_truth if f.name in used]
    naive = [f.name for f in read if f.kind == "datetime" and not f.is_utc]
    if naive:
        shown = _one_line(", ".join(dict.fromkeys(naive)))
        yield f"  naive: zone  # without an offset, read as times of the zone: {shown}"


def _columns(roles: Roles, *, has_actuals: bool) -> Iterator[str]:
    for role in ROLES:
        guess = roles.found.get(role)
        if guess is None:
            continue
        if role in ("actual", "actual_time") and not has_actuals:
            yield f"  # {role}: {guess.columns[0]}  (needs source.actuals)"
            continue
        names = [_quoted(name) for name in guess.columns]
        value = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
        yield f"  {role}: {value}  # {guess.reason}"
    if (guess := roles.found.get("outcome")) is not None and has_actuals:
        column = _quoted(guess.columns[0])
        yield f"  outcomes: {{{guess.columns[0]}: {column}}}  # {guess.reason}"


def _scores(roles: Roles) -> Iterator[str]:
    if roles.scores:
        pairs = [f"{_quoted(label)}: {_quoted(name)}" for label, name in roles.scores.items()]
        yield f"  scores: {{{', '.join(pairs)}}}  # named alike, and they add up to 1 in every row"


def _labels(roles: Roles) -> Iterator[str]:
    if roles.labels is not None:
        said = [_words(words) for words in (roles.labels.positive, roles.labels.negative)]
        reason = _one_line(roles.labels.reason)
        yield f"labels: {{positive: {said[0]}, negative: {said[1]}}}  # {reason}"


def _datasets(scaffold: Scaffold) -> Iterator[str]:
    if any(list(words) != [dataset] for dataset, words in scaffold.datasets.items()):
        told = [f"{dataset}: {_words(words)}" for dataset, words in scaffold.datasets.items()]
        yield f"datasets: {{{', '.join(told)}}}  # {_one_line(scaffold.datasets_reason)}"


def _words(words: Sequence[str]) -> str:
    """Write a word, or a list of words."""
    shown = ", ".join(map(_quoted, words))
    return f"[{shown}]" if len(words) > 1 else shown


def _shap(roles: Roles, keys: Mapping[str, str]) -> Iterator[str]:
    pairs = [
        f"{_quoted(key)}: {_quoted(roles.shap[name])}"
        for name, key in keys.items()
        if name in roles.shap
    ]
    if len(pairs) > 1:
        yield f"  shap: {{{', '.join(pairs)}}}  # SHAP values, by their names"


def _classes(
    roles: Roles, facts: Sequence[ColumnFacts], of_truth: Sequence[ColumnFacts]
) -> Iterator[str]:
    """Yield the labels that rows of several have."""
    if roles.task == MULTILABEL:
        used = {c for r in ("prediction", "actual") if r in roles.found
                for c in roles.found[r].columns}  # fmt: skip
        mine = (one for one in (*facts, *of_truth) if one.name in used)
        found = sorted({label for one in mine for label in one.labels})
        yield f"classes: [{', '.join(map(_quoted, found))}]  # all that the sample has"


def _left_out(facts: ColumnFacts) -> str | None:
    """Say why a column is no feature; None if it is one."""
    if facts.not_of_model:
        return facts.not_of_model
    if facts.kind == "other":
        return "its type is nested or binary, which no metric reads"
    if facts.is_unique and facts.kind in ("text", "integer"):
        return "a different value in every row, like an id"
    if facts.is_constant and facts.kind != "vector":
        return f"always {facts.values[0]}" if facts.values else "always null"
    return column_problem(facts.name)


def feature_names(roles: Roles, facts: Sequence[ColumnFacts]) -> dict[str, str]:
    """Return column -> name of the features, which may be called otherwise than their columns."""
    used = roles.used()
    columns = [f.name for f in facts if f.name not in used and _left_out(f) is None]
    plain = [name for name in columns if feature_problem(name) is None]
    taken, found = {name.lower() for name in plain}, {name: name for name in plain}
    for name in columns:
        if name not in found:
            key = re.sub(r"[^a-z0-9_]", "", words_of(name))[:50] or "feature"
            key = key if feature_problem(key) is None else f"{key}_value"
            key = key if feature_problem(key) is None else f"feature_{key}"
            more = next(n for n in count(1) if (f"{key}_{n}" if n > 1 else key) not in taken)
            found[name] = f"{key}_{more}" if more > 1 else key
            taken.add(found[name])
    return found


def _feature(facts: ColumnFacts, key: str) -> str:
    if problem := _left_out(facts):
        return f"  # {_one_line(facts.name)}: left out: {_one_line(problem)}"
    kind = "categorical" if facts.is_calendar or facts.is_code else _TYPES[facts.kind]
    options = [f"type: {kind}"]
    options += [f"from: {_quoted(facts.name)}"] if key != facts.name else []
    options += _limits(facts) if kind == "numeric" else []
    options += ["nullable: true"] if facts.n_null else []
    if facts.n_null > _NULLS * facts.n:
        limit = min(math.ceil((facts.n_null / facts.n + 0.2) * 20) / 20, 0.99)
        options += [f"null_rate: {{above: {limit:g}}}"]
    options += ["pii: true"] if facts.pii else []
    return f"  {_quoted(key)}: {{{', '.join(options)}}}  # {_remark(facts)}"


def _number_hint(facts: ColumnFacts) -> Iterator[str]:
    """Say how texts that are numbers but for a sign or a few words can be read as numbers."""
    found = facts.numbers
    if found is None or facts.pii:
        return
    if found.signs:
        hint = (
            f"Its numbers have {' and '.join(found.signs)} next to them. No key reads that, so "
            "they are text: write the number alone, such as 1200.50, and {type: numeric} here."
        )
    else:
        words = _one_line(", ".join(map(_quoted, found.words)))
        seen = [words] if words else []
        keys = [f"{words} under null_tokens (null in every column)"] if words else []
        seen += ["commas between thousands"] if found.is_grouped else []
        keys += ["comma under thousands"] if found.is_grouped else []
        hint = (
            f"Numbers but for {' and '.join(seen)}, so read as text. To have numbers, write "
            f"{' and '.join(keys)} at source.predictions, and {{type: numeric"
            f"{', nullable: true' if words else ''}}} here."
        )
    yield from (f"  # {line}" for line in textwrap.wrap(hint, 94))


def _limits(facts: ColumnFacts) -> list[str]:
    """Return the natural limits that all values keep: 0 of what is never below, 1 of a share.

    What merely was the largest so far is none: amounts and ages grow.
    """
    if not facts.lower or float(facts.lower) < 0:
        return []
    is_share = bool(_SHARE_NAME.fullmatch(words_of(facts.name))) and float(facts.upper) <= 1
    return ["min: 0", *(["max: 1"] if is_share else [])]


def _remark(facts: ColumnFacts) -> str:
    parts = []
    if facts.pii:
        parts.append(f"{facts.pii}, so its values are shown nowhere")
    elif facts.is_calendar:
        parts.append(f"{facts.lower} to {facts.upper}, a place in the calendar and no quantity")
    elif facts.is_code:
        parts.append(f"{facts.n_distinct:,} numbers that name something, by its name; no quantity")
    elif facts.kind in ("numeric", "integer", "datetime"):
        parts.append(f"{facts.lower} to {facts.upper}")
    elif facts.kind == "category" and facts.n_distinct * _SHARED > facts.n:
        parts.append(f"{facts.n_distinct:,} values, not shown, since few rows share one")
    elif facts.kind == "category":
        shown = ", ".join(facts.values[:5]) + (", ..." if facts.n_distinct > 5 else "")
        parts.append(f"{facts.n_distinct:,} values: {shown}")
    elif facts.kind == "text":
        parts.append(f"{facts.n_distinct:,} different texts")
    elif facts.kind == "vector":
        parts.append(f"lists of {facts.values[0]} numbers")
    if facts.n_null:
        parts.append(f"{facts.n_null / facts.n:.1%} null")
    return _one_line("; ".join(parts) or "true and false")


def _slices(keys: Mapping[str, str], facts: Sequence[ColumnFacts]) -> Iterator[str]:
    fit = [
        f
        for f in facts
        if f.kind in ("category", "boolean")
        and f.n_distinct in _SLICE_LEVELS
        and not f.pii
        and f.name in keys
    ]
    if fit:
        chosen = [keys[f.name] for f in sorted(fit, key=lambda f: f.n_distinct)[:_MOST_SLICES]]
        yield f"slices: [{', '.join(map(_quoted, chosen))}]  # metrics by value of these as well"


def _baseline(scaffold: Scaffold, roles: Roles, facts: Sequence[ColumnFacts]) -> Iterator[str]:
    guess, datasets = roles.found.get("dataset"), scaffold.datasets
    if datasets:
        compared = next(name for name in ("validation", "training") if name in datasets)
        yield f"baseline: {{dataset: {compared}}}  # what windows are compared with"
        return
    if guess is None:
        split = next((f for f in facts if f.is_split), None)
        if split is not None:
            shown = _one_line(", ".join(split.values[:4]))
            name = _one_line(split.name)
            yield f"# baseline: {name} divides the data ({shown}), but does not say which part"
            yield "# is production and which windows are to be compared with. Say it with"
            yield f"# columns.dataset: {name} and datasets: {{production: ..., validation: ...}};"
            yield "# as it is, windows are compared with those before."
            return
        if scaffold.has_month:
            # Two windows of a fault in the baseline make the rest of it look usual.
            yield "baseline: {moving: 28d, gap: 7d}  # no column names a dataset, so windows are"
            yield "# compared with those before; the gap keeps a new fault out of them for a week."
        else:
            usual = default_baseline(has_dataset=False, granularity=scaffold.granularity)
            days = (usual.moving or usual.gap).days
            span = f"{days // 7}w" if scaffold.granularity == "week" else f"{days}d"
            n = usual.windows_needed(scaffold.granularity)
            yield f"baseline: {{moving: {span}}}  # no column names a dataset, so windows are"
            yield f"# compared with those before; the first is judged once there are {n}."
        yield "# Better: events of a validation set, and a column, or words of the files' names,"
        yield "# that mark it; see datasets in docs/spec.md."
        return
    values = next(f.values for f in facts if f.name == guess.columns[0])
    others = [name for name in ("validation", "training", "shadow", "canary") if name in values]
    if others and PRODUCTION in values:
        yield f"baseline: {{dataset: {others[0]}}}"


def _monitors(roles: Roles, positives: float | None) -> Iterator[str]:
    if roles.task != "binary_classification":
        return
    if not roles.found.keys() & {"score", "prediction"}:
        yield "# No column looks like a score or a decision, so only the data is watched."
        yield "monitors: {performance: []}"
    elif "score" in roles.found and positives is not None and positives < _RARE:
        yield f"# {positives:.1%} are positive. So few hardly move roc_auc when they are missed:"
        yield "# pr_auc, how well they are found among all, is watched, too."
        yield "monitors:"
        yield "  performance:"
        yield "    - {metric: roc_auc, drop: 0.05}"
        yield "    - {metric: pr_auc, change: 25%}"


def _quoted(text: str) -> str:
    """Return a text as YAML would write it inside a flow collection."""
    return yaml.safe_dump([text], default_flow_style=True, width=10_000, allow_unicode=True)[
        1:-2
    ].strip()


def _one_line(text: str, most: int = 100) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
