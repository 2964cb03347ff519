"""What the drill's alerts were worth: detected, how late, in how many threads, false alarms."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from benchmarks.drill.faults import Fault
from benchmarks.drill.lane import Episode, Event, Lane

MIN_PRECISION, MIN_RECALL = 0.9, 0.95
NO_VERDICT = "no_verdict/*"  # says that a family could not judge, and why; true while a fault lasts


@dataclass(frozen=True)
class Outcome:
    """How one fault went.

    Attributes:
        fault: Its name; ``none`` for healthy days.
        detected_by: Monitors that named it, in the order of their alerts.
        delay: Windows from the first faulty one to the alert: 0 is at once.
        right: Told alerts that the fault explains.
        false: Told alerts that it does not.
        muted: Alerts that another one explains, and that were not sent.
        families: Families of the told alerts.
        threads: Threads opened.
        messages: Messages sent, reminders and endings among them.
        unresolved: Monitors that still fired after the recovery.
    """

    fault: str
    detected_by: tuple[str, ...]
    delay: int | None
    right: int
    false: tuple[str, ...]
    muted: int
    families: tuple[str, ...]
    threads: int
    messages: int
    unresolved: tuple[str, ...]

    @property
    def has_one_thread_per_incident(self) -> bool:
        """Whether no family of monitors opened a second thread."""
        return self.threads <= len(self.families)


@dataclass(frozen=True)
class Score:
    """How the drill went.

    Attributes:
        outcomes: One per fault, and one per lane for its healthy days.
        precision: Told alerts that a fault explains / told alerts; None without any.
        recall: Faults that a monitor named / faults; None without any.
    """

    outcomes: tuple[Outcome, ...]
    precision: float | None
    recall: float | None

    @property
    def problems(self) -> list[str]:
        """What misses the goals, in words."""
        found = []
        if self.precision is not None and self.precision < MIN_PRECISION:
            found.append(f"precision {self.precision:.2f} is under {MIN_PRECISION}")
        if self.recall is not None and self.recall < MIN_RECALL:
            found.append(f"recall {self.recall:.2f} is under {MIN_RECALL}")
        for outcome in self.outcomes:
            if not outcome.has_one_thread_per_incident:
                found.append(f"{outcome.fault}: {outcome.threads} threads")
            if outcome.unresolved:
                found.append(f"{outcome.fault}: still firing: {', '.join(outcome.unresolved)}")
        return found

    def as_dict(self) -> dict[str, object]:
        """Return everything, for JSON."""
        return {**asdict(self), "problems": self.problems}


def score(lanes: Iterable[Lane], faults: Sequence[Fault]) -> Score:
    """Judge what some lanes lived through."""
    known = {fault.name: fault for fault in faults}
    outcomes = [
        _outcome(episode, known.get(episode.fault), lane.events)
        for lane in lanes
        for episode in lane.episodes
    ]
    order = {name: place for place, name in enumerate(known)}
    outcomes.sort(key=lambda outcome: order.get(outcome.fault, len(order)))
    right = sum(outcome.right for outcome in outcomes)
    told = right + sum(len(outcome.false) for outcome in outcomes)
    tried = [outcome for outcome in outcomes if outcome.fault in known]
    return Score(
        tuple(outcomes),
        right / told if told else None,
        sum(bool(o.detected_by) for o in tried) / len(tried) if tried else None,
    )


def _outcome(episode: Episode, fault: Fault | None, events: Sequence[Event]) -> Outcome:
    # The pass of a night judges the day before: what is told until `until` is this episode's.
    opened = sorted(
        (e for e in events if e.kind == "opened" and _in(e.at.date(), episode)),
        key=lambda event: (event.at, event.monitor),
    )
    told = [event for event in opened if event.is_told]
    named = [e for e in told if fault is not None and matches(e.monitor, fault.found_by)]
    explained = (*fault.found_by, *fault.follows, NO_VERDICT) if fault is not None else ()
    false = [e for e in told if not (matches(e.monitor, explained) and e.window < episode.end)]
    return Outcome(
        fault=episode.fault,
        detected_by=tuple(dict.fromkeys(event.monitor for event in named)),
        delay=(named[0].at.date() - episode.start).days - 1 if named else None,
        right=len(told) - len(false),
        false=tuple(f"{event.monitor} of {event.window}" for event in false),
        muted=len(opened) - len(told),
        families=tuple(sorted({event.monitor.split("/")[0] for event in told})),
        threads=episode.threads,
        messages=episode.messages,
        unresolved=tuple(episode.unresolved),
    )


def _in(night: dt.date, episode: Episode) -> bool:
    return episode.start < night <= episode.until


def matches(monitor: str, patterns: Sequence[str]) -> bool:
    """Tell whether one of the patterns names a monitor; without ``@`` whatever its slice.

    Example:
        >>> matches("drift/psi/age@all", ["drift/*/age"]), matches("a/b@all", ["a/b@region"])
        (True, False)
    """
    return any(fnmatchcase(monitor, p if "@" in p else f"{p}@*") for p in patterns)


def render(found: Score) -> str:
    """Write the score as a table for people."""
    lines = [
        f"{'fault':<20} {'delay':>5} {'alerts':>6} {'false':>5} {'muted':>5} {'threads':>7} "
        f"{'messages':>8}  named by"
    ]
    for outcome in found.outcomes:
        if outcome.fault == "none" and not outcome.false and not outcome.messages:
            continue
        delay = "-" if outcome.delay is None else str(outcome.delay)
        first = ", ".join(name.removesuffix("@all") for name in outcome.detected_by[:2])
        more = f" and {len(outcome.detected_by) - 2} more" if len(outcome.detected_by) > 2 else ""
        by = f"{first}{more}" or ("healthy days" if outcome.fault == "none" else "NOT DETECTED")
        lines.append(
            f"{outcome.fault:<20} {delay:>5} {outcome.right + len(outcome.false):>6} "
            f"{len(outcome.false):>5} {outcome.muted:>5} {outcome.threads:>7} "
            f"{outcome.messages:>8}  {by}"
        )
        lines += [f"{'':<20}       false: {name}" for name in outcome.false]
    return "\n".join([*lines, "", _verdict(found)])


def _verdict(found: Score) -> str:
    tried = [outcome for outcome in found.outcomes if outcome.fault != "none"]
    named = sum(bool(outcome.detected_by) for outcome in tried)
    threads = sum(outcome.threads for outcome in tried)
    text = (
        f"{named} of {len(tried)} faults detected (recall {_share(found.recall)}), "
        f"precision {_share(found.precision)}, {threads} threads"
    )
    if not found.problems:
        return f"{text}; every thread resolved after recovery."
    return "\n".join([f"{text}. Goals missed:", *(f"  {line}" for line in found.problems)])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
