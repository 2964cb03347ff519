"""The state machine, transition by transition."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.alerts.lifecycle.transitions import (
    AlertState,
    Episode,
    Opinion,
    Status,
    Verdict,
    failed,
    is_known,
    resolve,
    revise,
    step,
)

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NAMES: dict[str, Status] = {"P": "OK", "W": "WARN", "E": "ERROR", "-": "NO_DATA"}


def verdict(window: int, letter: str, result_id: int | None = None) -> Verdict:
    start = START + dt.timedelta(days=window)
    return Verdict(start, NAMES[letter], window + 1 if result_id is None else result_id)


@dataclass
class Life:
    """An alert that takes verdicts in as they come, and the episodes that people know of.

    Attributes:
        told: What happened, a batch of verdicts after the other.
        standing: The episodes that were not withdrawn, by number.
    """

    k: int = 1
    n: int = 1
    alert: AlertState = field(default_factory=AlertState)
    opinions: dict[dt.datetime, Opinion] = field(default_factory=dict)
    standing: dict[int, Episode] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def take(self, *verdicts: Verdict) -> list[str]:
        """Take in a batch, in the order of windows; return what happened."""
        happened: list[str] = []
        late = {}
        for one in sorted(verdicts, key=lambda v: (v.window_start, v.result_id)):
            if one.status == "NO_DATA":
                continue
            if is_known(self.alert, one.window_start):
                old = self.opinions.get(one.window_start)
                if old is None or old.verdict._replace(result_id=one.result_id) != one:
                    late[one.window_start] = Opinion(one, self.k, self.n)
                continue
            happened += self._revise(late) + self._step(one)
            late = {}
        happened += self._revise(late)
        self.told += happened
        return happened

    def _step(self, one: Verdict) -> list[str]:
        self.opinions[one.window_start] = Opinion(one, self.k, self.n)
        self.alert, events = step(self.alert, one, k=self.k, n=self.n)
        alert = self.alert
        if alert.episode and (alert.active or "resolved" in events):
            assert alert.first is not None
            assert alert.last is not None
            before = self.standing.get(alert.episode)
            self.standing[alert.episode] = Episode(
                alert.episode,
                alert.first,
                alert.last,
                one.window_start if "resolved" in events else None,
                alert.severity,
                before.opened_in if before else one.window_start,
            )
        return list(events)

    def _revise(self, late: dict[dt.datetime, Opinion]) -> list[str]:
        if not late:
            return []
        self.opinions |= late
        known = [self.opinions[w] for w in sorted(self.opinions)]
        episodes = [self.standing[number] for number in sorted(self.standing)]
        self.alert, changes = revise(self.alert, episodes, known, set(late))
        for change in changes:
            self.standing[change.episode.number] = change.episode
            if change.kind == "withdrawn":
                del self.standing[change.episode.number]
        if self.alert.active:  # where it began and last failed is kept with the alert
            assert self.alert.first is not None
            assert self.alert.last is not None
            known_as = self.standing[self.alert.episode]
            self.standing[self.alert.episode] = known_as._replace(
                first=self.alert.first, last=self.alert.last
            )
        return [f"{c.kind}{' late' if c.is_late else ''}" for c in changes]


def play(letters: str, k: int = 1, n: int = 1) -> tuple[AlertState, list[str]]:
    alert, events = AlertState(), []
    for window, letter in enumerate(letters):
        alert, happened = step(alert, verdict(window, letter), k=k, n=n)
        events += happened
    return alert, events


def live(letters: str, k: int = 1, n: int = 1) -> Life:
    life = Life(k, n)
    for window, letter in enumerate(letters):
        life.take(verdict(window, letter))
    return life


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
        # of three windows two open an episode
        ("EEP 2 of 3", 2, "E", "FIRING", ["revised"]),
        ("EEE 2 of 3", 2, "P", "RECOVERING", ["revised"]),
        ("EE 2 of 3", 1, "P", "PENDING", ["resolved", "withdrawn"]),
        ("EEPP 2 of 3", 3, "E", "FIRING", ["opened"]),  # it goes on after all
        ("P-PE 2 of 3", 1, "E", "FIRING", ["opened"]),
        # the newest window
        ("E", 0, "P", "OK", ["resolved", "withdrawn"]),
        ("EE", 1, "P", "OK", ["revised", "resolved"]),
        ("P", 0, "E", "FIRING", ["opened"]),
        ("EP", 1, "E", "FIRING", ["opened"]),
        ("W", 0, "E", "FIRING", ["escalated"]),
        ("E", 0, "W", "FIRING", []),
        ("E", 0, "E", "FIRING", []),
        ("E", 0, "-", "FIRING", []),
        # older ones
        ("EE", 0, "P", "FIRING", ["revised"]),  # since the second
        ("PE", 0, "E", "FIRING", ["revised"]),  # since the first
        ("EPE", 1, "E", "FIRING", ["revised"]),  # the episode before and this one are one
        ("EEE", 1, "P", "FIRING", []),  # what was told from the first on still goes on
        ("WEE", 0, "E", "FIRING", []),
        ("PPP", 0, "E", "OK", ["opened late", "resolved late"]),
        ("EPP", 0, "P", "OK", ["withdrawn late"]),
        ("EPP", 1, "E", "OK", ["revised late"]),  # it lasted longer
        ("EEP", 0, "P", "OK", ["revised late"]),  # it began later
        ("WPP", 0, "E", "OK", ["revised late"]),  # it was worse
        ("EPPEP", 1, "E", "OK", ["revised late"]),
        ("WPWP", 1, "E", "OK", ["revised late"]),  # two are one now, which is told once
    ],
)
def test_a_revised_verdict(
    letters: str, window: int, letter: str, state: str, events: list[str]
) -> None:
    letters, _, rule = letters.partition(" ")
    life = live(letters, *(map(int, rule.split(" of ")) if rule else (1, 1)))
    happened = life.take(verdict(window, letter, result_id=100))

    assert (life.alert.state, happened) == (state, events)


def test_what_was_ended_from_outside_is_not_opened_again_by_other_news() -> None:
    life = live("PEEE")
    life.alert = resolve(life.alert).after
    ended = life.standing[1]._replace(ended=START + dt.timedelta(days=3))
    life.standing[1] = ended

    assert life.take(verdict(0, "W", 100)) == ["revised late"]
    assert life.alert.state == "OK"


def test_ending_from_outside_resolves_only_what_is_active() -> None:
    assert resolve(play("E")[0]).events == ("resolved",)
    pending = resolve(play("E", 2, 3)[0])
    assert (pending.after.state, pending.events) == ("OK", ())


histories = st.lists(st.sampled_from("PWE-"), max_size=12)
windows = st.sampled_from([(1, 1), (2, 3), (3, 3), (1, 3), (3, 5)])


@given(st.data(), windows)
def test_whatever_is_revised_stands_as_if_it_had_been_so_from_the_beginning(
    data: st.DataObject, kn: tuple[int, int]
) -> None:
    """Every window that a standing episode should hold is told, and none that it should not."""
    letters = data.draw(st.lists(st.sampled_from("PPPWE"), min_size=3, max_size=40))
    life = live("".join(letters), *kn)
    for number in range(data.draw(st.integers(1, 6))):
        news = data.draw(
            st.dictionaries(st.integers(0, len(letters) - 1), st.sampled_from("PWE"), min_size=1)
        )
        life.take(*(verdict(w, letter, 1000 * (number + 1) + w) for w, letter in news.items()))
        for window, letter in news.items():
            letters[window] = letter
        truth = live("".join(letters), *kn)

        assert life.alert.state == truth.alert.state
        if life.alert.active:
            assert life.alert.last == truth.alert.last
        assert_same_is_told(life, truth)
        numbers = [e.number for e in life.standing.values() if e.ended is None]
        assert numbers == ([life.alert.episode] if life.alert.active else [])


def assert_same_is_told(life: Life, truth: Life) -> None:
    """Every window of a true episode is in one that stands, and what stands is within true ones.

    What was told as going on from a window on may be two episodes in truth: it is not taken back.
    """
    held = {w for e in life.standing.values() for w in failing(life, e)}
    assert {w for e in truth.standing.values() for w in failing(truth, e)} <= held
    spans = [(e.first, e.last) for e in truth.standing.values()]
    for episode in life.standing.values():
        for end in (episode.first, episode.last):
            assert any(first <= end <= last for first, last in spans), (episode, spans)


def failing(life: Life, episode: Episode) -> set[dt.datetime]:
    """Return the failing windows from the first to the last of an episode."""
    return {
        w
        for w, o in life.opinions.items()
        if failed(o.verdict.status) and episode.first <= w <= episode.last
    }


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
        alert, events = step(alert, told, k=k, n=n)
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
        # what is judged over several windows still fails in the first ones after the fault
        ([("E", 4.3, 1.0), ("E", -1.1, 0.9), ("P", -0.6, 0.9)], [("opened", 0), ("resolved", 2)]),
        ([*[("E", 4.3, 1.0)] * 5, ("E", -1.0, 0.8), ("E", -0.3, 0.8), ("P", -0.7, 0.8)],
         [("opened", 0), ("resolved", 7)]),
        # no verdict is no evidence
        ([BAD, *[NOTHING] * 20], [("opened", 0)]),
        ([BAD, NEAR, NOTHING, BAD, NOTHING, *[GOOD] * 6, NOTHING], [("opened", 0)]),
    ],
)  # fmt: skip
def test_an_episode_ends_on_evidence(windows: list[Told], happened: list[tuple[str, int]]) -> None:
    assert measured(windows) == happened


def test_a_lone_failure_near_the_limit_does_not_keep_a_fault_that_was_far_off_two_do() -> None:
    one: list[Told] = [*[FAR] * 5, ("P", 0.2, None), ("E", 0.4, None), *[("P", 0.1, None)] * 7]
    two: list[Told] = [*[FAR] * 5, ("E", 0.4, None), ("E", 0.3, None), *[("P", -0.4, None)] * 13]

    assert measured(one, k=2, n=3) == [("opened", 0), ("resolved", 13)]
    assert measured(two, k=2, n=3) == [("opened", 0)]


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


def test_a_late_opinion_changes_the_evidence_and_is_told_only_if_it_moves_the_alert() -> None:
    life = Life()
    for window, (letter, excess, error) in enumerate([BAD, BAD, BAD]):
        life.take(verdict(window, letter)._replace(excess=excess, excess_error=error))
    late = life.take(verdict(1, "P", result_id=50)._replace(excess=-0.9))
    ended = life.take(verdict(3, "P")._replace(excess=-0.9, excess_error=0.1))

    assert (late, ended) == ([], [])  # now it came and went
    assert life.alert.state == "RECOVERING"
