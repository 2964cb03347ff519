"""Pydantic's errors in words that tell a user what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from mlmon_dagster.spec.checks import Path, Problem, find_problems
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import did_you_mean, listed
from mlmon_dagster.spec.scalars import shown

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


def explain(
    error: ValidationError, data: Mapping[str, object], texts: Mapping[Path, str]
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
    details: list[ErrorDetails], data: Mapping[str, object], texts: Mapping[Path, str]
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
    details: list[ErrorDetails], data: Mapping[str, object], texts: Mapping[Path, str]
) -> Iterator[Problem]:
    for detail in details:
        if detail["type"] == "spec_problems":
            yield from detail["ctx"]["problems"]
            continue
        path = _place(detail["loc"], data, detail["type"])
        yield Problem(path, _message(detail, path, texts.get(path)))


def _message(detail: ErrorDetails, path: Path, text: str | None) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _keys_beside(path, detail["loc"])
        hint = did_you_mean(str(path[-1]), known) or "."
        return f"unknown key{hint} Known keys: {listed(known, 30)}"
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


def _place(loc: tuple[str | int, ...], data: object, kind: str) -> Path:
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


def _keys_beside(path: Path, loc: tuple[str | int, ...]) -> list[str]:
    """List the keys that may stand where the last part of a path stands.

    Where one of several classes may stand, pydantic's location names the one that was tried.
    """
    model, levels = ModelSpec, 0
    for part in path[:-1]:
        if levels:  # an index or a key of a container, such as the name of a feature
            levels -= 1
            continue
        fields = {f.alias or name: f.annotation for name, f in model.model_fields.items()}
        found = _model_within(fields.get(str(part)), loc)
        if found is None:
            return []
        model, levels = found
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_within(annotation: Any, loc: tuple[str | int, ...]) -> tuple[Any, int] | None:
    """Find the model class in an annotation, and how many containers it is in."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, 0
    inner = [_model_within(argument, loc) for argument in get_args(annotation)]
    models = [found for found in inner if found is not None]
    if not models:
        return None
    model, levels = next((m for m in models if m[0].__name__ in loc), models[0])
    return model, levels + (get_origin(annotation) in (dict, tuple))


def _dropped(value: Any, path: Path) -> Any:
    if len(path) == 1:
        return {key: child for key, child in value.items() if key != path[0]}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    changed = [(k, _dropped(child, path[1:]) if k == path[0] else child) for k, child in items]
    return dict(changed) if isinstance(value, Mapping) else [child for _, child in changed]
