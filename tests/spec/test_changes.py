"""Every key of a spec has one row that says what follows when it changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.changes import RULES, fixed_values, refused_changes, rule_of
from tests.conftest import make_spec
from tests.site_pages import read_page


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


def test_the_page_of_the_spec_has_every_key_of_the_table() -> None:
    table = read_page("spec.md").partition("## When a key changes")[2]
    listed = set(re.findall(r"`([\w.<>]+)`", table))
    for rule in RULES:
        assert {*rule.keys} <= listed or rule.where in listed, rule
        assert rule.how in table


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
