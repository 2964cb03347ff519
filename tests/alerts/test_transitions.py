"""The state machine, transition by transition."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.alerts.lifecycle.transitions import (
    AlertState,
    Status,
    Step,
    Verdict,
    resolve,
    step,
)

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NAMES: dict[str, Status] = {"P": "OK", "W": "WARN", "E": "ERROR", "-": "NO_DATA"}


def verdict(window: int, letter: str, result_id: int | None = None) -> Verdict:
    start = START + dt.timedelta(days=window)
    return Verdict(start, NAMES[letter], window + 1 if result_id is None else result_id)


def play(letters: str, k: int = 1, n: int = 1) -> tuple[AlertState, list[str]]:
    alert, events = AlertState(), []
    for window, letter in enumerate(letters):
        alert, happened, _ = step(alert, verdict(window, letter), k=k, n=n)
        events += happened
    return alert, events


def revise(letters: str, window: int, letter: str, k: int = 1, n: int = 1) -> Step:
    alert, _ = play(letters, k, n)
    return step(alert, verdict(window, letter, result_id=100), k=k, n=n)


@pytest.mark.parametrize(
    ("k", "n", "letters", "state", "events"),
    [
        # from OK
        (1, 1, "P", "OK", []),
        (1, 1, "E", "FIRING", ["opened"]),
        (2, 3, "E", "PENDING", []),
        (1, 1, "-", "OK", []),
        # from PENDING
        (2, 3, "EP", "PENDING", []),
        (2, 3, "EPP", "OK", []),
        (2, 3, "EPE", "FIRING", ["opened"]),
        (2, 3, "E-E", "FIRING", ["opened"]),
        (2, 3, "E-", "PENDING", []),
        (3, 3, "EEP", "OK", []),
        (3, 3, "EEE", "FIRING", ["opened"]),
        (2, 3, "EPPE", "PENDING", []),
        # from FIRING
        (1, 1, "EP", "OK", ["opened", "resolved"]),
        (1, 1, "EE", "FIRING", ["opened"]),
        (1, 1, "E-", "FIRING", ["opened"]),
        (1, 1, "WE", "FIRING", ["opened", "escalated"]),
        (1, 1, "WEWE", "FIRING", ["opened", "escalated"]),
        (1, 1, "EW", "FIRING", ["opened"]),
        (2, 3, "EEP", "RECOVERING", ["opened"]),
        (3, 3, "EEEP", "OK", ["opened", "resolved"]),
        (1, 3, "EPP", "RECOVERING", ["opened"]),
        # from RECOVERING
        (2, 3, "EEPP", "OK", ["opened", "resolved"]),
        (2, 3, "EEP-", "RECOVERING", ["opened"]),
        (2, 3, "EEPE", "FIRING", ["opened"]),
        (2, 3, "WWPE", "FIRING", ["opened", "escalated"]),
        (2, 3, "EEPEPEP", "RECOVERING", ["opened"]),
        (1, 3, "EPPP", "OK", ["opened", "resolved"]),
        # a later episode announces its severity anew
        (1, 1, "EPW", "FIRING", ["opened", "resolved", "opened"]),
        (1, 1, "EPWE", "FIRING", ["opened", "resolved", "opened", "escalated"]),
        (2, 3, "EEPPE", "PENDING", ["opened", "resolved"]),
    ],
)
def test_each_transition(k: int, n: int, letters: str, state: str, events: list[str]) -> None:
    alert, happened = play(letters, k, n)

    assert (alert.state, happened) == (state, events)
    assert alert.episode == happened.count("opened")


@pytest.mark.parametrize(
    ("letters", "window", "letter", "state", "events"),
    [
        ("E", 0, "P", "OK", ("revised", "resolved")),
        ("EE", 1, "P", "OK", ("revised", "resolved")),
        ("P", 0, "E", "FIRING", ("opened",)),
        ("EP", 1, "E", "FIRING", ("opened",)),
        ("W", 0, "E", "FIRING", ("escalated",)),
        ("E", 0, "W", "FIRING", ()),
        ("E", 0, "E", "FIRING", ()),
        ("E", 0, "-", "FIRING", ()),
        ("EE", 0, "P", "FIRING", ()),
        ("PP", 0, "E", "OK", ()),
    ],
)
def test_a_revised_verdict(
    letters: str, window: int, letter: str, state: str, events: tuple[str, ...]
) -> None:
    after = revise(letters, window, letter)

    assert (after.after.state, after.events) == (state, events)


def test_a_revision_that_reopens_a_recovery_is_told() -> None:
    after = revise("EEP", 2, "E", k=2, n=3)

    assert (after.after.state, after.events) == ("FIRING", ("revised",))


def test_a_revision_may_let_an_episode_recover_without_ending_it() -> None:
    after = revise("EE", 1, "P", k=2, n=3)

    assert (after.after.state, after.events) == ("RECOVERING", ("revised",))


def test_an_older_failure_that_comes_late_completes_k_of_n() -> None:
    alert, _ = play("P", k=2, n=3)
    newest, _, _ = step(alert, verdict(3, "E"), k=2, n=3)
    late, events, is_newest = step(newest, verdict(2, "E", result_id=50), k=2, n=3)

    assert (newest.state, late.state) == ("PENDING", "FIRING")
    assert (events, is_newest) == (("opened",), False)


@pytest.mark.parametrize(
    ("newest", "late", "state"),
    [("P", "E", "OK"), ("W", "E", "FIRING"), ("E", "P", "FIRING")],
    ids=["newest passes", "no escalation", "no recovery"],
)
def test_an_older_window_that_comes_late_ends_and_worsens_nothing(
    newest: str, late: str, state: str
) -> None:
    alert, _ = play("P", k=1, n=3)
    before, _, _ = step(alert, verdict(3, newest), k=1, n=3)
    after, events, is_newest = step(before, verdict(2, late, result_id=50), k=1, n=3)

    assert (after.state, after.severity) == (before.state, before.severity)
    assert (after.state, events, is_newest) == (state, (), False)


def test_a_result_older_than_the_one_known_for_its_window_is_nothing() -> None:
    alert, _, _ = step(AlertState(), verdict(0, "P", result_id=7))

    assert step(alert, verdict(0, "E", result_id=3)).after == alert


def test_ending_from_outside_resolves_only_what_is_active() -> None:
    assert resolve(play("E")[0]).events == ("resolved",)
    pending = resolve(play("E", 2, 3)[0])
    assert (pending.after.state, pending.events) == ("OK", ())


histories = st.lists(st.sampled_from("PWE-"), max_size=12)
windows = st.sampled_from([(1, 1), (2, 3), (3, 3), (1, 3), (3, 5)])


@given(histories, windows)
def test_repeating_every_verdict_changes_nothing(letters: list[str], kn: tuple[int, int]) -> None:
    k, n = kn
    once, events = play("".join(letters), k, n)
    again = once
    for window, letter in enumerate(letters):
        again, happened, _ = step(again, verdict(window, letter), k=k, n=n)
        assert not happened

    assert again.state == once.state
    assert again.episode == events.count("opened")


@given(histories, windows)
def test_no_data_is_as_if_the_window_had_not_been(letters: list[str], kn: tuple[int, int]) -> None:
    with_gaps, events = play("".join(letters), *kn)
    without, same_events = play("".join(x for x in letters if x != "-"), *kn)

    assert (with_gaps.state, events) == (without.state, same_events)


@given(st.permutations(list(enumerate("EPWEPPE"))), windows)
def test_the_memory_of_windows_does_not_depend_on_their_order(
    order: list[tuple[int, str]], kn: tuple[int, int]
) -> None:
    alert = AlertState()
    for window, letter in order:
        alert = step(alert, verdict(window, letter), k=kn[0], n=kn[1]).after

    assert alert.recent == play("EPWEPPE", *kn)[0].recent


@given(histories, windows)
def test_opened_and_resolved_alternate(letters: list[str], kn: tuple[int, int]) -> None:
    alert, events = play("".join(letters), *kn)
    ends = [event for event in events if event in ("opened", "resolved")]

    assert ends == ["opened", "resolved"] * (len(ends) // 2) + ["opened"] * (len(ends) % 2)
    assert alert.active == bool(len(ends) % 2)


@pytest.mark.parametrize(
    ("k", "n", "letters", "first", "last"),
    [
        (1, 1, "PE", 1, 1),
        (2, 3, "PEE", 1, 2),
        (2, 3, "EPE", 0, 2),
        (3, 5, "EPEPE", 0, 4),
        (3, 5, "PE-EE", 1, 4),
        (2, 3, "EEPPEE", 4, 5),  # the episode before is over
        (2, 5, "EPPPPEE", 5, 6),  # four passes: it cannot count any more
        (2, 3, "PEEPE", 1, 4),
    ],
)
def test_an_episode_begins_with_the_first_failing_window_of_those_that_opened_it(
    k: int, n: int, letters: str, first: int, last: int
) -> None:
    """Since is the first bad day, not the day that completed 2 of 3."""
    alert, _ = play(letters, k, n)

    assert alert.first == START + dt.timedelta(days=first)
    assert alert.last == START + dt.timedelta(days=last)


# Evidence: how far past the limit a window is, in units of it

Told = tuple[str, float | None, float | None]


def measured(windows: Sequence[Told], k: int = 1, n: int = 1) -> list[tuple[str, int]]:
    """Return what happened in which window; each is (letter, excess, half its 95 % interval)."""
    alert, happened = AlertState(), []
    for window, (letter, excess, error) in enumerate(windows):
        told = verdict(window, letter)._replace(excess=excess, excess_error=error)
        alert, events, _ = step(alert, told, k=k, n=n)
        happened += [(event, window) for event in events]
    return happened


BAD, JUST, NEAR, GOOD = ("E", 1.0, 0.2), ("E", 0.1, 0.2), ("P", -0.2, 0.3), ("P", -0.9, 0.2)
FAR, NOTHING = ("E", 9.0, 0.3), ("-", None, None)
BLIND_BAD, BLIND_GOOD = ("E", 3.0, None), ("P", None, None)


@pytest.mark.parametrize(
    ("windows", "happened"),
    [
        # one stretch of failures, then clear passes: over at once
        ([BAD, BAD, BAD, GOOD], [("opened", 0), ("resolved", 3)]),
        # one lucky window is no evidence, nor are some near the limit
        ([BAD, BAD, NEAR, NEAR, BAD], [("opened", 0)]),
        # what comes and goes is one episode, even every seventh window
        ([BAD, GOOD, GOOD, BAD, *[GOOD] * 6, BAD, *[GOOD] * 6], [("opened", 0), ("resolved", 1),
          ("opened", 3)]),
        ([BAD, NEAR, BAD, *[GOOD] * 7], [("opened", 0), ("resolved", 9)]),
        # seven passes near the limit are not over; fourteen are
        ([BAD, *[("P", -0.45, 0.6)] * 13], [("opened", 0)]),
        ([BAD, *[("P", -0.45, 0.6)] * 14], [("opened", 0), ("resolved", 14)]),
        # windows that differ among themselves are as uncertain as wide ones
        ([BAD, BAD, NEAR, *[("P", -1.6, 0.1), ("P", 0.6, 0.1)] * 6], [("opened", 0)]),
        # without evidence the passes are counted
        ([BLIND_BAD, *[BLIND_GOOD] * 13], [("opened", 0)]),
        ([BLIND_BAD, *[BLIND_GOOD] * 14], [("opened", 0), ("resolved", 14)]),
        # what passes without evidence does not count beside what passes clearly
        ([BAD, NEAR, BAD, *[BLIND_GOOD] * 3, *[GOOD] * 6], [("opened", 0)]),
        ([BAD, NEAR, BAD, *[BLIND_GOOD] * 3, *[GOOD] * 7], [("opened", 0), ("resolved", 12)]),
        # past the limit by chance is no recovery from what failed near it
        ([BAD, BAD, *[("P", 0.3, None)] * 13], [("opened", 0)]),
        # but one from what was far off
        ([FAR, FAR, FAR, ("P", 0.3, None)], [("opened", 0), ("resolved", 3)]),
        # a window of few rows that is as far off is no break, one that is better is
        ([FAR, ("P", 7.0, None), FAR, NEAR], [("opened", 0), ("resolved", 3)]),
        ([FAR, NEAR, FAR, NEAR], [("opened", 0), ("resolved", 1), ("opened", 2)]),
        # no verdict is no evidence
        ([BAD, *[NOTHING] * 20], [("opened", 0)]),
        ([BAD, NEAR, NOTHING, BAD, NOTHING, *[GOOD] * 6, NOTHING], [("opened", 0)]),
    ],
)  # fmt: skip
def test_an_episode_ends_on_evidence(windows: list[Told], happened: list[tuple[str, int]]) -> None:
    assert measured(windows) == happened


@pytest.mark.parametrize(
    ("first", "opens"),
    [
        (BAD, True),
        (("E", 0.6, 0.35), True),
        (("E", 0.6, 0.4), False),  # its 95 % interval is beyond the limit, that of 99.9 % is not
        (JUST, False),  # just past the limit
        (("E", 0.6, 0.7), False),  # its interval reaches back
        (BLIND_BAD, False),  # it has none
        (("P", 1.0, 0.2), False),  # the monitor says that it passes
    ],
)
def test_a_severe_window_needs_no_second(first: Told, opens: bool) -> None:
    assert measured([GOOD, first], k=2, n=3) == ([("opened", 1)] if opens else [])


def test_a_lasting_drop_at_the_limit_is_one_episode() -> None:
    noise = np.random.default_rng(1).normal(0, 0.6, 365)
    windows = [("E" if x > 0 else "P", float(x), 0.6) for x in noise]

    assert [event for event, _ in measured(windows, k=2, n=3)] == ["opened"]


def test_a_mended_fault_ends_within_seven_windows() -> None:
    late = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        fault, health = rng.normal(0.4, 0.5, 20), rng.normal(-0.95, 0.3, 40)
        windows = [("E" if x > 0 else "P", float(x), 0.6) for x in [*fault, *health]]
        ends = [at for event, at in measured(windows, k=2, n=3) if event == "resolved"]
        late.append(ends[-1] - 19 if ends else 99)

    assert max(late) <= 7


def test_a_lone_failure_near_the_limit_does_not_keep_a_fault_that_was_far_off() -> None:
    after = [("P", 0.2, None), ("E", 0.4, None), *[("P", 0.1, None)] * 7]

    assert measured([FAR] * 5 + after, k=2, n=3) == [("opened", 0), ("resolved", 13)]


def test_the_last_failure_may_already_be_a_good_window() -> None:
    """What is judged over several windows still fails in the first one after the fault."""
    after = [("E", -1.1, 0.9), ("P", -0.6, 0.9)]

    assert measured([("E", 4.3, 1.0)] * 5 + after) == [("opened", 0), ("resolved", 6)]


def test_the_last_two_failures_may_already_be_good_windows() -> None:
    after = [("E", -1.0, 0.8), ("E", -0.3, 0.8), ("P", -0.7, 0.8)]

    assert measured([("E", 4.3, 1.0)] * 5 + after) == [("opened", 0), ("resolved", 7)]


def test_two_failures_near_the_limit_are_what_has_to_end() -> None:
    after = [("E", 0.4, None), ("E", 0.3, None), *[("P", -0.4, None)] * 13]

    assert measured([FAR] * 5 + after, k=2, n=3) == [("opened", 0)]


def test_a_late_opinion_changes_the_evidence_and_moves_nothing() -> None:
    alert = AlertState()
    for window, (letter, excess, error) in enumerate([BAD, BAD, BAD]):
        told = verdict(window, letter)._replace(excess=excess, excess_error=error)
        alert, _, _ = step(alert, told)
    late, events, _ = step(alert, verdict(1, "P", result_id=50)._replace(excess=-0.9))
    after, ended, _ = step(late, verdict(3, "P")._replace(excess=-0.9, excess_error=0.1))

    assert (events, ended) == ((), ())  # now it came and went
    assert after.state == "RECOVERING"
