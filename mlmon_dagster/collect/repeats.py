"""Answers to requests that come again, kept in memory for a day."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmon_dagster.collect.problem import Problem

_KEPT_SECONDS = 24 * 3600.0
_MOST_ANSWERS = 50_000
_MOST_ERRORS = 10  # an answer with more of them is not kept
Key = tuple[str, ...]


@dataclass
class _Known:
    fingerprint: str
    when: float
    answer: Mapping[str, Any] | None = None  # None while it is being worked on


class Repeats:
    """Remembers what was answered, so that a retry is answered alike and stores nothing.

    After a restart a retry is stored again, and ingest drops its rows as duplicates.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Key, _Known] = OrderedDict()

    def begin(self, key: Key, fingerprint: str, *, is_named: bool) -> Mapping[str, Any] | None:
        """Note that a request is being worked on; return its answer if it was given before.

        Args:
            key: What tells requests apart.
            fingerprint: Of the request's content.
            is_named: The client chose the key.

        Raises:
            Problem: If the client's key is at work, or belongs to another content.
        """
        self._forget_old()
        known = self._known.get(key)
        if known is not None:
            if known.fingerprint != fingerprint:
                raise Problem("key_reused", "Use a new Idempotency-Key for every batch.")
            if known.answer is not None:
                return known.answer
            if is_named:
                found = "Try again once the first request has its answer."
                raise Problem("in_progress", found, headers={"retry-after": "1"})
            return None
        self._known[key] = _Known(fingerprint, time.monotonic())
        return None

    def end(self, key: Key, answer: Mapping[str, Any] | None) -> None:
        """Note the answer; None forgets the request, which failed."""
        known = self._known.get(key)
        if answer is None or len(answer.get("errors", ())) > _MOST_ERRORS:
            if known is not None and known.answer is None:
                del self._known[key]
        elif known is not None:
            known.answer = answer

    def _forget_old(self) -> None:
        limit = time.monotonic() - _KEPT_SECONDS
        while self._known:
            oldest = next(iter(self._known.values()))
            if len(self._known) < _MOST_ANSWERS and oldest.when >= limit:
                return
            self._known.popitem(last=False)
