"""What the keys of a spec mean: `mlmon schema` shows it, editors by it, and the documentation.

The lines are in ``keys.md``, by the path of the part that they are about.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.scalars import KOfN, format_duration

_FILE = Path(__file__).with_name("keys.md")
_BLOCK = re.compile(r"^## (\S+(?: \w+)?)\n\n((?:- .+\n)+)", re.MULTILINE)
_LINE = re.compile(r"^- ((?:`\w+`(?:, )?)+): (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
_OF_EVERY_MONITOR = ("severity", "windows")  # they have defaults of their own in each family


def read_meanings() -> dict[str, dict[str, str]]:
    """Return what each key means, by part of the spec, as Markdown with links of docs/spec.md."""
    return {
        part: {key: text for keys, text in _LINE.findall(lines) for key in re.findall(r"\w+", keys)}
        for part, lines in _BLOCK.findall(_FILE.read_text(encoding="utf-8"))
    }


class Key(NamedTuple):
    """A key of a spec, its default and what it means, as Markdown."""

    name: str
    default: str
    meaning: str


def explain_keys(part: str) -> list[Key]:
    """Return the keys of a part of the spec; a part of several classes has those of one.

    Raises:
        KeyError: If there is no such part.
    """
    fields = find_fields(find_part(part))
    told = dict.fromkeys(_OF_EVERY_MONITOR, "") if fields.keys() >= {*_OF_EVERY_MONITOR} else {}
    told |= read_meanings()[part]
    return [Key(name, write_default(fields[name]), text) for name, text in told.items()]


def write_default(field: FieldInfo) -> str:
    """Write a default as it would stand in a spec; parts with a section of their own have none."""
    if field.is_required():
        return "-"
    return write_value(field.get_default(call_default_factory=True, validated_data={}))


def write_value(value: object) -> str:
    """Write a value of the spec."""
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_none=True)
        is_condition = len(given) == 1 and given.keys() <= {"above", "below"}
        return "".join(f"`{{{k}: {v:g}}}`" for k, v in given.items()) if is_condition else "below"
    if value is None or value in ((), {}, ""):
        return "none"
    if isinstance(value, dt.timedelta):
        return f"`{format_duration(value)}`"
    if isinstance(value, KOfN):
        return f"`{value.k} of {value.n}`"
    if isinstance(value, tuple):
        return "below" if isinstance(value[0], BaseModel) else f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def write_plain(markdown: str) -> str:
    """Return Markdown as a terminal shows it: without links and marks of code."""
    return _LINK.sub(r"\1", markdown).replace("`", "")


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
