"""What an engine is, and what is made of what its workers send back.

Beside the rows they send their versions: where these are others than here, it is not known what
the numbers would be.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NamedTuple, Protocol, TypeVar

import pyarrow as pa

from mlmon_dagster.engines import worker
from mlmon_dagster.engines.worker import NOT_INSTALLED, PACKAGE
from mlmon_dagster.errors import EngineError, MlmonError

P = TypeVar("P")
_SAME: Final = ("python", PACKAGE)  # others may differ, and are told
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

    def ask_workers(self, work: Callable[[int], pa.Table]) -> Sequence[Reply]:
        """Do some work on every worker that there is, and return what each sent back.

        Args:
            work: As of `map`, of whatever number.

        Raises:
            EngineError: If the engine cannot be reached, or does not begin to work.
        """


@dataclass(frozen=True)
class Reply:
    """What a worker sent back.

    Attributes:
        host: Its machine.
        process: What works there: an executor of Spark, or a node of Ray; 0 if it did not say.
        installed: Versions of Python and of packages; empty if it did not say.
        rows: What the work returned; None if it did not end well.
        missing: The module that the work needs and that is not there; empty if none is.
        error: What went wrong otherwise; empty if nothing did.
    """

    host: str
    process: int = 0
    installed: Mapping[str, str] = field(default_factory=dict)
    rows: pa.Table | None = None
    missing: str = ""
    error: str = ""

    @classmethod
    def read(cls, content: bytes) -> Reply:
        """Read what `worker.run` made."""
        facts, _, rows = content.partition(b"\n")
        return cls(rows=pa.ipc.open_stream(rows).read_all() if rows else None, **json.loads(facts))


class Difference(NamedTuple):
    """How a worker differs from this process.

    Attributes:
        told: That, and what to install; empty if it does not differ.
        is_refused: Whether it must not do work of this process.
    """

    told: str
    is_refused: bool


class Local:
    """This process, one part after the other: memory is that of one part."""

    name = "local"

    def map(self, work: Callable[[P], pa.Table], parts: Sequence[P]) -> Iterator[pa.Table]:
        """Do some work on every part, in order."""
        return map(work, parts)

    def ask_workers(self, work: Callable[[int], pa.Table]) -> Sequence[Reply]:
        """Do some work once."""
        try:
            rows, error = work(0), ""
        except MlmonError as why:
            rows, error = None, str(why)
        return [Reply(socket.gethostname(), os.getpid(), own_versions(), rows, error=error)]


@cache
def own_versions() -> dict[str, str]:
    """Return the versions that numbers depend on, of this process."""
    return worker.read_versions()


def compare(reply: Reply) -> Difference:
    """Say how the worker that sent something differs from this process."""
    ours = own_versions()
    there = {name: found for name, found in reply.installed.items() if found != ours[name]}
    lacking = {name for name, found in there.items() if found == NOT_INSTALLED}
    told = [f"{name} {found} there, {ours[name]} here" for name, found in there.items()]
    if reply.missing and not lacking:
        told.append(f"no module {reply.missing} there")
    if not told:
        return Difference("", is_refused=False)
    # The package brings every other that the work needs.
    wanted = [name for name in there if name != "python"] or [PACKAGE] * bool(reply.missing)
    first = [f"Python {ours['python']}"] if "python" in there else []
    exact = [
        f"{name}=={ours[name]}" if ours[name] != NOT_INSTALLED else f"{name} (a checkout here)"
        for name in wanted
    ]
    install = [*first, *([f"pip install {' '.join(exact)}"] if exact else [])]
    lacks = "lacks packages" if lacking or reply.missing else "has other versions than this process"
    return Difference(
        f"Worker {reply.host} {lacks}: {', '.join(told)}. Install on the workers what is here: "
        f"{', '.join(install)}.",
        is_refused=bool(lacking or reply.missing) or any(name in there for name in _SAME),
    )


def received(reply: Reply) -> pa.Table:
    """Return the rows that a worker sent.

    Raises:
        EngineError: If the work failed, or the worker must not do it.
    """
    difference = compare(reply)
    if difference.is_refused:
        raise EngineError(difference.told)
    if difference.told:
        _warn(difference.told)
    if reply.rows is None:
        raise EngineError(f"Work on a part failed on worker {reply.host}: {reply.error}")
    return reply.rows


@cache
def _warn(text: str) -> None:
    """Say it once."""
    _log.warning("%s", text)
