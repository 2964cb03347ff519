"""The formats of landing files: each is a module ``read_NAME`` beside this one.

It has a function of that name and the ``ENDINGS`` by which ``format: auto`` knows its files; none
where a spec has to name it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import Options, RawFile, refused
from mlmon_dagster.spec.sources import FORMATS

_COMPRESSED = (".gz", ".zst")
Reader = Callable[[Path, str, Sequence[Column], Options], Iterator[RawFile]]


class Format(NamedTuple):
    """How files of a format are read, and which endings tell it."""

    read: Reader
    endings: tuple[str, ...]


@cache
def load_format(name: str) -> Format:
    """Return a format by its name in specs."""
    module = import_module(f"mlmon_dagster.ingest.formats.read_{name}")
    return Format(getattr(module, f"read_{name}"), module.ENDINGS)


@cache
def load_endings() -> dict[str, str]:
    """Return the format that each ending tells."""
    return {ending: name for name in FORMATS for ending in load_format(name).endings}


def ending_of(name: str) -> str:
    """Return the known ending of a file's name, with that of its compression, or ``.bin``."""
    lowered = name.lower()
    packed = next((end for end in _COMPRESSED if lowered.endswith(end)), "")
    plain = lowered.removesuffix(packed)
    found = next((end for end in load_endings() if plain.endswith(end)), None)
    return ".bin" if found is None else found + packed


def read_file(
    form: str, path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a file, in parts if its format allows it.

    Args:
        form: The name of its format, or ``auto``.
        path: Where it lies, not compressed.
        place: What it is called.
        wanted: The columns to read.
        options: How, and within which limits.

    Raises:
        SchemaError: If the file is no such file, too large or lacks a column, or its name tells
            no format.
    """
    if form == "auto":
        ending = ending_of(place)
        for packed in _COMPRESSED:
            ending = ending.removesuffix(packed)
        form = load_endings().get(ending, "")
    if not form:
        known = (load_format(name).endings[:1] for name in FORMATS)
        expected = ", ".join(ending for endings in known for ending in endings)
        raise refused(
            place,
            "unknown_format",
            f"the ending is of no known format; expected {expected}, or those with .gz or .zst.",
        )
    yield from load_format(form).read(path, place, wanted, options)
