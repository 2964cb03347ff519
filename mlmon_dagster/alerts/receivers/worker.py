"""From the outbox to receivers: every message once, in order, whatever breaks in between."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import random
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmon_dagster.alerts.messages.message import PLOT, fallback_row
from mlmon_dagster.alerts.receivers.base import (
    ConsoleReceiver,
    Delivery,
    NotPosted,
    Outcome,
    Posted,
    Receiver,
    Refused,
    Unclear,
)
from mlmon_dagster.spec.alerting import address_problem
from mlmon_dagster.store import Store, outbox
from mlmon_dagster.store.bounded_http import open_within
from mlmon_dagster.store.clocks import LONGEST_LEASE, Clock
from mlmon_dagster.store.outbox import Claim, outbox_health
from mlmon_dagster.store.state import writing
from mlmon_dagster.store.state.sql import Row

# Longer together than another worker's request may take.
_LOOKS_AFTER_A_LOST_LEASE, _LOOK_SECONDS = 50, 0.3
_MAX_PLOT_ATTEMPTS = 5
# What goes with a message: nothing that waits is held up by it, and losing it loses no news.
_COMPANIONS = ("head", PLOT)
CONSOLE = "console"


@dataclass(frozen=True)
class DeliveryPolicy:
    """Waiting times, all real time.

    Attributes:
        lease: How long a claimed message is left to its worker; longer than any request.
        first_backoff_seconds: Wait after the first failure; doubles, with full jitter.
        longest_backoff_seconds: Where doubling ends.
        settle_seconds: Wait before a message of unclear fate is looked up, since a channel's
            history may lag.
        pace_seconds: Least time between two messages of a channel; Slack asks for one second.
        idle_seconds: Longest wait for the next message inside one call.
        longest_pause_seconds: Longest pause of a channel that fails; it begins at the pace and
            doubles with each failure.
    """

    lease: dt.timedelta = LONGEST_LEASE
    first_backoff_seconds: float = 5.0
    longest_backoff_seconds: float = 900.0
    settle_seconds: float = 10.0
    pace_seconds: float = 1.0
    idle_seconds: float = 1.5
    longest_pause_seconds: float = 60.0


@dataclass
class DeliveryReport:
    """What one call of ``deliver`` did."""

    n_sent: int = 0
    n_dead: int = 0
    n_waiting: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass
class Worker:
    """Takes one message at a time; see ``deliver``."""

    store: Store
    receivers: Mapping[str, Receiver]
    policy: DeliveryPolicy
    clock: Clock
    jitter: Callable[[], float] = random.random
    report: DeliveryReport = field(default_factory=DeliveryReport)
    looked_at: dt.datetime | None = None  # when the queue was last asked
    owner: str = field(
        default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    )

    def attempt_next(self) -> bool:
        """Take one message to an end; False if none may go now."""
        self.looked_at = self.clock()
        claim = outbox.claim_next(
            self.store.state,
            owner=self.owner,
            receivers=sorted(self.receivers),
            now=self.looked_at,
            lease=self.policy.lease,
        )
        if claim is None:
            return False
        writing.reached("deliver.claimed")
        outcome = self._try_claim(claim)
        if outcome is None:
            return True
        writing.reached("deliver.posted")
        self._settle(claim, outcome)
        writing.reached("deliver.settled")
        return True

    def wait_for_next(self, deadline: float) -> bool:
        """Wait a moment if a message becomes due soon, such as the next of a paced channel."""
        due = outbox.next_due(self.store.state, sorted(self.receivers))
        # Due then and yet not claimed: it waits for another worker or for its thread's head.
        if due is None or (self.looked_at is not None and due <= self.looked_at):
            return False
        seconds = max((due - self.clock()).total_seconds(), 0.0)
        left = deadline - time.monotonic()
        if seconds > min(self.policy.idle_seconds, left):
            return False
        time.sleep(seconds)
        return True

    def _try_claim(self, claim: Claim) -> Outcome | None:
        receiver = self.receivers[claim.row["receiver"]]
        delivery = self._read_delivery(claim)
        if claim.is_lookup:
            since = outbox.searched_since(claim.row, self.clock())
            outcome = receiver.look_up(delivery, since)
            writing.reached("deliver.looked_up")
            if isinstance(outcome, NotPosted) and delivery.kept_ts:
                # It was there, so whatever became of it since, it is not posted again.
                return Posted(delivery.kept_ts, claim.row["slack_channel"])
            return outcome
        if claim.row["kind"] in _COMPANIONS and not (delivery.update_ts or delivery.thread_ts):
            # Where nothing can be changed, such as a terminal, there is nothing left to do.
            is_told = claim.head is not None and claim.head["status"] == "sent"
            return Refused("" if is_told else "the message that it goes with was never posted")
        if not outbox.renew(self.store.state, claim, self.clock(), self.policy.lease):
            return None  # frozen since the claim: another worker has it now
        writing.reached("deliver.fenced")
        return receiver.send(delivery)

    def _read_delivery(self, claim: Claim) -> Delivery:
        row, head = claim.row, claim.head
        head_ts = head["slack_ts"] if head else ""
        channel_id = head["slack_channel"] if head else ""
        is_update = row["kind"] == "head"
        if claim.is_lookup and not channel_id:
            channel_id = outbox.known_channel_id(self.store.state, row["channel"])
        return Delivery(
            idempotency_key=row["idempotency_key"],
            channel=row["channel"],
            channel_id=channel_id,
            payload=json.loads(row["payload"]),
            thread_ts="" if is_update else head_ts,
            update_ts=head_ts if is_update else "",
            kept_ts=row["slack_ts"],
        )

    def _settle(self, claim: Claim, outcome: Outcome) -> None:
        match outcome:
            case Posted():
                self._settle_posted(claim, outcome)
            case NotPosted():
                self._settle_not_posted(claim, outcome)
            case Unclear():
                self._settle_unclear(claim, outcome)
            case Refused():
                self._settle_refused(claim, outcome)

    def _settle_posted(self, claim: Claim, outcome: Posted) -> None:
        self._count_failures(claim, is_failure=False)
        if outcome.ts:
            self._close_gate(claim, self.policy.pace_seconds)
        values: dict[str, Any] = {
            "slack_ts": outcome.ts,
            "slack_channel": outcome.channel_id,
            "sent_at": claim.row["sent_at"] or self.clock(),  # it may be looked up again
        }
        if outbox.settle(self.store.state, claim, "sent", error="", **values):
            self.report.n_sent += 1
        elif outcome.ts and claim.row["kind"] != "head":
            self._settle_late(claim, outcome, values)

    def _settle_late(self, claim: Claim, outcome: Posted, values: Mapping[str, object]) -> None:
        """Settle a post that ended after its lease: keep one copy, whoever posted it.

        While another worker is at the row, its outcome is waited for. A row of unclear fate will
        be looked up, and whoever does that finds this copy too: so a row that is settled is to be
        looked up again if this copy cannot be deleted now.
        """
        for row in self._watch_others(claim):
            if row["slack_ts"] == outcome.ts:
                return
            if row["status"] in ("sent", "superseded"):
                receiver = self.receivers[claim.row["receiver"]]
                retracted = receiver.retract(self._read_delivery(claim), outcome)
                is_left = isinstance(retracted, Unclear)
                if isinstance(retracted, Refused) or (is_left and not self._look_again(row)):
                    self._note_error("a message was posted twice after a worker had been frozen")
                return
            if outbox.adopt(self.store.state, claim.row["id"], **values):
                self.report.n_sent += 1
                return

    def _watch_others(self, claim: Claim) -> Iterator[Row]:
        """Yield a row whose lease was lost, again and again while another worker is at it.

        It ends where nobody is: the row is gone, or to be looked up. After long it says so.
        """
        for _ in range(_LOOKS_AFTER_A_LOST_LEASE):
            row = outbox.get_message(self.store.state, claim.row["id"])
            if row is None or row["status"] == "unknown":
                return
            yield row
            time.sleep(_LOOK_SECONDS)
        self._note_error("a message may be posted twice: a worker was frozen past its lease")

    def _settle_refused(self, claim: Claim, outcome: Refused) -> None:
        self._count_failures(claim, is_failure=False)
        # An update of a head that is gone is no loss: the thread has the news.
        status = "superseded" if claim.row["kind"] in _COMPANIONS else "dead"
        copy = fallback_row(claim.row, outcome.error) if status == "dead" else None
        settled = outbox.settle(self.store.state, claim, status, copy=copy, error=outcome.error)
        if settled and status == "dead":
            self.report.n_dead += 1
        if outcome.error:
            self._note_error(outcome.error)

    def _settle_not_posted(self, claim: Claim, outcome: NotPosted) -> None:
        if claim.row["kind"] == PLOT and claim.row["attempts"] >= _MAX_PLOT_ATTEMPTS:
            self._settle_refused(claim, Refused(outcome.error))
            return
        if outcome.wait_seconds is not None:
            self._close_gate(claim, outcome.wait_seconds)
        else:
            self._count_failures(claim, is_failure=not claim.is_lookup)
        # Absent from the history: nothing failed just now, so it can go at once.
        wait = 0.0 if claim.is_lookup else self._find_backoff(claim)
        if outcome.wait_seconds is not None:  # the gate holds it, but a plot closes none
            wait = outcome.wait_seconds if claim.row["kind"] == PLOT else 0.0
        outbox.settle(
            self.store.state, claim, "queued", error=outcome.error, next_at=self._add_seconds(wait)
        )
        self._note_error(outcome.error)

    def _settle_unclear(self, claim: Claim, outcome: Unclear) -> None:
        if outcome.wait_seconds is not None:
            self._close_gate(claim, outcome.wait_seconds)
        else:
            self._count_failures(claim, is_failure=True)
        # An update may be repeated freely; what was posted must be looked up.
        status = "queued" if claim.row["kind"] == "head" else "unknown"
        wait = self._find_backoff(claim) if claim.is_lookup else self.policy.settle_seconds
        settled = outbox.settle(
            self.store.state, claim, status, error=outcome.error, next_at=self._add_seconds(wait)
        )
        self._note_error(outcome.error)
        if not settled and not claim.is_lookup and claim.row["kind"] != "head":
            self._look_late(claim)

    def _look_late(self, claim: Claim) -> None:
        """Have a copy looked for that may come after all, when another worker has posted as well.

        It looked when this one's post was not there yet, and would not look again.
        """
        for row in self._watch_others(claim):
            # Another worker may take a queued row just now: then its end is waited for.
            if row["status"] in ("superseded", "dead") or self._look_again(row):
                return

    def _look_again(self, row: Row) -> bool:
        """Have a message looked up, sent or not; False if it is withdrawn or another is at it."""
        due = self._add_seconds(self.policy.settle_seconds)
        return outbox.look_up_again(self.store.state, row["id"], due)

    def _count_failures(self, claim: Claim, *, is_failure: bool) -> None:
        """Count failures of the channel; from the third on its pause grows."""
        if claim.row["kind"] == PLOT:
            return
        channel = claim.row["channel"]
        n = outbox.count_outcome(self.store.state, channel, is_failure=is_failure)
        writing.reached("deliver.counted")
        if n >= outbox.FAILING:
            pause = self.policy.pace_seconds * 2.0 ** min(n - outbox.FAILING, 20)
            self._close_gate(claim, min(pause, self.policy.longest_pause_seconds))

    def _find_backoff(self, claim: Claim) -> float:
        exponent: int = min(claim.row["attempts"] - 1, 20)
        doubled = self.policy.first_backoff_seconds * 2.0**exponent
        return min(doubled, self.policy.longest_backoff_seconds) * self.jitter()

    def _add_seconds(self, seconds: float) -> dt.datetime:
        return self.clock() + dt.timedelta(seconds=seconds)

    def _close_gate(self, claim: Claim, seconds: float) -> None:
        if seconds > 0 and claim.row["kind"] != PLOT:
            pause = dt.timedelta(seconds=seconds)
            outbox.close_gate(self.store.state, claim.row["channel"], self.clock(), pause)

    def _note_error(self, error: str) -> None:
        if error not in self.report.errors:
            self.report.errors.append(error)


def deliver(
    store: Store,
    receivers: Mapping[str, Receiver],
    *,
    budget_seconds: float = 40.0,
    max_messages: int = 20,
    policy: DeliveryPolicy | None = None,
    clock: Clock | None = None,
    jitter: Callable[[], float] = random.random,
) -> DeliveryReport:
    """Send what is due.

    Safe to run in many processes at once and to be killed at any moment.

    Args:
        store: Where the state database is.
        receivers: By name (``slack``, ``console``). Messages for Slack are printed on the console
            receiver if there is no Slack.
        budget_seconds: Real time after which no further message is begun.
        max_messages: Attempts after which the call ends.
        policy: Waiting times.
        clock: Real time; by default that of the database, whatever this machine's clock says.
        jitter: Numbers in [0, 1) that spread retries.
    """
    worker = Worker(
        store, _complete_receivers(receivers), policy or DeliveryPolicy(), clock or store.clock
    )
    worker.jitter = jitter
    deadline = time.monotonic() + budget_seconds
    attempts = 0
    while attempts < max_messages and time.monotonic() < deadline:
        if worker.attempt_next():
            attempts += 1
        elif not worker.wait_for_next(deadline):
            break
    worker.report.n_waiting = outbox_health(store.state).n_waiting
    return worker.report


def _complete_receivers(receivers: Mapping[str, Receiver]) -> dict[str, Receiver]:
    console = receivers.get(CONSOLE) or ConsoleReceiver()
    return {"slack": console, CONSOLE: console, **receivers}


TIMEOUT_SECONDS = 5


def ping(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """Ask for an address; return what went wrong, empty if nothing.

    The address itself is a secret and is not repeated.
    """
    if problem := address_problem(url):
        return f"MLMON_HEARTBEAT_URL: {problem}"
    request = urllib.request.Request(url, headers={"User-Agent": "mlmon-dagster"})
    try:
        with open_within(request, timeout_seconds) as answer:
            answer.read(64)
    except urllib.error.HTTPError as error:
        error.close()
        return f"the heartbeat's address answered HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return f"the heartbeat's address cannot be reached: {type(reason).__name__}"
    return ""
