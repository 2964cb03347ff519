"""What only some tasks declare: what decisions cost, and whose rates are compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from mlmon_dagster.spec.scalars import Declared, Names, as_tuple


class Costs(Declared):
    """What one row of each outcome costs; a gain is a negative cost."""

    tp: float = 0.0
    fp: float = 0.0
    fn: float = 0.0
    tn: float = 0.0


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else as_tuple(value)


class Fairness(Declared):
    """Slices whose rates are compared with those of a reference group."""

    slices: Annotated[Names, BeforeValidator(_one_or_more)]
    reference: dict[str, str] | None = None
