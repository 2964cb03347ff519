"""Reading ``models/*.yaml``: every problem of a file at once, each with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.explain import explain
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.yaml_tree import MAX_BYTES, Tree, read_tree, redact

_Finding = tuple[int, str]


def load_models(models_dir: Path) -> list[ModelSpec]:
    """Load every model of a folder, sorted by name.

    Args:
        models_dir: Folder with one ``.yaml`` or ``.yml`` file per model.

    Raises:
        ConfigError: If the folder has no spec, a file is wrong, or two files declare one model.
            The message lists every problem of every file.
    """
    if not models_dir.is_dir():
        raise ConfigError(f"{models_dir} is not a folder; put one YAML file per model there.")
    files = sorted(p for p in models_dir.iterdir() if p.suffix in (".yaml", ".yml"))
    if not files:
        raise ConfigError(
            f"{models_dir} has no *.yaml file; write one per model; "
            "docs/getting-started.md shows a small one"
        )
    found: dict[str, tuple[Path, ModelSpec]] = {}
    messages: list[str] = []
    for path in files:
        try:
            spec = load_model(path)
        except ConfigError as error:
            messages.append(str(error))
            continue
        if spec.model in found:
            messages.append(f"{path}:1: model '{spec.model}' is already in {found[spec.model][0]}")
            continue
        found[spec.model] = (path, spec)
    if messages:
        raise ConfigError("\n".join(messages))
    return [spec for _, (_, spec) in sorted(found.items())]


def load_model(path: Path) -> ModelSpec:
    """Load one model's spec.

    Raises:
        ConfigError: If the file cannot be read or is wrong; one line ``file:line: message`` per
            problem, all of them at once.
    """
    return parse_model(_read_text(path), str(path))


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
