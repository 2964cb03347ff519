"""A trace in at most a dozen plain sentences: what changed, how sure that is, and what it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple
from zoneinfo import ZoneInfo

import pandas as pd

from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.monitors.change_wording import percent
from mlmon_dagster.monitors.wording import named, weighted_text
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import ALL, counted, joined
from mlmon_dagster.spec.predicate import to_text
from mlmon_dagster.trace.chance import describe_doubt, describe_few, find_doubt, is_sure
from mlmon_dagster.trace.explain import AREA, Decided, Explained, Scores
from mlmon_dagster.trace.money import describe_worth
from mlmon_dagster.trace.raw_score import RawScore
from mlmon_dagster.trace.rows import Searched
from mlmon_dagster.trace.splits import Split

if TYPE_CHECKING:
    from mlmon_dagster.trace.alike import Alike

MOST_LINES = 12
_CHANCE = 0.5  # ROC AUC of scores that mean nothing
_LARGE = 0.5  # share of a change that counts as most of it
_SOME = 0.25
_CONCENTRATED = 1.5  # share of the change over share of the rows, from which on a slice stands out
_LISTED = 3
_NOT_ROUNDING = 0.01  # share of a change that its parts may leave before that is told
_WORTH_IT = 0.05  # share of a metric that another threshold must gain to be told
_LAW_AND_MEANING = ("shifted scores", "the new meaning of a score")
_ENDING = {"shifted scores": "", "the new meaning of a score": "s"}
_PLAYERS = ("the share of positives", "recall", "the false positive rate")


def describe_trace(
    spec: ModelSpec,
    found: Explained,
    now: str,
    then: str,
    searched: Searched | None = None,
    raw_score: RawScore | None = None,
    groups: Sequence[Alike] = (),
) -> list[str]:
    """Say what a trace found, the most important first.

    Args:
        spec: The model.
        found: What `explain.explain` returned.
        now: What the first side is called, such as ``April 2013``.
        then: What the other side is called, such as ``the baseline``.
        searched: What a search of the first side's rows found; None if none was made.
        raw_score: What became of the mean raw score; None where rows are not explained.
        groups: Rows that are alike by an embedding and worse.

    Returns:
        At most `MOST_LINES` sentences; the last ones are left out first. Of a change that may be
        chance one sentence says so, and none what made it, see `trace.chance`.
    """
    of_score = [describe_score(raw_score)] if raw_score else []
    lines = [_headline(found, now, then)]
    if find_doubt(found):
        lines += [describe_doubt(spec, found), *of_score]
    else:
        lines += _of_weighing(found)
        lines += _of_inversion(found)
        lines += filter(None, [_few_windows(spec, found, then)[1]])
        lines += _of_scores(found)
        lines += of_score
        lines += _of_decisions(found)
        lines += _of_slices(spec, found)
        lines += map(describe_group, groups[:_LISTED])
        lines += _of_search(spec, found, searched) if searched else []
    lines += describe_worth(spec, found)
    return lines[:MOST_LINES]


def describe_score(found: RawScore) -> str:
    """Say in one sentence what the mean raw score did, and which features did it."""
    moved = "rose" if found.change > 0 else "fell"
    text = (
        f"{_capital(found.name)} {moved} by {value(abs(found.change))}, "
        f"from {value(found.then)} to {value(found.now)}"
    )
    if found.problem:
        why = (
            "the two sides' SHAP values are of different explainers"
            if found.problem == "other_explainer"
            else f"SHAP values of {found.off:.0%} of the rows do not add up to the score"
        )
        return f"{text}; {why}, so it is not split."
    if math.isnan(found.split.margin):
        return f"{text}; the windows are too few to tell that from chance."
    if not is_sure(found.split.change, found.split.margin):
        return f"{text}, which may be chance."
    effects = found.split.named
    sure = [
        name
        for name, margin in zip(found.split.parts, found.split.margins.tolist(), strict=True)
        if is_sure(effects[name], margin)
    ]
    largest = sorted(sure, key=lambda name: -abs(effects[name]))[:_LISTED]
    left = sum(effect for name, effect in effects.items() if name not in largest)
    others = len(effects) - len(largest)
    parts = [f"{name} {signed(effects[name])}" for name in largest]
    parts += [f"the other {others} {signed(left)}"] if others and parts else []
    if abs(found.rest) > _NOT_ROUNDING * abs(found.change):
        parts.append(f"not explained {signed(found.rest)}")
    return f"{text}: {', '.join(parts)}." if parts else f"{text}, by no feature for sure."


def cause(spec: ModelSpec, found: Explained) -> str:
    """Say in one sentence what made a metric worse, as far as the trace knows a cause.

    Args:
        spec: The model.
        found: What `explain.explain` returned.

    Returns:
        Of a change that may be chance, that it is not explained, and what that would take. Else the
        first that holds: scores or labels are inverted, a few windows did it, a slice stands out,
        scores mean something else or lie elsewhere, decisions changed. Empty if nothing got worse,
        or none of it is known.
    """
    if not found.is_worse:
        return ""
    if find_doubt(found):
        return describe_doubt(spec, found)
    kind, few = _few_windows(spec, found, "")
    causes = [*_of_inversion(found)]
    causes += [few] if kind in ("most", "part") else []
    if found.now.windows > 1:  # of a single window the verdict lists them
        causes += _standing_out(spec, found)[0]
    if found.metric == AREA and found.scores and found.scores.split is not None:
        causes += _law_and_meaning(found, found.scores.split)
    own = found.decisions.get(found.metric)
    causes += _decided(found.metric, own) if own is not None else []
    return next(iter(causes), "")


def _headline(found: Explained, now: str, then: str) -> str:
    name = named(found.metric)
    ends = f"{signed(found.change - found.margin)} to {signed(found.change + found.margin)}"
    text = (
        f"{name} of {now} is {value(found.now.value)}, of {then} {value(found.then.value)}: "
        f"{signed(found.change)}"
    )
    sizes = f"{found.now.n:,} rows of {counted(found.now.windows, 'window')}"
    sizes += f" against {found.then.n:,} of {counted(found.then.windows, 'window')}"
    doubt = find_doubt(found)
    if math.isnan(found.p_value):
        if doubt:
            return f"{text} ({sizes}); whether this is chance is not known."
        return f"{text} ({sizes}), which its monitor found to be more than chance."
    chance = f"{found.p_value:.2f}" if found.p_value >= 0.005 else "under .005"
    verdict = "which may be chance" if doubt else "more than chance"
    verdict += f" (p {chance.lstrip('0')})"
    return f"{text} ({ends} between windows; {sizes}), {verdict}."


def _of_weighing(found: Explained) -> Iterator[str]:
    """Say that the values are of all predictions, and their parts of some."""
    if found.is_weighted:
        yield (
            f"{weighted_text(METHOD, None)}. What follows splits the change of the rows that have "
            "ground truth."
        )


def _of_inversion(found: Explained) -> Iterator[str]:
    """Say that high scores come true less often than low ones, where that is more than chance."""
    scores, area = found.scores, found.now.value
    if found.metric != AREA or scores is None or not area < _CHANCE < found.then.value:
        return
    rarer = min(scores.rate, 1 - scores.rate) * found.now.n
    if (_CHANCE - area) * math.sqrt(rarer) < 1:  # two errors: a row's is at most 1/2
        return
    turned = [
        what
        for what, now, then in (
            ("labels", scores.rate, scores.rate_then), ("scores", scores.mean, scores.mean_then)
        )
        if abs(now - (1 - then)) < abs(now - then) / 2
    ]  # fmt: skip
    which = turned[0] if len(turned) == 1 else "scores or labels"
    yield f"High scores come true less often than low ones: {which} look inverted."


def _few_windows(
    spec: ModelSpec, found: Explained, then: str
) -> tuple[Literal["", "most", "part", "none"], str]:
    """Return how much of a change the windows that stand out are, and the sentence."""
    frame = found.windows
    if len(frame) <= 2 * _LISTED or math.isnan(found.without) or not found.change:
        return "", ""
    # Without its worst windows any period is better; what counts is by how much more than usual.
    gained = (found.without - found.now.value) / -found.change
    usual = (found.without_then - found.then.value) / -found.change
    restored = gained - max(0.0 if math.isnan(usual) else usual, 0.0)
    days = _windows_named(spec, list(frame["window_start"][: found.n_standing]))
    name = named(found.metric)
    without = f"without {'it' if found.n_standing == 1 else 'them'} {name} is "
    without += value(found.without)
    if found.n_standing and restored >= _LARGE:
        return "most", f"{_capital(days)} did most of it: {without}."
    if found.n_standing and restored >= _SOME:
        rest = "the rest is spread over the others"
        return "part", f"{_capital(days)} did a part of it: {without}; {rest}."
    if found.n_standing or restored >= _SOME:
        return "", ""
    before = f"; {then} without its worst is {value(found.without_then)}"
    return "none", (
        f"No few windows did it: without the worst {name} is still {value(found.without)}"
        f"{'' if math.isnan(found.without_then) else before}."
    )


def _windows_named(spec: ModelSpec, starts: Sequence[pd.Timestamp]) -> str:
    zone = ZoneInfo(spec.time.zone)
    pattern = "%Y-%m-%d %H:%M" if spec.time.granularity == "hour" else "%Y-%m-%d"
    local = [start.tz_convert(zone).strftime(pattern) for start in sorted(starts)]
    return joined(local)


def _of_scores(found: Explained) -> Iterator[str]:
    """Say whether scores lie elsewhere or mean something else."""
    scores = found.scores
    if scores is None:
        return
    yield _promise(scores)
    if scores.split is None:
        yield (
            f"Scores of the two sides hardly overlap (a score alone tells them apart with "
            f"{scores.told_apart:.2f}), so it cannot be said what a score means now."
        )
        return
    if found.metric == AREA:
        yield from _law_and_meaning(found, scores.split)


def _law_and_meaning(found: Explained, split: Split) -> Iterator[str]:
    """Say which part of the change each of the two explains that is more than chance."""
    parts = zip(_LAW_AND_MEANING, split.effects.tolist(), split.margins.tolist(), strict=True)
    sure, unsure = list[str](), list[str]()
    for name, effect, margin in parts:
        if is_sure(effect, margin):
            size = f"{signed(effect)}, give or take {value(margin)}"
            sure.append(f"{name} explain{_ENDING[name]} {_share(effect, found.change)} ({size})")
        else:
            unsure.append(name)
    if sure:
        rest = f"; what {unsure[0]} did may be chance" if unsure else ""
        yield f"Of the change, {joined(sure)}{rest}."


def _promise(scores: Scores) -> str:
    return (
        f"Scores promised {scores.mean:.1%} on average and {scores.rate:.1%} came true; before, "
        f"they promised {scores.mean_then:.1%} and {scores.rate_then:.1%} came true."
    )


def _of_decisions(found: Explained) -> Iterator[str]:
    """Say what became of the decisions."""
    for metric, decided in found.decisions.items():
        yield from _decided(metric, decided)
        if (other := decided.threshold) and other.gain > _WORTH_IT * abs(other.value):
            name = named(metric)
            yield (
                f"A threshold of {other.better:.2f} instead of {other.now:.2f} would have given "
                f"{name} {value(other.would_be)} instead of {value(other.value)}, in windows that "
                "did not choose it."
            )


def _decided(metric: str, decided: Decided) -> Iterator[str]:
    """Say which rates changed a metric of decisions, if its own change is more than chance."""
    split = decided.split
    if not is_sure(split.change, split.margin):
        return
    sure = [
        f"{player} from {value(then)} to {value(now)} ({signed(effect)})"
        for player, now, then, effect, margin in zip(
            _PLAYERS, decided.rates, decided.rates_then, split.effects, split.margins, strict=True
        )
        if is_sure(effect, margin)
    ]
    if sure:
        rest = "" if len(sure) == len(_PLAYERS) else "; the rest may be chance"
        yield (
            f"{named(metric)} of the decisions changed by {signed(split.change)}: "
            f"{joined(sure)}{rest}."
        )


def _of_slices(spec: ModelSpec, found: Explained) -> Iterator[str]:
    """Say whether a slice stands out, key by key."""
    standing, others = _standing_out(spec, found)
    yield from standing
    if not others:
        return
    looked = f"Looked at {joined(others)}"
    if found.now.windows == 1:
        yield f"{looked}: no value is shown to be worse than the whole."
    elif math.isnan(found.p_value):
        yield f"{describe_few(spec, found)}."
    else:
        yield f"{looked}: no value is shown to have done more of it than its share of the rows."


def _standing_out(spec: ModelSpec, found: Explained) -> tuple[list[str], list[str]]:
    """Return a sentence of each slice key with values that stand out, and the keys with none."""
    said, spread = list[str](), list[str]()
    for key in [",".join(names) for names in spec.slices]:
        parts = _list_parts(found, key)
        if not parts or not found.change:
            continue
        sure = [
            part
            for part in parts
            if is_sure(part.effect, part.margin)
            and is_sure(part.effect - part.rows * found.change, part.margin)
            and part.effect / found.change > part.rows
        ]
        large = [
            part
            for part in sure
            if part.effect / found.change >= max(_SOME, _CONCENTRATED * part.rows)
        ]
        large.sort(key=lambda part: -part.effect / found.change)
        named_parts = [part.sentence for part in large[:_LISTED]]
        if found.now.windows == 1:
            named_parts = _list_worse(found, key)
        if named_parts:
            said.append(f"By {key} it is above all {joined(named_parts)}.")
        elif not sure:
            spread.append(key)
    return said, spread


def _list_worse(found: Explained, key: str) -> list[str]:
    """Return what the verdict on a single window says is worse than all of it."""
    frame = found.slices[found.slices["slice_key"] == key].set_index("slice_value")
    mine = [value_ for key_, value_ in found.worse_slices or () if key_ == key]
    return [
        f"{name}, from {value(row['baseline_value'])} to {value(row['value'])} ({int(row['n']):,} "
        "rows)"
        for name, row in frame.loc[[name for name in mine if name in frame.index]].iterrows()
    ][:_LISTED]


class _Part(NamedTuple):
    """What a value of a slice key adds to a change, its share of the rows, and the margin."""

    name: str
    effect: float
    change: float
    rows: float
    margin: float

    @property
    def sentence(self) -> str:
        """The part in words."""
        share = self.effect / self.change
        return (
            f"{self.name} with {signed(self.effect)} ({share:.0%} of the change, "
            f"{self.rows:.0%} of the rows)"
        )


def _list_parts(found: Explained, key: str) -> list[_Part]:
    frame = found.slices[found.slices["slice_key"] == key]
    if frame.empty:
        return []
    total = float(found.slices.loc[found.slices["slice_key"] == ALL, "n"].iloc[0])
    rows = dict(zip(frame["slice_value"], frame["n"] / total, strict=True)) if total else {}
    if (split := found.values.get(key)) is not None:
        margins = split.margins.tolist()
        parts = zip(split.parts, split.effects.tolist(), margins, strict=True)
    elif frame["method"].iloc[0] == "exact":
        # Without an interval of the effect, a value stands out if its own change is real.
        margins = [0.0 if is_real else math.inf for is_real in frame["is_real"]]
        effects = frame["effect"].astype(float)
        parts = zip(frame["slice_value"], effects, margins, strict=True)
    else:
        return []
    return [
        _Part(name, effect, found.change, rows.get(name, 0.0), margin)
        for name, effect, margin in parts
    ]


def describe_group(group: Alike) -> str:
    """Say which rows that are alike are worse, and which of them to read."""
    words = f"their words are {joined(group.words)}; " if group.words else ""
    return (
        f"{percent(group.share)} of the rows are alike by {group.column} (in the baseline "
        f"{percent(group.usual)}) and {group.found.excess * 100:.0f} points worse than the others; "
        f"{words}typical are {joined(group.typical[:_LISTED])}."
    )


def _of_search(spec: ModelSpec, found: Explained, searched: Searched) -> Iterator[str]:
    """Say which rows are worse, beside rows like them, than in the baseline, if any slice is."""
    for picked, slice_ in searched.slices[:_LISTED]:
        more = f"{slice_.excess * 100:.0f} points more often"
        margin = f"{slice_.margin * 100:.0f}"
        if not searched.is_share:
            more, margin = f"by {value(slice_.excess)} more", value(slice_.margin)
        yield (
            f"Rows where {to_text(picked)} {searched.means} {more} than in the baseline, beside "
            f"other rows like them (give or take {margin}; {slice_.n:,} rows of "
            f"{counted(slice_.windows, 'window')} that did not propose them)."
        )
    if not searched.is_enough:
        yield "Too few windows to search the rows for other slices: that takes sixteen."
    elif not (
        searched.slices or _standing_out(spec, found)[0] or found.slices["is_real"][1:].any()
    ):
        yield (
            f"The search by up to three of {counted(len(searched.columns), 'feature')} found no "
            "slice that both halves of the windows confirm."
        )


# --- words


def value(number: float) -> str:
    """Write a metric's value, such as ``.645`` or ``12.3``."""
    if math.isnan(number):
        return "not known"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    text = f"{number:.3f}" if abs(number) < 10 else f"{number:.1f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def signed(number: float) -> str:
    """Write a change, such as ``+.026`` or ``-.087``."""
    if math.isnan(number):
        return "not known"
    text = value(abs(number))
    return f"{'-' if number < 0 else '+'}{text}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _share(effect: float, change: float) -> str:
    part = effect / change if change else 0.0
    for least, words in (
        (0.95, "all"),
        (0.7, "most"),
        (0.58, "two thirds"),
        (0.42, "half"),
        (0.28, "a third"),
        (0.12, "a small part"),
        (-0.12, "next to nothing"),
    ):
        if part >= least:
            return words
    return "the opposite"
