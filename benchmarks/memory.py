"""The most memory that this process has held."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_megabytes() -> float:
    """Return this program's own peak, in MB.

    On Linux `getrusage` of a program that was just started begins with the peak of the process that
    started it, which may have been far larger; the high-water mark of its own pages does not.
    """
    if _STATUS.exists():
        marks = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0].split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
