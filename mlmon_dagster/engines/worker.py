"""What a worker of an engine runs; nothing of this package has to be there.

It travels by value, so that a worker on which this package or another one is missing can say so
itself, and say which host it is. Hence only the standard library is imported here.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE: Final = "mlmon-dagster"
PACKAGES: Final = (PACKAGE, "duckdb", "numpy", "pandas", "pyarrow")  # that numbers depend on
NOT_INSTALLED: Final = "not installed"


def read_versions() -> dict[str, str]:
    """Return the versions that numbers depend on, of this process."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of this package also a checkout that was never installed
            found[name] = NOT_INSTALLED
    return found


def run(sent: bytes, part: object, rest: float = 0.0) -> bytes:
    """Do some work on one part.

    Errors come back as data: an engine repeats what died, and what is wrong for good would be
    wrong again.

    Args:
        sent: The work, pickled: a function of the part that returns a table of Arrow.
        part: What it is done on.
        rest: Seconds to wait then, so that other workers get the next parts.

    Returns:
        A line of JSON with the facts of this worker, then the table as a stream of Arrow.
    """
    facts: dict[str, object] = {
        "host": socket.gethostname(),
        "process": os.getppid(),  # which started this one: an executor of Spark, a node of Ray
        "installed": read_versions(),
    }
    content = b""
    try:
        rows = pickle.loads(sent)(part)
        import pyarrow as pa

        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        content = sink.getvalue()
    except ModuleNotFoundError as error:
        facts["missing"] = error.name or str(error)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if all(kind.__name__ != "MlmonError" for kind in type(error).__mro__):  # not a sentence
            told += "\n" + "".join(traceback.format_exception(error)[-3:])
        facts["error"] = told
    time.sleep(rest)
    return json.dumps(facts).encode() + b"\n" + content


def run_at(sent: bytes, parts: Sequence[object], rest: float, place: int) -> bytes:
    """Do some work on one of several parts, as `run` does."""
    return run(sent, parts[place], rest)
