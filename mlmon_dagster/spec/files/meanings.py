"""What the keys of a spec mean: editors show it by `mlmon schema`, and the documentation does.

The lines are in ``keys.md``, by the path of the part that they are about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue

from mlmon_dagster.spec.model import ModelSpec

_FILE = Path(__file__).with_name("keys.md")
_BLOCK = re.compile(r"^## (\S+(?: \w+)?)\n\n((?:- .+\n)+)", re.MULTILINE)
_LINE = re.compile(r"^- ((?:`\w+`(?:, )?)+): (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


def read_meanings() -> dict[str, dict[str, str]]:
    """Return what each key means, by part of the spec, as Markdown with links of docs/spec.md."""
    return {
        part: {key: text for keys, text in _LINE.findall(lines) for key in re.findall(r"\w+", keys)}
        for part, lines in _BLOCK.findall(_FILE.read_text(encoding="utf-8"))
    }


def find_part(part: str) -> type[BaseModel]:
    """Return the class of a part of the spec.

    Args:
        part: Its keys from the top with dots, such as ``monitors.drift``, or ``top``; then, where
            one of several classes may stand there, a key that only it has.

    Raises:
        KeyError: If there is no such part, or more than one.
    """
    path, _, key = part.partition(" ")
    found: list[type[BaseModel]] = [ModelSpec]
    for step in path.split(".") if path != "top" else ():
        fields = [field for one in found if (field := find_fields(one).get(step))]
        found = list(dict.fromkeys(c for field in fields for c in find_classes(field.annotation)))
    found = [one for one in found if not key or key in find_fields(one)]
    if len(found) != 1:
        raise KeyError(f"{part}: {[one.__name__ for one in found]}")
    return found[0]


def find_fields(part: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a class by the names that they have in a spec."""
    return {field.alias or name: field for name, field in part.model_fields.items()}


def find_classes(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the classes of the spec that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from find_classes(argument)


def describe_schema() -> JsonSchemaValue:
    """Return the JSON schema of specs, in which every key says what it means."""
    schema = ModelSpec.model_json_schema(by_alias=True)
    for part, meanings in read_meanings().items():
        found = find_part(part)
        told = schema if found is ModelSpec else schema["$defs"][found.__name__]
        for key, text in meanings.items():
            told["properties"][key]["description"] = _LINK.sub(r"\1", text)
    return schema
