"""Expectations of a user's own, which specs of tests name as ``module:Class``."""

from __future__ import annotations

import os
from typing import Any

import great_expectations.expectations as gxe


class ExpectAnAdult(gxe.ExpectColumnValuesToBeBetween):
    """Ages from 18 on."""

    column: str = "age"
    min_value: float = 18.0


class ExpectTooMuch(gxe.ExpectColumnValuesToBeBetween):
    """Fails on whatever rows come, and quotes one."""

    column: str = "age"
    min_value: float = 0.0

    def _validate(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no such age: 31.0")


class ExpectToDie(gxe.ExpectColumnValuesToBeBetween):
    """Ends the process that judges."""

    column: str = "age"
    min_value: float = 0.0

    def _validate(self, *_: Any, **__: Any) -> Any:
        os._exit(3)


NOT_A_CLASS = 1
