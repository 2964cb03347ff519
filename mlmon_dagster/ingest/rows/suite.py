"""Great Expectations, run without leaving anything behind or reporting to anybody."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

# What the library calls optional (its `compatibility` modules) and still imports where installed,
# at seconds a process. None of it judges a pandas frame; the mapper of SQLAlchemy it never uses.
_BACKENDS = (
    "pyspark", "boto3", "botocore", "google.auth", "google.cloud", "google.oauth2", "azure",
    "snowflake", "databricks", "psycopg2", "sqlalchemy.orm",
)  # fmt: skip
# What it needs for a test, a picture or a page that is rarely asked for, a third of its import:
# imported once somebody asks.
_LATER = ("scipy.stats", "altair", "mistune", "jsonschema")


class Made(Protocol):
    """An expectation of the library, made with its arguments."""

    meta: object


class Kind(Protocol):
    """A class of expectations."""

    @property
    def __fields__(self) -> Mapping[str, object]:
        """Its arguments."""

    def __call__(self, **arguments: object) -> Made:
        """Make one."""


class Evaluated(Protocol):
    """What the library says of an expectation."""

    success: bool
    result: Mapping[str, Any]
    exception_info: Mapping[str, object]


@functools.cache
def great_expectations() -> Any:
    """Import the library, which takes seconds: only where rows or expectations are judged.

    Its optional backends are kept out: here it judges pandas frames. Who uses the library with
    Spark in the same process imports it before, and is left alone.
    """
    with (
        warnings.catch_warnings(),
        _nothing_collected(),
        _imported_without(_BACKENDS),
        _imported_later(_LATER),
        _fields_copied_once(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)
        import great_expectations
        import great_expectations.expectations
        from great_expectations.execution_engine import pandas_execution_engine
    # It hashes every cell of every batch, twice, for a fingerprint that nobody reads; that is 85 %
    # of its time. Above this size it leaves that out by itself.
    pandas_execution_engine.HASH_THRESHOLD = 0
    return great_expectations


def run_suite(frame: pd.DataFrame, expectations: Sequence[Made]) -> list[Evaluated]:
    """Return one result per expectation, in their order.

    Args:
        frame: The rows; results name them by its index.
        expectations: Instances that no other suite holds.
    """
    gx = great_expectations()
    context = gx.get_context(mode="ephemeral", project_config=_context_config())
    asset = context.data_sources.add_pandas("ingest").add_dataframe_asset("batch")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
    for position, expectation in enumerate(expectations):
        expectation.meta = {"position": position}
    found = batch.validate(
        gx.ExpectationSuite(name="rows", expectations=list(expectations)),
        result_format={"result_format": "COMPLETE", "include_unexpected_rows": False},
    )
    # The context lives on in cycles of references; the rows should not.
    for name in list(frame.columns):
        del frame[name]
    # The suite answers in an order of its own.
    return sorted(found.results, key=lambda result: result.expectation_config.meta["position"])


def is_evaluated(result: Evaluated) -> bool:
    """Say whether an expectation was evaluated at all; if not, its result is no verdict."""
    info = result.exception_info
    return "exception_message" in info and not info.get("raised_exception")


@contextmanager
def _imported_without(names: Sequence[str]) -> Iterator[None]:
    """Let imports of these packages fail for a while, but for those that are loaded already."""
    hidden = [name for name in names if name not in sys.modules]
    loaded: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # takes None
    loaded.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del loaded[name]


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Look for no garbage for a while, nor ever again in what was made meanwhile.

    Thousands of classes are made and none is dropped: collecting takes a quarter of the import, and
    once more as much afterwards, unless they are set aside.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


class _Later(ModuleType):
    """Stands for a module that is imported with the first name that is asked of it."""

    def __getattr__(self, name: str) -> object:
        self.leave()
        return getattr(importlib.import_module(self.__name__), name)

    def enter(self) -> None:
        """Be what an import of the module finds."""
        sys.modules[self.__name__] = self
        package, _, own = self.__name__.rpartition(".")
        if package:
            setattr(importlib.import_module(package), own, self)

    def leave(self) -> None:
        """Be found no more; whoever has it keeps it."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        package, _, own = self.__name__.rpartition(".")
        if package and vars(sys.modules[package]).get(own) is self:
            delattr(sys.modules[package], own)


@contextmanager
def _imported_later(names: Sequence[str]) -> Iterator[None]:
    """Let imports of these modules find what stands for them for a while, unless they are there."""
    later = [_Later(name) for name in names if name not in sys.modules]
    for module in later:
        module.enter()
    try:
        yield
    finally:
        for module in later:
            module.leave()


@contextmanager
def _fields_copied_once() -> Iterator[None]:
    """Let classes take over the fields of their bases for a while without all that is in them.

    Every one of hundreds of classes copies its bases' fields with each object in them, a third of
    the import. A class changes of a field what is copied here: itself, its lists and dictionaries,
    and what was declared of it.
    """
    from pydantic.v1 import fields

    def copied(field: fields.ModelField, _: object) -> fields.ModelField:
        new = fields.ModelField.__new__(fields.ModelField)
        for name in fields.ModelField.__slots__:
            if hasattr(field, name):
                value = getattr(field, name)
                is_own = isinstance(value, list | dict | fields.FieldInfo)
                setattr(new, name, copy(value) if is_own else value)
        return new

    setattr(fields.ModelField, "__deepcopy__", copied)  # noqa: B010  # mypy knows no such method
    try:
        yield
    finally:
        delattr(fields.ModelField, "__deepcopy__")


def _context_config() -> object:
    """Return the settings of a context that reports to nobody and leaves nothing on disk."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
