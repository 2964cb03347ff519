"""Pydantic's errors in words that tell a user what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mlmon_dagster.spec.checks import Path, Problem
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
_OTHER_SCALARS = {bool: "true or false", int: "a number", float: "a number"}


def explain(
    error: ValidationError, data: Mapping[str, object], texts: Mapping[Path, str]
) -> list[Problem]:
    """Turn a validation error into problems, in the order of the fields.

    Where only unknown keys or bad optional values stand in the way, the parts are checked against
    each other as well, so that a user sees everything at once.

    Args:
        error: What pydantic raised for ``data``.
        data: The values of the spec.
        texts: What was written in the file for each scalar, where that is known.
    """
    details = error.errors(include_url=False)
    problems = list(_unfold(details, data, texts))
    repaired = _without_unknown_keys(details, data)
    if repaired is not None:
        try:
            ModelSpec.model_validate(repaired)
        except ValidationError as second:
            problems += _unfold(second.errors(include_url=False), data, texts)
    return list(dict.fromkeys(problems))


def _unfold(
    details: list[ErrorDetails], data: Mapping[str, object], texts: Mapping[Path, str]
) -> Iterator[Problem]:
    for detail in details:
        if detail["type"] == "spec_problems":
            yield from detail["ctx"]["problems"]
            continue
        path = _place(detail["loc"], data)
        yield Problem(path, _message(detail, path, texts.get(path)))


def _message(detail: ErrorDetails, path: Path, text: str | None) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _keys_beside(path)
        return f"unknown key{did_you_mean(str(path[-1]), known)} Known keys: {listed(known, 30)}"
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
    """Explain a value that YAML read as something else than text."""
    if text is None or isinstance(value, str) or value is None or text == str(value):
        return ""
    read = _OTHER_SCALARS.get(type(value), "a date")
    return f". YAML reads {text} as {read}; write '{text}' in quotes if it is text"


def _place(loc: tuple[str | int, ...], data: object) -> Path:
    """Keep the parts of a location that are keys; pydantic adds names of types to it."""
    path: list[str | int] = []
    for depth, part in enumerate(loc):
        is_key = isinstance(data, Mapping) and part in data
        is_index = isinstance(data, list | tuple) and isinstance(part, int)
        if is_key or is_index:
            data = data[part]  # type: ignore[index]
        elif not isinstance(data, Mapping) or depth < len(loc) - 1:
            continue  # the name of a type; only a missing key comes last
        path.append(part)
    return tuple(path)


def _keys_beside(path: Path) -> list[str]:
    model: Any = ModelSpec
    for part in path[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {f.alias or name: f.annotation for name, f in model.model_fields.items()}
            model = _model_within(fields.get(str(part)))
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_within(annotation: Any) -> Any:
    """Find the model class in an annotation such as ``dict[str, Feature]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _without_unknown_keys(
    details: list[ErrorDetails], data: Mapping[str, object]
) -> Mapping[str, object] | None:
    """Copy the data without its unknown keys; None if anything else is wrong with it."""
    if any(detail["type"] != "extra_forbidden" for detail in details):
        return None
    copy = data
    for detail in details:
        copy = _dropped(copy, _place(detail["loc"], data))
    return copy


def _dropped(value: Any, path: Path) -> Any:
    if len(path) == 1:
        return {key: child for key, child in value.items() if key != path[0]}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    changed = [(k, _dropped(child, path[1:]) if k == path[0] else child) for k, child in items]
    return dict(changed) if isinstance(value, Mapping) else [child for _, child in changed]
