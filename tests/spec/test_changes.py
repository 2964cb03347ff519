"""Every key of a spec has one row that says what follows when it changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.changes import RULES, fixed_values, refused_changes, rule_of
from tests.conftest import make_spec

DOCS = Path(__file__).parents[2] / "docs" / "spec.md"


def parts_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from parts_of(argument)


def keys(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield every key of a part of the spec, down to those that have no parts."""
    for name, field in model.model_fields.items():
        key = (*path, field.alias or name)
        parts = list(parts_of(field.annotation))
        below = (*key, "<name>") if key == ("features",) else key
        for part in parts:
            yield from keys(part, below)
        if not parts:
            yield ".".join(key)


KEYS = sorted(set(keys(ModelSpec)))


def render_rules() -> str:
    """Return the table as Markdown, as docs/spec.md shows it: keys with one answer share a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    rest: dict[tuple[str, str], list[str]] = {}
    for rule in RULES:
        answer = (rule.effect, rule.how)
        cells = rows.setdefault(answer, [])
        if len(rule.keys) > 3 and rule.where.startswith(("monitors.", "source.")):
            # Every key of the place has a row, so these are those without a row of their own.
            rest.setdefault(answer, []).append(f"`{rule.where}`")
            continue
        place = f"`{rule.where}`: " if rule.where else ""
        cells.append(place + ", ".join(f"`{key}`" for key in rule.keys))
    lines = ["| key | a change is | that means |", "|---|---|---|"]
    for (effect, how), cells in rows.items():
        if others := rest.get((effect, how)):
            cells.append(f"all other keys of {', '.join(others)}")
        lines.append(f"| {'; '.join(cells)} | {effect} | {how}. |")
    return "\n".join(lines)


def test_every_key_of_the_spec_has_a_row() -> None:
    without = []
    for key in KEYS:
        try:
            rule_of(key)
        except KeyError:
            without.append(key)
    assert without == []
    assert len(KEYS) > 200


def test_no_row_is_about_a_key_that_does_not_exist_or_twice() -> None:
    paths = [path for rule in RULES for path in rule.paths]

    assert len(paths) == len(set(paths))
    unknown = [p for p in paths if not any(k == p or k.startswith(f"{p}.") for k in KEYS)]
    assert unknown == []


def test_the_table_of_the_docs_is_the_one_of_the_code() -> None:
    assert render_rules() in DOCS.read_text()


def test_the_values_that_cannot_change_are_those_of_the_refused_keys() -> None:
    fixed = {rule_of(key).effect for key in fixed_values(make_spec(), "predictions")}
    refused = {path for rule in RULES if rule.effect == "refused" for path in rule.paths}

    assert fixed == {"refused"}
    told = {"features.<name>.type" if k.startswith("features.") else k
            for k in fixed_values(make_spec(), "predictions")}  # fmt: skip
    assert told == refused


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"age": {"type": "categorical"}}, ["features.age.type is 'text'"]),
        ({"years": {"type": "text", "alias": ["age"]}}, ["features.age.type is 'text'"]),
        ({"years": {"type": "numeric", "alias": ["age"]}}, []),
        ({"other": {"type": "text"}}, []),
    ],
)
def test_a_stored_column_keeps_its_type_also_under_another_name(
    features: dict[str, Any], said: list[str]
) -> None:
    before = fixed_values(make_spec(features={"age": {"type": "numeric"}}), "predictions")

    now = make_spec(features=features)

    found = refused_changes(now, before)
    assert [f"{key} {text}".partition(",")[0] for key, text in found] == said
