"""What is shipped: the wheel, pinned versions, licences, and nothing of anybody's machine."""

import importlib.metadata
import os
import re
import subprocess
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import mlmon_dagster
from tests.built_wheel import build_wheel

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALLOWED = ("apache", "mit", "bsd", "psf", "python software foundation", "hpnd", "isc", "mpl")
# LGPL with exceptions: used as a library over its public interface, not changed, not copied.
LGPL = {"psycopg2-binary"}
# Home folders, and the folder that this checkout happens to lie in.
MACHINE = re.compile(rf"(?<![\w.:/])(/(?:home|root|Users)/[\w.-]+|{re.escape(str(ROOT))}\b)")


def tracked_files() -> list[Path]:
    """Return the files under version control; without git, there is nothing to say."""
    found = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    if found.returncode:
        pytest.skip("not a git checkout")
    names = filter(None, found.stdout.split("\0"))
    return [path for name in names if (path := ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """Return a file's text, None if it is not text."""
    content = path.read_bytes()
    return None if b"\0" in content[:8000] else content.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel."""
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


def test_wheel_holds_every_tracked_file_of_the_package_and_no_other(
    wheel: zipfile.ZipFile,
) -> None:
    package = ROOT / "mlmon_dagster"
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.is_relative_to(package)
    }
    shipped = {name for name in wheel.namelist() if name.startswith("mlmon_dagster/")}
    assert tracked <= shipped
    assert not [name for name in shipped if "__pycache__" in name or name.endswith(".db")]


def run_fresh(command: str, folder: Path, home: Path) -> str:
    """Run a shell command as one who has an environment in `home` and none of this one's settings.

    How this machine reaches packages is kept, everything else is not.
    """
    kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    path = f"{home / 'env' / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env={**kept, "HOME": str(home), "PATH": path},
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.proof
def test_the_install_line_of_the_readme_gives_a_fresh_environment_the_command(
    tmp_path: Path,
) -> None:
    lines = re.findall(r"^(pip install .*?)(?: *#.*)?$", (ROOT / "README.md").read_text(), re.M)
    pinned = [line for line in lines if "constraints.txt" in line]
    assert len(pinned) == 1, lines
    clone, home, project = tmp_path / "clone", tmp_path / "home", tmp_path / "project"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    venv.create(home / "env", with_pip=True)
    (project / "landing").mkdir(parents=True)
    rows = [f"{i},2026-03-0{1 + i % 7}T08:00:00Z,{i % 97 / 97:.3f},{i % 53}" for i in range(700)]
    events = project / "landing/events.csv"
    events.write_text("\n".join(["id,scored_at,score,age", *rows, ""]))
    os.utime(events, (0, 0))  # a file that changed a moment ago is left for later

    run_fresh(pinned[0], clone, home)

    where = run_fresh("python -c 'import mlmon_dagster as m; print(m.__file__)'", project, home)
    assert where.startswith(str(home)), "not the clone and not this checkout"
    run_fresh("mlmon init landing/*.csv --model first", project, home)
    assert "700 new rows" in run_fresh("mlmon run first", project, home)


def test_one_version_everywhere() -> None:
    assert mlmon_dagster.__version__ == PROJECT["version"]
    assert f"[{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_name_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    odd = [
        line
        for line in pins
        if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+( ; [\w .'\"<>=!]+)?", line)
    ]
    assert not odd
    assert len(pins) > 50


def test_every_direct_dependency_is_pinned() -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {plain(line.partition("==")[0]) for line in lines if "==" in line}
    assert {plain(name) for name in direct_dependencies()} <= pinned


def direct_dependencies() -> list[str]:
    """Return the names of what the package needs to run, the demo included."""
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["demo"]
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in declared)
    return [match[0] for match in found if match]


@pytest.mark.parametrize("name", direct_dependencies())
def test_direct_dependencies_have_a_permissive_licence(name: str) -> None:
    metadata = importlib.metadata.metadata(name)
    stated = metadata.get("License-Expression") or ""
    if not stated:
        trove = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
        free_text = (metadata.get("License") or "").strip().splitlines()
        stated = " ".join([*trove, *free_text[:1]])
    is_lgpl = "lgpl" in stated.lower() or "lesser general public" in stated.lower()
    if name in LGPL:
        assert is_lgpl, f"{name}: {stated}"
        return
    assert not is_lgpl, f"{name}: {stated}"
    assert "gnu general public" not in stated.lower(), f"{name}: {stated}"
    assert any(word in stated.lower() for word in ALLOWED), f"{name}: {stated!r}"


def test_no_tracked_file_names_a_folder_of_a_machine() -> None:
    own = Path(__file__).resolve()
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked_files()
        if path.resolve() != own and (text := text_of(path)) is not None
        for match in MACHINE.finditer(text)
    }
    assert not found
