"""Where work is done and statements are run, beside this process and DuckDB."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest


def needs(name: str) -> None:
    """Skip where an engine cannot be started, and say why."""
    package = {"ray": "ray", "spark": "pyspark"}.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}: pip install 'mlmon-dagster[{name}]'")
    if name == "ray" and os.getloadavg()[0] > 6 * (os.cpu_count() or 1):
        pytest.skip("Ray gives its own processes 30 s to start, and this machine is too busy")
    if name == "spark" and shutil.which("java") is None:
        pytest.skip("needs Java: apt-get install default-jre-headless")
