"""Reading ``models/*.yaml``: every problem of a file at once, each with its line."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.alerting import AlertPolicy
from mlmon_dagster.spec.explain import explain
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import RESERVED_MODELS, model_problem
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.windows import check_window_count
from mlmon_dagster.spec.yaml_tree import MAX_BYTES, Tree, read_tree, redact

_Finding = tuple[int, str]
_BEGINNING = dt.datetime(1, 1, 8, tzinfo=dt.UTC)  # before which there is no window to count


@dataclass(frozen=True)
class BrokenModel:
    """A file of the models' folder that declares no model that can be monitored.

    Attributes:
        name: What it is called where people look: the name that it declares if that is a good one
            and no other file has it, else made of the file's name. Unique in its folder.
        path: The file.
        problems: Lines ``file:line: message``.
        alerts: Where the model's alerts should go, if at least that part could be read.
        spec: What it declares, where only Dagster cannot take it.
    """

    name: str
    path: Path
    problems: str
    alerts: AlertPolicy | None = None
    spec: ModelSpec | None = None

    def summary(self) -> str:
        """Say in one line what is wrong, and what lists the rest."""
        first, *others = self.problems.splitlines()
        first = first.replace(str(self.path), f"{self.path.parent.name}/{self.path.name}")
        more = f" ({len(others)} more)" if others else ""
        return f"{first}{more}. mlmon validate lists every problem."


@dataclass(frozen=True)
class Models:
    """The models that are declared, and the files that declare none.

    Attributes:
        specs: The models that can be monitored, sorted by name.
        broken: What cannot, sorted by file.
        folder: Where they were read; None for models that a program declares.
    """

    specs: tuple[ModelSpec, ...]
    broken: tuple[BrokenModel, ...] = ()
    folder: Path | None = None

    def again(self, now: dt.datetime) -> Models:
        """Return what the folder says now; models without a folder never change.

        Raises:
            ConfigError: If the folder is gone.
        """
        if self.folder is None:
            return self
        found = read_models(self.folder, now)
        for broken in self.broken:
            if broken.spec in found.specs:
                found = found.without(broken)
        return found

    def without(self, broken: BrokenModel) -> Models:
        """Return the same with a model that turned out to be broken after it was read."""
        specs = tuple(spec for spec in self.specs if spec != broken.spec)
        return Models(specs, (*self.broken, broken), self.folder)


def read_models(models_dir: Path, now: dt.datetime) -> Models:
    """Read every model of a folder; a file that is wrong stops no other.

    Of two files that declare one model the one that is named after it counts, else the first.

    Args:
        models_dir: Folder with one ``.yaml`` or ``.yml`` file per model; it may be empty.
        now: The present moment, up to which windows are counted.

    Raises:
        ConfigError: If there is no such folder.
    """
    failed: list[tuple[Path, str]] = []
    good: list[tuple[Path, ModelSpec]] = []
    for path in _files(models_dir):
        try:
            spec = load_model(path)
            check_window_count(spec.time, now)
        except ConfigError as error:
            said = str(error)
            failed.append((path, said if said.startswith(f"{path}:") else f"{path}:1: {said}"))
        else:
            good.append((path, spec))
    specs: dict[str, tuple[Path, ModelSpec]] = {}
    for path, spec in sorted(good, key=lambda found: (found[0].stem != found[1].model, found[0])):
        if spec.model in specs:
            said = f"{path}:1: model '{spec.model}' is already in {specs[spec.model][0]}"
            failed.append((path, f"{said}; give this one another name, or remove the file"))
        else:
            specs[spec.model] = (path, spec)
    taken = set(specs)
    broken = [_broken(path, problems, taken) for path, problems in sorted(failed)]
    found = tuple(spec for _, (_, spec) in sorted(specs.items()))
    return Models(found, tuple(broken), models_dir)


def load_models(models_dir: Path) -> list[ModelSpec]:
    """Load every model of a folder, sorted by name, or none if one is wrong.

    Args:
        models_dir: Folder with one ``.yaml`` or ``.yml`` file per model.

    Raises:
        ConfigError: If the folder has no spec, a file is wrong, or two files declare one model.
            The message lists every problem of every file.
    """
    found = read_models(models_dir, _BEGINNING)
    if found.broken:
        raise ConfigError("\n".join(broken.problems for broken in found.broken))
    if not found.specs:
        raise no_models(models_dir)
    return list(found.specs)


def no_models(models_dir: Path) -> ConfigError:
    """Return what to say where a folder declares nothing at all."""
    return ConfigError(
        f"{models_dir} has no *.yaml file; write one per model; "
        "docs/getting-started.md shows a small one"
    )


def _files(models_dir: Path) -> list[Path]:
    if not models_dir.is_dir():
        raise ConfigError(f"{models_dir} is not a folder; put one YAML file per model there.")
    try:
        return sorted(p for p in models_dir.iterdir() if p.suffix in (".yaml", ".yml"))
    except OSError as error:
        raise ConfigError(f"{models_dir} cannot be read: {error.strerror or error}") from None


def _broken(path: Path, problems: str, taken: set[str]) -> BrokenModel:
    """Describe a file that cannot be used, and take its name."""
    declared = _declared(path)
    name = str(declared.get("model", ""))
    if model_problem(name) or name in taken:
        name = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem)[:50] or "model"
    while name in taken or name in RESERVED_MODELS:
        name += "_file"
    taken.add(name)
    return BrokenModel(name, path, problems, alerts_of(path))


def alerts_of(path: Path) -> AlertPolicy | None:
    """Return where a file says alerts go, whatever else of it is wrong; None if it does not."""
    try:
        return AlertPolicy.model_validate(_declared(path)["alerts"])
    except (KeyError, ValidationError):
        return None


def _declared(path: Path) -> Mapping[Any, object]:
    """Return as much of a file as is a mapping at all."""
    try:
        value = read_tree(_read_text(path)).value
    except ConfigError:
        return {}
    return value if isinstance(value, dict) else {}


def load_model(path: Path) -> ModelSpec:
    """Load one model's spec.

    Raises:
        ConfigError: If the file cannot be read or is wrong; one line ``file:line: message`` per
            problem, all of them at once.
    """
    found = _known(_read_text(path), str(path))
    if isinstance(found, str):
        raise ConfigError(found)
    return found


@lru_cache(maxsize=4096)
def _known(text: str, origin: str) -> ModelSpec | str:
    """Parse a file once for each content, since sensors look at the folder again and again."""
    try:
        return parse_model(text, origin)
    except ConfigError as error:
        return str(error)


def parse_model(text: str, origin: str = "<text>") -> ModelSpec:
    """Turn the YAML of one model into its spec.

    Args:
        text: The YAML.
        origin: What messages call the place it came from.

    Raises:
        ConfigError: As `load_model`.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{origin}:1: more than {MAX_BYTES:,} bytes; a spec has a few thousand")
    tree = read_tree(text)
    findings = [(line, _at(path, message)) for line, path, message in tree.problems]
    if tree.value is None:
        findings = findings or [(1, "the file is empty; a spec starts with 'model: <name>'")]
    elif not isinstance(tree.value, dict):
        findings.append((1, "a spec is a mapping that starts with 'model: <name>'"))
    else:
        spec, more = _validate(tree.value, tree)
        findings += _without_echoes(more, tree)
        if spec is not None and not findings:
            return spec
    raise ConfigError(_listing(origin, findings))


def spec_from_mapping(data: Mapping[str, object], origin: str = "spec") -> ModelSpec:
    """Turn plain Python values, such as a Dagster component's attributes, into a spec.

    Raises:
        ConfigError: With one line per problem, each naming its place in the mapping.
    """
    spec, problems = _validate(dict(data), Tree())
    if spec is None:
        raise ConfigError("\n".join(printable(redact(f"{origin}: {m}")) for _, _, m in problems))
    return spec


def _validate(
    data: dict[str, object], tree: Tree
) -> tuple[ModelSpec | None, list[tuple[int, tuple[str | int, ...], str]]]:
    try:
        return ModelSpec.model_validate(data), []
    except ValidationError as error:
        problems = explain(error, data, tree.texts)
    return None, [(tree.line_of(path), path, _at(path, message)) for path, message in problems]


def _without_echoes(
    problems: list[tuple[int, tuple[str | int, ...], str]], tree: Tree
) -> list[_Finding]:
    """Drop what only repeats, in other words, a problem already found while reading a value."""
    known = {path for _, path, _ in tree.problems if path in tree.texts}
    return [(line, message) for line, path, message in problems if path not in known]


def _at(path: tuple[str | int, ...], message: str) -> str:
    place = ".".join(str(part) for part in path)
    return f"{place}: {message}" if place else message


def _listing(origin: str, findings: list[_Finding]) -> str:
    unique = sorted(set(findings))
    return "\n".join(printable(redact(f"{origin}:{line}: {m}")) for line, m in unique)


def _read_text(path: Path) -> str:
    if not path.is_file():  # a named pipe would make us wait for ever
        raise ConfigError(f"{path}:1: is not a file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}:1: cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}:1: more than {MAX_BYTES:,} bytes; a spec has a few thousand")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
