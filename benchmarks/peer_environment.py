"""Environments of what we are compared with, made on first use.

The peers' has Python 3.11 and pandas 2, which ours has not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PYTHON = "python3.11"
CACHE = Path.home() / ".cache" / "mlmon-benchmarks"
PEERS = {"evidently": "0.7.23", "nannyml": "0.13.1", "popmon": "1.4.12"}
# NannyML imports statsmodels and popmon pkg_resources without saying so.
PINS = (
    *(f"{name}=={version}" for name, version in PEERS.items()),
    "pandas==2.3.3", "numpy==2.2.6", "pyarrow==26.0.1", "statsmodels==0.15.0", "setuptools<81",
)  # fmt: skip
# Both would send usage data, and NannyML waits for the answer.
QUIET = {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}


def peer_python(cache: Path = CACHE) -> Path:
    """Return the interpreter of an environment; say what is installed when it is made.

    Args:
        cache: Folder for environments, one per set of pins.

    Raises:
        SystemExit: If there is no Python 3.11, or something cannot be installed.
    """
    digest = hashlib.sha256(json.dumps(PINS).encode()).hexdigest()[:8]
    folder = cache / f"peers-{digest}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    interpreter = shutil.which(PYTHON)
    if interpreter is None:
        raise SystemExit(f"The peers need {PYTHON}, which is not on the PATH. Install it first.")
    sys.stderr.write(f"Installing into {folder}, a few minutes:\n  {' '.join(PINS)}\n")
    _run([interpreter, "-m", "venv", "--clear", str(folder)])
    _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PINS])
    (folder / "complete").touch()
    return python


def _run(command: Sequence[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"Failed: {' '.join(command)}")


def variables() -> dict[str, str]:
    """Return the environment variables for a peer's process; ours are not on its path."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return known | QUIET
