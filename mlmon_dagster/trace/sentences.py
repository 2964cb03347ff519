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
from mlmon_dagster.spec.names import ALL, counted
from mlmon_dagster.spec.predicate import to_text
from mlmon_dagster.trace.explain import AREA, Decided, Explained, Scores
from mlmon_dagster.trace.money import describe_worth
from mlmon_dagster.trace.raw_score import RawScore
from mlmon_dagster.trace.rows import Searched
from mlmon_dagster.trace.slices import Q
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
        At most `MOST_LINES` sentences; the last ones are left out first.
    """
    lines = [
        _headline(found, now, then),
        *_of_weighing(found),
        *_of_chance(found),
        *_of_inversion(found),
        *filter(None, [_few_windows(spec, found, then)[1]]),
        *_of_scores(found),
        *([describe_score(raw_score)] if raw_score else ()),
        *_of_decisions(found),
        *_of_slices(spec, found),
        *map(describe_group, groups[:_LISTED]),
        *(_of_search(searched) if searched else ()),
        *describe_worth(spec, found),
    ]
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
    effects = found.split.named
    largest = sorted(effects, key=lambda name: -abs(effects[name]))[:_LISTED]
    left = sum(effect for name, effect in effects.items() if name not in largest)
    others = len(effects) - len(largest)
    parts = [f"{name} {signed(effects[name])}" for name in largest]
    parts += [f"the other {others} {signed(left)}"] if others else []
    if abs(found.rest) > _NOT_ROUNDING * abs(found.change):
        parts.append(f"not explained {signed(found.rest)}")
    return f"{text}: {', '.join(parts)}."


def cause(spec: ModelSpec, found: Explained) -> str:
    """Say in one sentence what made a metric worse, as far as the trace knows a cause.

    Args:
        spec: The model.
        found: What `explain.explain` returned.

    Returns:
        The first that holds: scores or labels are inverted, a few windows did it, a slice stands
        out, scores mean something else or lie elsewhere, decisions changed. Empty if nothing got
        worse, or none of it is known.
    """
    if not found.is_worse:
        return ""
    kind, few = _few_windows(spec, found, "")
    standing, _ = _standing_out(spec, found)
    causes = [*_of_inversion(found)]
    causes += [few] if kind in ("most", "part") else []
    causes += standing
    if found.metric == AREA and found.scores and found.scores.split is not None:
        causes.append(_law_and_meaning(found, found.scores.split))
    causes += [_decided(*item) for item in found.decisions.items() if item[0] == found.metric]
    return next(iter(causes), "")


def _is_more_than_chance(found: Explained) -> bool | None:
    """Say whether the change is real; None if the windows are too few to tell."""
    if math.isnan(found.p_value):
        return None
    return found.p_value <= Q


def _headline(found: Explained, now: str, then: str) -> str:
    name = named(found.metric)
    ends = f"{signed(found.change - found.margin)} to {signed(found.change + found.margin)}"
    text = (
        f"{name} of {now} is {value(found.now.value)}, of {then} {value(found.then.value)}: "
        f"{signed(found.change)}"
    )
    sizes = f"{found.now.n:,} rows of {counted(found.now.windows, 'window')}"
    sizes += f" against {found.then.n:,} of {counted(found.then.windows, 'window')}"
    is_real = _is_more_than_chance(found)
    if is_real is None:
        return (
            f"{text} ({sizes}). A side has fewer than eight windows, too few to show how much "
            "windows vary: whether this is chance is not known."
        )
    chance = f"{found.p_value:.2f}" if found.p_value >= 0.005 else "under .005"
    verdict = "more than chance" if is_real else "which may be chance"
    verdict += f" (p {chance.lstrip('0')})"
    return f"{text} ({ends} between windows; {sizes}), {verdict}."


def _of_weighing(found: Explained) -> Iterator[str]:
    """Say that the values are of all predictions, and their parts of some."""
    if found.is_weighted:
        yield (
            f"{weighted_text(METHOD, None)}. What follows splits the change of the rows that have "
            "ground truth."
        )


def _of_chance(found: Explained) -> Iterator[str]:
    """Say what the other sentences are worth if nothing has to have changed."""
    if _is_more_than_chance(found) is False:
        yield "So what follows says where the difference lies, not that anything caused it."


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
    """Return how much of a change the worst windows are, and the sentence; empty if not known."""
    frame = found.windows
    if len(frame) <= 2 * _LISTED or math.isnan(found.without) or not found.change:
        return "", ""
    # Without its worst windows any period is better; what counts is by how much more than usual.
    gained = (found.without - found.now.value) / -found.change
    usual = (found.without_then - found.then.value) / -found.change
    restored = gained - max(0.0 if math.isnan(usual) else usual, 0.0)
    days = _windows_named(spec, list(frame["window_start"][:_LISTED]))
    name = named(found.metric)
    without = f"without them {name} is {value(found.without)}"
    if restored >= _LARGE:
        return "most", f"{_capital(days)} did most of it: {without}."
    if restored >= _SOME:
        rest = "the rest is spread over the others"
        return "part", f"{_capital(days)} did a part of it: {without}; {rest}."
    return "none", (
        f"No few windows did it: without the worst ones, {days}, {name} is "
        f"{value(found.without)}, no more than the worst ones of {then} weigh."
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
        yield _law_and_meaning(found, scores.split)


def _law_and_meaning(found: Explained, split: Split) -> str:
    law, meaning = (
        f"{_share(effect, found.change, margin)} ({signed(effect)}{_give_or_take(margin)})"
        for effect, margin in zip(split.effects.tolist(), split.margins.tolist(), strict=True)
    )
    return (
        f"Of the change, shifted scores explain {law}, and what a score means now "
        f"explains {meaning}."
    )


def _promise(scores: Scores) -> str:
    return (
        f"Scores promised {scores.mean:.1%} on average and {scores.rate:.1%} came true; before, "
        f"they promised {scores.mean_then:.1%} and {scores.rate_then:.1%} came true."
    )


def _of_decisions(found: Explained) -> Iterator[str]:
    """Say what became of the decisions."""
    for metric, decided in found.decisions.items():
        yield _decided(metric, decided)
        if (other := decided.threshold) and other.gain > _WORTH_IT * abs(other.value):
            name = named(metric)
            yield (
                f"A threshold of {other.better:.2f} instead of {other.now:.2f} would have given "
                f"{name} {value(other.would_be)} instead of {value(other.value)}, in windows that "
                "did not choose it."
            )


def _decided(metric: str, decided: Decided) -> str:
    parts = [
        f"{player} from {value(then)} to {value(now)} ({signed(effect)})"
        for player, now, then, effect in zip(
            _PLAYERS, decided.rates, decided.rates_then, decided.split.effects, strict=True
        )
    ]
    name, change = named(metric), signed(decided.split.change)
    return f"{name} of the decisions changed by {change}: {joined(parts)}."


def _of_slices(spec: ModelSpec, found: Explained) -> Iterator[str]:
    """Say whether a slice stands out, key by key."""
    standing, others = _standing_out(spec, found)
    yield from standing
    if others and _is_more_than_chance(found) is None:
        yield (
            f"Whether one value of {joined(others)} is the cause is not known: it takes eight "
            "windows to show what is chance. The table has what each adds."
        )
    elif others:
        yield f"No value of {joined(others)} adds more than its rows, beyond chance."


def _standing_out(spec: ModelSpec, found: Explained) -> tuple[list[str], list[str]]:
    """Return a sentence of each slice key that has values which stand out, and the other keys."""
    said, spread = list[str](), list[str]()
    for key in [",".join(names) for names in spec.slices]:
        parts = _list_parts(found, key)
        if parts is None or not found.change:
            continue
        standing = [
            f"{part.name} with {signed(part.effect)} ({share:.0%} of the change, "
            f"{part.rows:.0%} of the rows)"
            for part in sorted(parts, key=lambda part: -part.effect / found.change)
            if (share := part.effect / found.change) >= _SOME
            and share >= _CONCENTRATED * part.rows
            and abs(part.effect - part.rows * found.change) > part.margin
        ]
        if standing:
            said.append(f"By {key} it is above all {joined(standing[:_LISTED])}.")
        else:
            spread.append(key)
    return said, spread


class _Part(NamedTuple):
    """What a value of a slice key adds to a change, its share of the rows, and the margin."""

    name: str
    effect: float
    rows: float
    margin: float


def _list_parts(found: Explained, key: str) -> list[_Part] | None:
    frame = found.slices[found.slices["slice_key"] == key]
    if frame.empty:
        return None
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
        return None
    return [_Part(name, effect, rows.get(name, 0.0), margin) for name, effect, margin in parts]


def describe_group(group: Alike) -> str:
    """Say which rows that are alike are worse, and which of them to read."""
    words = f"their words are {joined(group.words)}; " if group.words else ""
    return (
        f"{percent(group.share)} of the rows are alike by {group.column} (in the baseline "
        f"{percent(group.usual)}) and {group.found.excess * 100:.0f} points worse than the others; "
        f"{words}typical are {joined(group.typical[:_LISTED])}."
    )


def _of_search(searched: Searched) -> Iterator[str]:
    """Say which rows are worse, beside rows like them, than in the baseline, if any slice is."""
    for picked, found in searched.slices[:_LISTED]:
        more = f"{found.excess * 100:.0f} points more often"
        margin = f"{found.margin * 100:.0f}"
        if not searched.is_share:
            more, margin = f"by {value(found.excess)} more", value(found.margin)
        yield (
            f"Rows where {to_text(picked)} {searched.means} {more} than in the baseline, beside "
            f"other rows like them (give or take {margin}; {found.n:,} rows of "
            f"{counted(found.windows, 'window')} that did not propose them)."
        )
    if not searched.slices:
        yield (
            f"No slice by up to three of {counted(len(searched.columns), 'feature')} got worse by "
            "itself: what one half of the windows suggests, the other half does not confirm."
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


def joined(parts: Sequence[str]) -> str:
    """Write a list as people do: ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _share(effect: float, change: float, margin: float) -> str:
    part = effect / change if change else 0.0
    if abs(part) < 0.5 and abs(effect) <= margin:
        return "nothing for sure"
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


def _give_or_take(margin: float) -> str:
    return "" if math.isnan(margin) else f", give or take {value(margin)}"
