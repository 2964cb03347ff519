"""Great Expectations, run without leaving anything behind or reporting to anybody."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd


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
    """Import the library, which takes seconds: only where rows or expectations are judged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # It imports PySpark where that is installed, which warns of the version of pandas.
        warnings.filterwarnings("ignore", "PySpark", FutureWarning)
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
