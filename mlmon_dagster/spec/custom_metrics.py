"""Metrics that a user writes: a function of a window's rows, named in the spec, and its loading.

The function is imported where it is asked for, never while a spec loads.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Final, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.metric_registry import Better
from mlmon_dagster.spec.monitors import Monitor, Severity
from mlmon_dagster.spec.names import offer
from mlmon_dagster.spec.scalars import FUNCTION, KOfN, Listed, WindowCount, as_tuple, shown

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MARK: Final = "__mlmon_metric__"
_Function = TypeVar("_Function", bound=Callable[..., object])


class CustomMetric(Monitor):
    """A number that a function of the user computes from the rows of each window, and its monitor.

    It fails where a window lies beyond what the baseline's windows make likely, on the side that
    is not ``better``, and by at least ``change``.
    """

    of: str
    name: str = ""
    columns: Listed = ()
    arguments: dict[str, str | bool | int | float] = Field(default={})
    needs_actuals: bool | None = None
    better: Better = "neither"
    change: float | None = Field(default=None, gt=0)
    min_rows: int = Field(default=30, ge=1)
    sample: int = Field(default=100_000, ge=1)
    severity: Severity = "WARN"
    windows: WindowCount = KOfN(2, 3)

    @model_validator(mode="after")
    def _names_a_function(self) -> Self:
        if not FUNCTION.fullmatch(self.of):
            raise ValueError(
                f"{shown(self.of)} does not name a function; write package.module:function"
            )
        if not _NAME.fullmatch(self.series):
            raise ValueError(
                f"{shown(self.series)} cannot name a metric; write a name of lower-case letters, "
                "digits and _"
            )
        return self

    @property
    def series(self) -> str:
        """The name that its numbers are stored under: as declared, or as the function is called."""
        return self.name or self.of.partition(":")[2]

    @property
    def is_of_truth(self) -> bool:
        """Whether only rows with ground truth count: as declared, or as `actual` is read."""
        return "actual" in self.columns if self.needs_actuals is None else self.needs_actuals


def _in_short(value: object) -> object:
    """Read the name of a function as the metric that its decorator declares."""
    entries = as_tuple(value)
    if not isinstance(entries, tuple):
        entries = (entries,)
    return tuple({"of": entry} if isinstance(entry, str) else entry for entry in entries)


CustomMetrics = Annotated[
    tuple[CustomMetric, ...],
    BeforeValidator(
        _in_short, json_schema_input_type=str | CustomMetric | tuple[str | CustomMetric, ...]
    ),
]


def metric(**declared: object) -> Callable[[_Function], _Function]:
    """Declare a metric where its function is, so that a spec needs only the function's name.

    Args:
        **declared: Keys as in the spec, such as ``columns``, ``better`` and ``windows``; what the
            spec says goes first.

    Returns:
        A decorator; the function stays as it is.

    Raises:
        ConfigError: If a key is unknown or its value is wrong.

    Example:
        >>> @metric(columns=["premium"], better="higher")
        ... def mean_premium(rows):
        ...     return rows["premium"].mean()
        >>> mean_premium.__mlmon_metric__["better"]
        'higher'
    """

    def decorate(function: _Function) -> _Function:
        _declare({**declared, "of": f"{function.__module__}:{function.__name__}"})
        setattr(function, _MARK, dict(declared))
        return function

    return decorate


def _declare(said: dict[str, object]) -> CustomMetric:
    try:
        return CustomMetric.model_validate({"name": "metric", **said})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{said['of']} declares {where}: {first['msg']}") from None


@dataclass(frozen=True)
class LoadedMetric:
    """A metric with its function.

    Attributes:
        declared: What the spec says, and what the decorator says beyond that.
        function: Takes a DataFrame of the columns and returns a number; None if it cannot be used.
        problem: Why not; empty if it can.
        version: Tells one text of the function from another.
    """

    declared: CustomMetric
    function: Callable[..., object] | None = None
    problem: str = ""
    version: str = ""


def load_metric(declared: CustomMetric, known: Collection[str]) -> LoadedMetric:
    """Import the function of a metric.

    Args:
        declared: As in the spec.
        known: The columns that it may read.

    Returns:
        It, or why it cannot be used: whatever is wrong with a user's module stops only its metrics.
    """
    module, _, name = declared.of.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a user's module raises
        why = f"{declared.of} cannot be imported: {type(error).__name__}: {error}"
        return LoadedMetric(declared, problem=why)
    if not callable(function):
        return LoadedMetric(declared, problem=f"{declared.of} is no function")
    own = {key: getattr(declared, key) for key in declared.model_fields_set}
    whole = _declare({**getattr(function, _MARK, {}), **own, "name": declared.series})
    if not whole.columns:
        why = f"{declared.of} reads no columns; name them in the spec or in its decorator"
        return LoadedMetric(whole, problem=why)
    for column in whole.columns:
        if column not in known:
            why = f"{declared.of} reads '{column}', no column{offer(column, known)}"
            return LoadedMetric(whole, problem=why)
    return LoadedMetric(whole, function, version=_version_of(function, whole))


def _version_of(function: Callable[..., object], declared: CustomMetric) -> str:
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # built in, or made while running
        text = repr(getattr(function, "__qualname__", type(function)))
    rows = declared.columns, declared.is_of_truth, declared.sample, declared.min_rows
    told = repr((text, *rows, sorted(declared.arguments.items())))
    return hashlib.sha256(told.encode()).hexdigest()[:8]
