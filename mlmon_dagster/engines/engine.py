"""What an engine is, and what travels to its workers and back.

Errors come back as data, with the worker's versions beside them: an engine repeats what died, and
what is wrong for good would be wrong again.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol, TypeVar

import pyarrow as pa

from mlmon_dagster.errors import EngineError, MlmonError

P = TypeVar("P")
_SAME: Final = ("python", "mlmon-dagster")  # else it is not known what the numbers would be
_ALIKE: Final = ("duckdb", "numpy", "pandas", "pyarrow")
_FACTS: Final = b"mlmon"
_log = logging.getLogger(__name__)


class Engine(Protocol):
    """Where work on parts runs.

    Attributes:
        name: As `MLMON_ENGINE` has it, without an address.
    """

    @property
    def name(self) -> str:
        """As ``MLMON_ENGINE`` has it, without an address."""

    def map(self, work: Callable[[P], pa.Table], parts: Sequence[P]) -> Iterator[pa.Table]:
        """Do some work on every part, as the builtin ``map`` does.

        Args:
            work: A pure function of the part, importable where the engine's workers are.
            parts: What can be pickled.

        Yields:
            What the work returned, once for every part, in whatever order. A part whose worker
            died is worked on again.

        Raises:
            EngineError: If the engine cannot be reached, or its workers cannot do the work.
        """


class Local:
    """This process, one part after the other: memory is that of one part."""

    name = "local"

    def map(self, work: Callable[[P], pa.Table], parts: Sequence[P]) -> Iterator[pa.Table]:
        """Do some work on every part, in order."""
        return map(work, parts)


@cache
def versions() -> dict[str, str]:
    """Return the versions that numbers depend on, of this process."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in (*_SAME[1:], *_ALIKE):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that was never installed
            found[name] = "not installed"
    return found


def run(work: Callable[[P], pa.Table], part: P) -> bytes:
    """Do the work on one part, on a worker; return the rows, or what went wrong."""
    facts: dict[str, object] = {"host": socket.gethostname(), "versions": versions()}
    rows = pa.table({})
    try:
        rows = work(part)
    except MlmonError as error:
        facts["error"] = f"{type(error).__name__}: {error}"
    except Exception as error:
        last = "".join(traceback.format_exception(error)[-3:])
        facts["error"] = f"{type(error).__name__}: {error}\n{last}"
    known = dict(rows.schema.metadata or {})
    rows = rows.replace_schema_metadata(known | {_FACTS: json.dumps(facts).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def received(content: bytes) -> pa.Table:
    """Return the rows that `run` made on a worker.

    Raises:
        EngineError: If the work failed, or was done by another version of this package or Python.
    """
    rows = pa.ipc.open_stream(content).read_all()
    metadata = dict(rows.schema.metadata)
    facts = json.loads(metadata.pop(_FACTS))
    _compare(facts["host"], facts["versions"])
    if "error" in facts:
        raise EngineError(f"Work on a part failed on worker {facts['host']}: {facts['error']}")
    return rows.replace_schema_metadata(metadata or None)


def _compare(host: str, theirs: dict[str, str]) -> None:
    ours = versions()
    differing = [name for name in ours if theirs.get(name) != ours[name]]
    if not differing:
        return
    told = ", ".join(f"{n} {theirs.get(n, 'unknown')} there, {ours[n]} here" for n in differing)
    if any(name in _SAME for name in differing):
        raise EngineError(
            f"Worker {host} has other versions than this process: {told}. Install on the workers "
            f"what is here: Python {ours['python']}, mlmon-dagster {ours['mlmon-dagster']}."
        )
    _warn(f"Worker {host} has other versions than this process: {told}.")


@cache
def _warn(text: str) -> None:
    """Say it once."""
    _log.warning("%s", text)
