"""The wheel as it is published, and environments that have it instead of this checkout."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Build the wheel without a network: the build backend is called in this environment."""
    pytest.importorskip("hatchling.build", reason="the build backend is not installed")
    _run(sys.executable, "-c", f"import hatchling.build as b; b.build_wheel({str(folder)!r})")
    return next(folder.glob("*.whl"))


def install_wheel(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel, and with what this one has installed; return its Python.

    Nothing is fetched. Of this environment's packages the wheel is the first, and the checkout
    that is installed here for editing is not on the path there.
    """
    uv = shutil.which("uv")
    venv.create(folder, with_pip=uv is None)
    python = folder / "bin" / "python"
    pip = [uv, "pip", "--quiet"] if uv else [str(python), "-m", "pip", "--quiet"]
    target = ["--python", str(python), "--offline"] if uv else ["--no-index"]
    _run(*pip, "install", "--no-deps", *target, str(wheel))
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "installed_here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
