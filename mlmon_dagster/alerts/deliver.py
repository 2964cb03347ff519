"""Outbox to receivers: every message once, in order, whatever breaks in between."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmon_dagster.alerts.console import ConsoleReceiver
from mlmon_dagster.alerts.receivers import (
    Delivery,
    NotPosted,
    Outcome,
    Posted,
    Receiver,
    Refused,
    Unclear,
)
from mlmon_dagster.store import Store, checkpoints, outbox
from mlmon_dagster.store.outbox import Claim

Clock = Callable[[], dt.datetime]

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
    """

    lease: dt.timedelta = dt.timedelta(seconds=60)
    first_backoff_seconds: float = 5.0
    longest_backoff_seconds: float = 900.0
    settle_seconds: float = 10.0
    pace_seconds: float = 1.0
    idle_seconds: float = 1.5


@dataclass
class DeliveryReport:
    """What one call of ``deliver`` did."""

    n_sent: int = 0
    n_retry: int = 0
    n_unclear: int = 0
    n_dead: int = 0
    n_waiting: int = 0
    errors: list[str] = field(default_factory=list)


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
        clock: Real time; for tests.
        jitter: Numbers in [0, 1) that spread retries.
    """
    worker = _Worker(store, _complete(receivers), policy or DeliveryPolicy(), clock or _real_time)
    worker.jitter = jitter
    deadline = time.monotonic() + budget_seconds
    attempts = 0
    while attempts < max_messages and time.monotonic() < deadline:
        if worker.attempt_next():
            attempts += 1
        elif not worker.wait_for_next(deadline):
            break
    worker.report.n_waiting = outbox.outbox_health(store.state).n_waiting
    return worker.report


def _real_time() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _complete(receivers: Mapping[str, Receiver]) -> dict[str, Receiver]:
    console = receivers.get(CONSOLE) or ConsoleReceiver()
    return {"slack": console, CONSOLE: console, **receivers}


@dataclass
class _Worker:
    store: Store
    receivers: Mapping[str, Receiver]
    policy: DeliveryPolicy
    clock: Clock
    jitter: Callable[[], float] = random.random
    report: DeliveryReport = field(default_factory=DeliveryReport)
    owner: str = field(
        default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    )

    def attempt_next(self) -> bool:
        """Take one message to an end; False if none may go now."""
        claim = outbox.claim_next(
            self.store.state,
            owner=self.owner,
            receivers=sorted(self.receivers),
            now=self.clock(),
            lease=self.policy.lease,
        )
        if claim is None:
            return False
        checkpoints.reached("deliver.claimed")
        outcome = self._try(claim)
        checkpoints.reached("deliver.posted")
        self._settle(claim, outcome)
        checkpoints.reached("deliver.settled")
        return True

    def wait_for_next(self, deadline: float) -> bool:
        """Wait a moment if a message becomes due soon, such as the next of a paced channel."""
        due = outbox.next_due(self.store.state, sorted(self.receivers))
        if due is None:
            return False
        seconds = (due - self.clock()).total_seconds()
        left = deadline - time.monotonic()
        # Already due and yet not claimed: it waits for another worker or for its thread's head.
        if not 0 < seconds <= min(self.policy.idle_seconds, left):
            return False
        time.sleep(seconds)
        return True

    def _try(self, claim: Claim) -> Outcome:
        receiver = self.receivers[claim.row["receiver"]]
        delivery = self._delivery(claim)
        if claim.is_lookup:
            since = claim.row["attempt_at"] or claim.row["created_at"]
            return receiver.look_up(delivery, since.timestamp())
        if claim.row["kind"] == "head" and not delivery.update_ts:
            return Refused("the message to update was never posted")
        return receiver.send(delivery)

    def _delivery(self, claim: Claim) -> Delivery:
        row, head = claim.row, claim.head
        head_ts = head["slack_ts"] if head else ""
        channel_id = head["slack_channel"] if head else ""
        is_update = row["kind"] == "head"
        return Delivery(
            idempotency_key=row["idempotency_key"],
            channel=row["channel"],
            channel_id=channel_id or outbox.known_channel_id(self.store.state, row["channel"]),
            payload=json.loads(row["payload"]),
            thread_ts="" if is_update else head_ts,
            update_ts=head_ts if is_update else "",
        )

    def _settle(self, claim: Claim, outcome: Outcome) -> None:
        match outcome:
            case Posted():
                if outcome.ts:
                    self._close_gate(claim, self.policy.pace_seconds)
                self._write(
                    claim,
                    "sent",
                    slack_ts=outcome.ts,
                    slack_channel=outcome.channel_id,
                    sent_at=self.clock(),
                    error="",
                )
                self.report.n_sent += 1
            case NotPosted():
                self._not_posted(claim, outcome)
            case Unclear():
                self._unclear(claim, outcome)
            case Refused():
                # An update of a head that is gone is no loss: the thread has the news.
                status = "superseded" if claim.row["kind"] == "head" else "dead"
                self._write(claim, status, error=outcome.error)
                self.report.n_dead += status == "dead"
                self._note(outcome.error)

    def _not_posted(self, claim: Claim, outcome: NotPosted) -> None:
        if outcome.wait_seconds is not None:
            self._close_gate(claim, outcome.wait_seconds)
        # Absent from the history: nothing failed just now, so it can go at once.
        wait = 0.0 if claim.is_lookup else self._backoff(claim)
        if outcome.wait_seconds is not None:
            wait = 0.0  # the gate holds it
        self._write(claim, "queued", error=outcome.error, next_at=self._after(wait))
        self.report.n_retry += 1
        self._note(outcome.error)

    def _unclear(self, claim: Claim, outcome: Unclear) -> None:
        if outcome.wait_seconds is not None:
            self._close_gate(claim, outcome.wait_seconds)
        # An update may be repeated freely; what was posted must be looked up.
        status = "queued" if claim.row["kind"] == "head" else "unknown"
        wait = self._backoff(claim) if claim.is_lookup else self.policy.settle_seconds
        self._write(claim, status, error=outcome.error, next_at=self._after(wait))
        self.report.n_unclear += 1
        self._note(outcome.error)

    def _write(self, claim: Claim, status: str, **values: Any) -> None:
        outbox.settle(self.store.state, claim, status, **values)

    def _backoff(self, claim: Claim) -> float:
        exponent: int = min(claim.row["attempts"] - 1, 20)
        doubled = self.policy.first_backoff_seconds * 2.0**exponent
        return min(doubled, self.policy.longest_backoff_seconds) * self.jitter()

    def _after(self, seconds: float) -> dt.datetime:
        return self.clock() + dt.timedelta(seconds=seconds)

    def _close_gate(self, claim: Claim, seconds: float) -> None:
        if seconds > 0:
            outbox.close_gate(self.store.state, claim.row["channel"], self._after(seconds))

    def _note(self, error: str) -> None:
        if error not in self.report.errors:
            self.report.errors.append(error)
