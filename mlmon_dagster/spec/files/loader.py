"""Reading ``models/*.yaml``: every problem of a file at once, each with its line."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.alerting import RECEIVERS, AlertPolicy
from mlmon_dagster.spec.checks import Problem, find_problems
from mlmon_dagster.spec.files.known_specs import KnownSpecs
from mlmon_dagster.spec.files.meanings import find_classes, find_fields
from mlmon_dagster.spec.files.yaml_tree import MAX_BYTES, Tree, read_tree, redact
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import (
    RESERVED_MODELS,
    FieldPath,
    did_you_mean,
    listed,
    model_problem,
    offer,
)
from mlmon_dagster.spec.scalars import printable, shown
from mlmon_dagster.spec.windows import check_window_count

_Finding = tuple[int, str]
_BEGINNING = dt.datetime(1, 1, 8, tzinfo=dt.UTC)  # before which there is no window to count
_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "date_type": "a date such as 2013-04-01",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_NUMBER = re.compile(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?%?")
_OTHER_SCALARS = {bool: "true or false", int: "a number", float: "a number"}


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
        key_prefix: What stands before its name in Dagster.
    """

    name: str
    path: Path
    problems: str
    alerts: AlertPolicy | None = None
    spec: ModelSpec | None = None
    key_prefix: str | None = None

    @property
    def model(self) -> str:
        """Its name, as that of a model that loads."""
        return self.name

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
        key_prefix: What stands before a model's name in Dagster, where the model does not say.
    """

    specs: tuple[ModelSpec, ...]
    broken: tuple[BrokenModel, ...] = ()
    folder: Path | None = None
    key_prefix: str | None = None

    def under(self, key_prefix: str | None) -> Models:
        """Return the models with a prefix of their keys in Dagster, where they have none yet."""
        if not key_prefix or self.key_prefix:
            return self
        change = {"key_prefix": key_prefix}
        return Models(
            tuple(s if s.key_prefix else s.model_copy(update=change) for s in self.specs),
            tuple(b if b.key_prefix else replace(b, key_prefix=key_prefix) for b in self.broken),
            self.folder,
            key_prefix,
        )

    def again(self, now: dt.datetime) -> Models:
        """Return what the folder says now; models without a folder never change.

        Raises:
            ConfigError: If the folder is gone.
        """
        if self.folder is None:
            return self
        found = read_models(self.folder, now).under(self.key_prefix)
        for broken in self.broken:
            if broken.spec in found.specs:
                found = found.without(broken)
        return found

    def find(self, model: str) -> ModelSpec:
        """Return one model, whatever is wrong with others.

        Raises:
            ConfigError: If there is none of that name, or its file does not load.
        """
        for spec in self.specs:
            if spec.model == model:
                return spec
        for broken in self.broken:
            if model in (broken.name, broken.path.stem):
                raise ConfigError(f"{model} does not load:\n{broken.problems}")
        names = [spec.model for spec in self.specs]
        where = f" in {self.folder}" if self.folder else ""
        said = f"No model {model!r}{where}{did_you_mean(model, names) or '.'}"
        if names:
            said += f" There are: {listed(names)}."
        if self.broken:
            said += f" Not loaded: {listed(broken.path.name for broken in self.broken)}."
        raise ConfigError(said)

    def without(self, broken: BrokenModel) -> Models:
        """Return the same with a model that turned out to be broken after it was read."""
        specs = tuple(spec for spec in self.specs if spec != broken.spec)
        return Models(specs, (*self.broken, broken), self.folder, self.key_prefix)


def read_models(
    models_dir: Path,
    now: dt.datetime,
    more_problems: Callable[[ModelSpec], Sequence[Problem]] = lambda _: (),
    known: Path | None = None,
) -> Models:
    """Read every model of a folder; a file that is wrong stops no other.

    Of two files that declare one model the one that is named after it counts, else the first.

    Args:
        models_dir: Folder with one ``.yaml`` or ``.yml`` file per model; it may be empty.
        now: The present moment, up to which windows are counted.
        more_problems: Finds what only libraries can tell that loading does not import.
        known: File of the specs that an earlier process parsed, by content; it is brought up to
            date. None parses them all.

    Raises:
        ConfigError: If there is no such folder.
    """
    earlier = None if known is None else KnownSpecs(known)
    failed: list[tuple[Path, str]] = []
    good: list[tuple[Path, ModelSpec]] = []
    for path in _files(models_dir):
        try:
            spec = load_model(path, earlier)
            check_window_count(spec.time, now)
            _refuse(path, more_problems(spec))
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
    if earlier is not None:
        earlier.save()
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


def _declared(path: Path) -> Mapping[object, object]:
    """Return as much of a file as is a mapping at all."""
    try:
        value = read_tree(_read_text(path)).value
    except ConfigError:
        return {}
    return value if isinstance(value, dict) else {}


def load_model(path: Path, earlier: KnownSpecs | None = None) -> ModelSpec:
    """Load one model's spec.

    Args:
        path: Its file.
        earlier: Specs that need not be parsed again.

    Raises:
        ConfigError: If the file cannot be read or is wrong; one line ``file:line: message`` per
            problem, all of them at once.
    """
    text, origin = _read_text(path), str(path)
    key, found = (text, origin), _seen.get((text, origin))
    if earlier is not None:
        found = earlier.parsed(text, lambda: parse_model(text, origin))
    if key not in _seen and len(_seen) >= _MOST_SEEN:
        _seen.clear()
    found = _seen[key] = found or _parsed(text, origin)
    if isinstance(found, str):
        raise ConfigError(found)
    return found


# What files held, by text and path: sensors look at the folder again and again, the first time
# after a process has loaded it.
_seen: dict[tuple[str, str], ModelSpec | str] = {}
_MOST_SEEN = 4096


def _parsed(text: str, origin: str) -> ModelSpec | str:
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
    findings = [(line, _place_problem(path, message)) for line, path, message in tree.problems]
    if tree.value is None:
        findings = findings or [(1, "the file is empty; a spec starts with 'model: <name>'")]
    elif not isinstance(tree.value, dict):
        findings.append((1, "a spec is a mapping that starts with 'model: <name>'"))
    else:
        spec, problems = _validate(tree.value, tree.texts)
        # What only repeats, in other words, a problem already found while reading a value is left.
        known = {path for _, path, _ in tree.problems if path in tree.texts}
        findings += _located(tree, [one for one in problems if one.path not in known])
        if spec is not None and not findings:
            return spec
    raise ConfigError(_listing(origin, findings))


def spec_from_mapping(data: Mapping[str, object], origin: str = "spec") -> ModelSpec:
    """Turn plain Python values, such as a Dagster component's attributes, into a spec.

    Raises:
        ConfigError: With one line per problem, each naming its place in the mapping.
    """
    spec, problems = _validate(dict(data), {})
    if spec is None:
        raise ConfigError(
            "\n".join(printable(redact(f"{origin}: {_place_problem(*p)}")) for p in problems)
        )
    return spec


def _refuse(path: Path, problems: Sequence[Problem]) -> None:
    """Raise what is wrong with a spec that could be read, with its lines."""
    if problems:
        tree = read_tree(_read_text(path))
        raise ConfigError(_listing(str(path), _located(tree, problems)))


def _validate(
    data: dict[str, object], texts: Mapping[FieldPath, str]
) -> tuple[ModelSpec | None, list[Problem]]:
    try:
        return ModelSpec.model_validate(data), []
    except ValidationError as error:
        return None, explain(error, data, texts)


def _located(tree: Tree, problems: Sequence[Problem]) -> list[_Finding]:
    return [(tree.line_of(path), _place_problem(path, message)) for path, message in problems]


def _place_problem(path: FieldPath, message: str) -> str:
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


def explain(
    error: ValidationError, data: Mapping[str, object], texts: Mapping[FieldPath, str]
) -> list[Problem]:
    """Turn a validation error into problems, in the order of the fields.

    Parts that are right in themselves are checked against each other even if others are wrong,
    so that a user sees everything at once.

    Args:
        error: What pydantic raised for ``data``.
        data: The values of the spec.
        texts: What was written in the file for each scalar, where that is known.
    """
    details = error.errors(include_url=False)
    problems = list(_unfold(details, data, texts))
    if all(detail["type"] != "spec_problems" for detail in details):
        problems += _misfits(details, data, texts)
    return list(dict.fromkeys(problems))


def _misfits(
    details: list[ErrorDetails], data: Mapping[str, object], texts: Mapping[FieldPath, str]
) -> Iterator[Problem]:
    """Check the parts that pydantic accepted, without their unknown keys, against each other."""
    unknown = [d["loc"] for d in details if d["type"] == "extra_forbidden"]
    wrong = {str(d["loc"][0]) for d in details if d["type"] != "extra_forbidden"}
    known = data
    for loc in unknown:
        known = _dropped(known, _place(loc, data, "extra_forbidden"))
    parts: dict[str, Any] = {}
    for name, part in ModelSpec.model_fields.items():
        if name not in known or name in wrong:
            continue
        try:
            parts[name] = TypeAdapter(part.rebuild_annotation()).validate_python(known[name])
        except ValidationError as error:
            wrong.add(name)
            for detail in error.errors(include_url=False):
                path = _place((name, *detail["loc"]), data, detail["type"])
                yield Problem(path, _message(detail, path, texts.get(path)))
    yield from find_problems(ModelSpec.model_construct(set(parts), **parts), without=wrong)


def _unfold(
    details: list[ErrorDetails], data: Mapping[str, object], texts: Mapping[FieldPath, str]
) -> Iterator[Problem]:
    for detail in details:
        if detail["type"] == "spec_problems":
            yield from detail["ctx"]["problems"]
            continue
        path = _place(detail["loc"], data, detail["type"])
        yield Problem(path, _message(detail, path, texts.get(path)))


def _message(detail: ErrorDetails, path: FieldPath, text: str | None) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _keys_beside(path, detail["loc"])
        if path[-1] == "mention" and (place := RECEIVERS.get(str(path[-2]))):
            return f"mention is a key of slack; here {place.unmentioned}"
        return f"unknown key{offer(str(path[-1]), known, 30, 'Known keys')}"
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        options = detail["ctx"]["expected"]
        near = did_you_mean(str(value), options.replace("'", "").replace(" or ", ", ").split(", "))
        return f"{shown(value)} is not one of {options}{near}{_trap(value, text)}"
    if kind == "value_error":
        return str(detail["ctx"]["error"]) + _trap(value, text)
    if kind in _EXPECTED:
        found = "nothing" if value is None else shown(value)
        return f"expected {_EXPECTED[kind]}, found {found}{_trap(value, text)}"
    return f"{detail['msg'].removeprefix('Input ')}, found {shown(value)}"


def _trap(value: object, text: str | None) -> str:
    """Explain a value that YAML read as something else than what it looks like."""
    if text is None or value is None:
        return ""
    if isinstance(value, str):
        return ". Write numbers as 0.05 or 1000, without quotes" if _NUMBER.fullmatch(value) else ""
    if text == str(value):
        return ""
    read = _OTHER_SCALARS.get(type(value), "a date")
    return f". YAML reads {text} as {read}; write '{text}' in quotes if it is text"


def _place(loc: tuple[str | int, ...], data: object, kind: str) -> FieldPath:
    """Keep the parts of a location that are keys; pydantic adds names of types to it."""
    path: list[str | int] = []
    for depth, part in enumerate(loc):
        is_key = isinstance(data, Mapping) and part in data
        is_index = isinstance(data, list | tuple) and isinstance(part, int)
        if is_key or is_index:
            data = data[part]  # type: ignore[index]
        elif not isinstance(data, Mapping) or depth < len(loc) - 1 or kind != "missing":
            continue  # the name of a type; only a missing key comes last
        path.append(part)
    return tuple(path)


def _keys_beside(path: FieldPath, loc: tuple[str | int, ...]) -> list[str]:
    """List the keys that may stand where the last part of a path stands.

    Where one of several classes may stand, pydantic's location names the one that was tried. An
    index, or a key of a container such as the name of a feature, stays within the class.
    """
    part: type[BaseModel] = ModelSpec
    for step in path[:-1]:
        field = find_fields(part).get(str(step))
        below = list(find_classes(field.annotation)) if field else []
        part = next((one for one in below if one.__name__ in loc), (below or [part])[0])
    return list(find_fields(part))


def _dropped(value: Any, path: FieldPath) -> Any:
    if len(path) == 1:
        return {key: child for key, child in value.items() if key != path[0]}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    changed = [(k, _dropped(child, path[1:]) if k == path[0] else child) for k, child in items]
    return dict(changed) if isinstance(value, Mapping) else [child for _, child in changed]
