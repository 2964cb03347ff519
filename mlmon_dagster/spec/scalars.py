"""Small values of the spec's YAML: durations (``26h``) and window counts (``2 of 3``)."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


class KOfN(NamedTuple):
    """A monitor fires when ``k`` of the last ``n`` windows fail."""

    k: int
    n: int


def parse_duration(value: object) -> dt.timedelta:
    """Turn ``90s``, ``15m``, ``26h``, ``2d`` or ``1w`` into a timedelta.

    Raises:
        ValueError: If the text is not a number followed by one of s, m, h, d, w.
    """
    if isinstance(value, dt.timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write a number and a unit, such as 26h or 2d")
    return dt.timedelta(**{_UNITS[match[2]]: float(match[1])})


def format_duration(value: dt.timedelta) -> str:
    """Write a timedelta the way the spec reads it, in its largest whole unit."""
    seconds = value.total_seconds()
    for unit, size in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"


def parse_k_of_n(value: object) -> KOfN:
    """Turn ``2 of 3`` into ``KOfN(2, 3)``.

    Raises:
        ValueError: If the text has another form or k is not between 1 and n.
    """
    if isinstance(value, KOfN):
        return value
    match = re.fullmatch(r"(\d+)\s+of\s+(\d+)", value.strip()) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= 30:
        raise ValueError(f"{value!r} is not a window count; write for instance '2 of 3'")
    return KOfN(int(match[1]), int(match[2]))


Duration = Annotated[
    dt.timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["26h", "2d"]}),
]
WindowCount = Annotated[
    KOfN,
    BeforeValidator(parse_k_of_n),
    PlainSerializer(lambda v: f"{v.k} of {v.n}", return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2 of 3"]}),
]
