"""Small values of a spec: durations (``26h``), window counts (``2 of 3``), dates, lists."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

MAX_HOURLY_WINDOWS = 25_000

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_ASSET = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smhdw])")
_LONGEST = dt.timedelta(days=3660)
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # its module, then its name


class Declared(BaseModel):
    """What all parts of a spec share: exact types, no unknown keys, no later changes."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        str_max_length=10_000,
    )

    def __hash__(self) -> int:
        """Hash what is declared. Of a default without a hash each spec would get a deep copy."""
        return hash(self.model_dump_json())


class KOfN(NamedTuple):
    """A monitor fires when ``k`` of the last ``n`` windows fail."""

    k: int
    n: int


def parse_duration(value: object) -> dt.timedelta:
    """Turn ``90s``, ``15m``, ``26h``, ``2d`` or ``1w`` into a timedelta of 0 s to 10 years.

    Raises:
        ValueError: If the text is not a number followed by one of s, m, h, d, w, or is too long.
    """
    if isinstance(value, dt.timedelta):
        duration = value
    else:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(
                f"{shown(value)} is not a duration; write a number and a unit, such as 26h or 2d"
            )
        if float(match[1]) > _LONGEST / dt.timedelta(**{_UNITS[match[2]]: 1}):
            raise ValueError(f"{value} is longer than 10 years")
        duration = dt.timedelta(**{_UNITS[match[2]]: float(match[1])})
    if not dt.timedelta(0) <= duration <= _LONGEST:
        raise ValueError(f"{duration} is not between 0 and 10 years")
    return duration


def format_duration(value: dt.timedelta) -> str:
    """Write a timedelta the way the spec reads it, in its largest whole unit."""
    seconds = value.total_seconds()
    for unit, size in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def name_duration(value: dt.timedelta) -> str:
    """Write a timedelta in words, in its largest whole unit.

    Example:
        >>> [name_duration(dt.timedelta(hours=hours)) for hours in (1, 26, 72)]
        ['1 hour', '26 hours', '3 days']
    """
    text = format_duration(value)
    unit = {"w": "week", "d": "day", "h": "hour", "m": "minute", "s": "second"}[text[-1]]
    return f"{text[:-1]} {unit}{'' if text[:-1] == '1' else 's'}"


def parse_k_of_n(value: object) -> KOfN:
    """Turn ``2 of 3`` into ``KOfN(2, 3)``.

    Raises:
        ValueError: If the text has another form, or not 1 <= k <= n <= 30.
    """
    if isinstance(value, KOfN):
        k, n = value
    else:
        pattern = r"([0-9]{1,2})\s+of\s+([0-9]{1,2})"
        match = re.fullmatch(pattern, value.strip()) if isinstance(value, str) else None
        k, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= k <= n <= 30:
        raise ValueError(
            f"{shown(value)} is not a window count; write for instance '2 of 3' (of at most 30)"
        )
    return KOfN(k, n)


def parse_date(value: object) -> object:
    """Turn the text ``2013-04-01`` into a date; YAML gives a date already, JSON gives text."""
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{shown(value)} is not a date such as 2013-04-01") from None
    return value


def check_asset(key: str) -> str:
    """Return the key of a Dagster asset as it is; refuse what cannot be one."""
    if not _ASSET.fullmatch(key):
        raise ValueError(
            f"{shown(key)} is not the key of an asset, such as scored_customers or "
            "warehouse/scored_customers"
        )
    return key


def as_tuple(value: object) -> object:
    """Turn a list, as YAML and JSON give it, into the tuple that a frozen spec holds."""
    return tuple(value) if isinstance(value, list) else value


def one_or_more(value: object) -> object:
    """Read one text as the tuple of it, and a list as `as_tuple` does."""
    return (value,) if isinstance(value, str) else as_tuple(value)


def _word(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return value


def _words(value: object) -> object:
    is_one = isinstance(value, str | int | float)
    return (value,) if is_one else as_tuple(value)


def fold_word(word: str) -> str:
    """Return a word as it is compared: in small letters, and 1.0 as 1."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", word.strip().lower())


def switched(value: object) -> object:
    """Read ``true`` as the defaults and ``false`` as none."""
    if value is True:
        return {}
    return None if value is False else value


def shown(value: object, width: int = 80) -> str:
    """Write a value for a message, cut to ``width`` characters."""
    if not isinstance(value, str | int | float | bool | dt.date | None):
        return "a list" if isinstance(value, list | tuple) else "a mapping"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def printable(text: str) -> str:
    """Escape what could break a line or steer a terminal: controls, line ends, bidi marks.

    Ordinary text is unchanged; a byte of a file name that is no UTF-8 is written in hex.

    Example:
        >>> printable("red" + chr(27) + "[31m.csv") == "red" + chr(92) + "x1b[31m.csv"
        True
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    if "\udc80" <= char <= "\udcff":  # how Python spells an undecodable byte
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


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
AssetName = Annotated[str, AfterValidator(check_asset)]
Date = Annotated[dt.date, BeforeValidator(parse_date)]
Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
Listed = Annotated[
    tuple[str, ...], BeforeValidator(one_or_more, json_schema_input_type=str | tuple[str, ...])
]
Words = Annotated[
    tuple[Annotated[str, BeforeValidator(_word, json_schema_input_type=str | float)], ...],
    BeforeValidator(_words, json_schema_input_type=str | float | tuple[str | float, ...]),
    Field(min_length=1),
]
