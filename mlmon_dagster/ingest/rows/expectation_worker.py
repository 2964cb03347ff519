"""Great Expectations, in a process of its own that answers what `expectations` asks.

Importing the library takes seconds and loads whatever it finds installed, Spark and the clients of
clouds included. A run, a code location or a page is spared both: only this process imports it.
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import gc
import html
import importlib
import os
import pickle
import re
import select
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
from great_expectations import expectations as gxe
from great_expectations.core import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
    RunIdentifier,
)
from great_expectations.core.batch_definition import BatchDefinition
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from great_expectations.execution_engine import pandas_execution_engine
from great_expectations.expectations import expectation as bases
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.rows.expectations import Finding, Result
from mlmon_dagster.ingest.rows.rules import rules_of
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import Expectation as Declared
from mlmon_dagster.spec.names import did_you_mean, listed
from mlmon_dagster.spec.sources import Stream

IDLE_SECONDS = 600  # then it ends, since it holds 300 MB; whoever asks again starts another
_OURS: Final = frozenset(
    {"batch_id", "catch_exceptions", "id", "meta", "rendered_content", "result_format", "severity",
     "windows"}
)  # fmt: skip
_COLUMN_KEYS: Final = ("column", "column_A", "column_B", "column_list", "column_set")
# They need a database, or another table.
_NOT_OF_ROWS: Final = frozenset(
    {"expect_query_results_to_match_comparison", "expect_table_row_count_to_equal_other_table"}
)
_OF_ROWS: Final = (
    bases.ColumnMapExpectation,
    bases.ColumnPairMapExpectation,
    bases.MulticolumnMapExpectation,
)
_OF_WHOLE_COLUMNS: Final = tuple(
    map(
        get_expectation_impl,
        ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list"),
    )
)
_SEVERITIES: Final = {"WARN": "warning", "ERROR": "critical", "refuse": "critical"}


# What a row is, whatever other rows there are.
_OF_SINGLE_ROWS: Final = frozenset(
    {
        "expect_column_pair_values_a_to_be_greater_than_b",
        "expect_column_pair_values_to_be_equal",
        "expect_column_pair_values_to_be_in_set",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_null",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_match_regex_list",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_not_match_regex",
        "expect_column_values_to_not_match_regex_list",
    }
)


class _WrongError(ConfigError):
    """A declaration that the library refuses, and the keys below it that are wrong."""

    def __init__(self, *problems: tuple[tuple[str, ...], str]) -> None:
        super().__init__("; ".join(said for _, said in problems))
        self.problems = problems


def find_problems(spec: ModelSpec) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what is wrong with the declared expectations: names, arguments, columns."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    for index, declared in enumerate(spec.expectations):
        try:
            _build_expectation(declared, spec)
        except _WrongError as error:
            found += [((index, *path), said) for path, said in error.problems]
    return found


def judge_files(
    tables: Sequence[pa.Table], declared: Sequence[Declared], spec: ModelSpec
) -> list[list[Finding]]:
    """Run expectations on the rows of each file alone.

    Many files are judged as one table where that makes no difference: a call of the library takes
    a tenth of a second, however few the rows.

    Args:
        tables: The rows of each file.
        declared: What is expected of them.
        spec: The model.

    Returns:
        For each file one finding per expectation, in their order.
    """
    is_one = all(
        one.expect in _OF_SINGLE_ROWS and one.arguments.get("mostly", 1) == 1 for one in declared
    )
    if is_one and len(tables) > 1:
        ends = np.cumsum([len(table) for table in tables])
        found = _judge_table(pa.concat_tables(tables), declared, spec)
        if not any(one.error for one in found):
            return [
                [one.of_rows(int(end) - len(table), int(end)) for one in found]
                for table, end in zip(tables, ends, strict=True)
            ]
    return [_judge_table(table, declared, spec) for table in tables]


def _judge_table(table: pa.Table, declared: Sequence[Declared], spec: ModelSpec) -> list[Finding]:
    found: dict[int, Finding] = {}
    built: dict[int, Expectation] = {}
    for position, one in enumerate(declared):
        try:
            built[position] = _build_expectation(one, spec)
        except _WrongError as error:
            found[position] = Finding(error=str(error), kind=str(error))
    frame = table.to_pandas()
    results: list[ExpectationValidationResult | Exception] = []
    try:
        results += _run_suite(frame, list(built.values())) if built else []
    except Exception:  # of a custom class, which spoils the suite: each alone
        results = [_run_alone(frame, _build_expectation(declared[at], spec)) for at in built]
    for (position, expectation), result in zip(built.items(), results, strict=True):
        columns = [name for names in _columns_named(expectation).values() for name in names]
        found[position] = replace(_describe(result), columns=tuple(columns))
    return [found[position] for position in range(len(declared))]


def build_suite(spec: ModelSpec, stream: Stream) -> dict[str, object]:
    """Return the suite of a stream as the library stores it: the rules, then what is declared.

    Raises:
        ConfigError: If the library refuses a declared expectation.
    """
    known = _find_expectations()
    made = [
        _make(known[rule.expectation], {"column": rule.column.name, **dict(rule.options)})
        for rule in rules_of(spec, stream)
    ]
    made += [e for one, e in _build_declared(spec) if one.stream == stream]
    suite = gx.ExpectationSuite(name=f"{spec.model}.{stream}", expectations=made)
    return dict(suite.to_json_dict())


def write_data_docs(
    spec: ModelSpec, windows: Sequence[tuple[str, dt.datetime, Sequence[Result]]], folder: Path
) -> str:
    """Write the library's own pages of what was found, a page a window; return the first's path.

    Args:
        spec: The model, whose present expectations are shown.
        windows: Key, start and stored results of each window.
        folder: Where to.
    """
    context = gx.get_context(mode="ephemeral", project_config=_context_config())
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site: Any = {
        "class_name": "SiteBuilder",
        "store_backend": store,
        "site_index_builder": index,
        "show_how_to_buttons": False,
    }
    context.add_data_docs_site("mlmon", site)
    by_stream: dict[Stream, dict[tuple[str, str], Expectation]] = {}
    for declared, expectation in _build_declared(spec):
        columns = [name for names in _columns_named(expectation).values() for name in names]
        place = by_stream.setdefault(declared.stream, {})
        place[declared.expect, ", ".join(columns)] = expectation
    for stream, known in by_stream.items():
        name = f"{spec.model}.{stream}"
        context.suites.add(gx.ExpectationSuite(name=name, expectations=list(known.values())))
        for key, start, results in windows:
            shown = [
                _validation(known[about], result)
                for result in results
                if (about := (result["expectation"], ", ".join(result["columns"]))) in known
            ]
            if shown:
                context.validation_results_store.add(*_validations(name, key, start, shown))
    return str(context.build_data_docs()["mlmon"])


def _validation(expectation: Expectation, result: Result) -> ExpectationValidationResult:
    """Put a stored result into the library's form; it quotes what the store was allowed to."""
    # The library's pages hold values as they are, and what they are is anybody's.
    values = [html.escape(value) for value in result["values"]]
    found = {"element_count": result["rows"], "partial_unexpected_list": values}
    if result["unexpected"] is not None:
        found["unexpected_count"] = result["unexpected"]
        found["unexpected_percent"] = 100 * result["unexpected"] / max(result["rows"], 1)
    error = html.escape(result["error"]) or None
    info = {"exception_message": error, "exception_traceback": error}
    return ExpectationValidationResult(
        success=result["kept"],
        expectation_config=expectation.configuration,
        result=found,
        exception_info={"raised_exception": error is not None, **info},
    )


def _validations(
    name: str, key: str, start: dt.datetime, results: list[ExpectationValidationResult]
) -> tuple[ValidationResultIdentifier, ExpectationSuiteValidationResult]:
    run = RunIdentifier(run_name=key, run_time=start)
    n, n_kept = len(results), sum(result.success is True for result in results)
    statistics = {
        "evaluated_expectations": n, "successful_expectations": n_kept,
        "unsuccessful_expectations": n - n_kept, "success_percent": 100 * n_kept / n,
    }  # fmt: skip
    meta = {"run_id": run.to_json_dict(), "great_expectations_version": gx.__version__}
    whole = ExpectationSuiteValidationResult(
        success=n == n_kept, results=results, suite_name=name, statistics=statistics, meta=meta
    )
    return ValidationResultIdentifier(ExpectationSuiteIdentifier(name), run, "files"), whole


def _run_suite(
    frame: pd.DataFrame, expectations: Sequence[Expectation]
) -> list[ExpectationValidationResult]:
    """Return one result per expectation, in their order; instances that no other suite holds."""
    batch = _open_batches().get_batch({"dataframe": frame})
    for n, expectation in enumerate(expectations):
        expectation.meta = {"position": n}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas has opinions about regular expressions
        found = batch.validate(
            gx.ExpectationSuite(name="rows", expectations=list(expectations)),
            result_format={"result_format": "COMPLETE", "include_unexpected_rows": False},
        )

    def position(result: ExpectationValidationResult) -> int:
        assert result.expectation_config is not None
        return int(result.expectation_config.meta["position"])

    return sorted(found.results, key=position)  # the suite answers in an order of its own


@functools.cache
def _open_batches() -> BatchDefinition[None]:
    """Return what takes frames; making it takes longer than judging a small one."""
    context = gx.get_context(mode="ephemeral", project_config=_context_config())
    asset = context.data_sources.add_pandas("ingest").add_dataframe_asset("batch")
    return asset.add_batch_definition_whole_dataframe("rows")


def _run_alone(
    frame: pd.DataFrame, expectation: Expectation
) -> ExpectationValidationResult | Exception:
    try:
        return _run_suite(frame, [expectation])[0]
    except Exception as error:
        return error


def _context_config() -> DataContextConfig:
    """Return the settings of a context that reports to nobody and leaves nothing on disk."""
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )


def _describe(found: ExpectationValidationResult | Exception) -> Finding:
    if isinstance(found, Exception):
        kind = type(found).__name__
        return Finding(error=f"{kind}: {found}"[:300], kind=kind)
    info = found.exception_info
    if "exception_message" not in info or info.get("raised_exception"):
        # One message, or one by metric.
        infos = [one for one in (info, *info.values()) if isinstance(one, dict)]
        texts = [str(i["exception_message"]) for i in infos if i.get("exception_message")]
        kind = "it fails on these rows"
        return Finding(error=texts[0][:300] if texts else kind, kind=kind)
    result = found.result
    values = result.get("unexpected_list") or []
    if not values and result.get("observed_value") is not None:
        values = [result["observed_value"]]
    rows = result.get("unexpected_index_list")
    return Finding(
        kept=bool(found.success),
        rows=None if rows is None else np.asarray(rows, dtype=np.int64),
        values=tuple(map(_as_text, values)),
    )


def _as_text(value: object) -> str:
    if isinstance(value, dict | tuple | list):
        return ", ".join(map(str, value.values() if isinstance(value, dict) else value))
    return str(value)


def _build_declared(spec: ModelSpec) -> list[tuple[Declared, Expectation]]:
    """Return the declared expectations, each with its object that knows how severe it is."""
    built = [(one, _build_expectation(one, spec)) for one in spec.expectations]
    for one, expectation in built:
        expectation.severity = FailureSeverity(_SEVERITIES[one.severity])
    return built


def _build_expectation(declared: Declared, spec: ModelSpec) -> Expectation:
    """Make the library's object.

    Raises:
        _WrongError: If there is none of the name, or it does not take the arguments or columns.
    """
    kind, arguments = _find_class(declared.expect), declared.arguments
    wrong: list[tuple[tuple[str, ...], str]] = [
        (("arguments", key), f"'{key}' is not for a spec to say")
        for key in sorted(_OURS & arguments.keys())
    ]
    if wrong:
        raise _WrongError(*wrong)
    try:
        expectation = _make(kind, arguments)
    except Exception as error:
        raise _WrongError(*_refusals(kind, arguments, error)) from None
    known = [column.name for column in columns_of(spec, declared.stream)]
    known += [] if "dataset" in known else ["dataset"]
    sources = {column.source: column.name for column in columns_of(spec, declared.stream)}
    for key, names in _columns_named(expectation).items():
        for name in names:
            if name not in known:
                hint = f"; here it is '{sources[name]}'" if name in sources else ""
                said = hint or did_you_mean(name, known) or "."
                text = f"'{name}' is not a column of {declared.stream}{said} Known: {listed(known)}"
                wrong.append((("arguments", key) if key in arguments else ("expect",), text))
    wrong += _bad_patterns(arguments)
    judges_rows = issubclass(kind, _OF_ROWS) and not issubclass(kind, _OF_WHOLE_COLUMNS)
    if declared.severity == "refuse" and not judges_rows:
        text = (
            f"{declared.expect} is about a whole file and finds no rows to refuse; write "
            "severity: WARN or ERROR"
        )
        wrong.append((("severity",), text))
    if wrong:
        raise _WrongError(*wrong)
    return expectation


def _make(make: Callable[..., Expectation], arguments: Mapping[str, object]) -> Expectation:
    return make(**arguments)  # of the class itself the type checker knows other arguments


def _find_class(name: str) -> type[Expectation]:
    if ":" in name:
        return _import_class(name)
    known = _find_expectations()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; closest are {', '.join(near)}" if near else ""
        text = f"Great Expectations has no '{name}' for rows of files{hint}"
        raise _WrongError((("expect",), text))
    return known[name]


@functools.cache
def _find_expectations() -> dict[str, type[Expectation]]:
    """Return the library's own expectations by name, those left out that files cannot answer."""
    found = {}
    for name in sorted(list_registered_expectation_implementations()):
        kind = get_expectation_impl(name)
        is_own = getattr(gxe, kind.__name__, None) is kind
        if is_own and name.startswith("expect_") and name not in _NOT_OF_ROWS:
            found[name] = kind
    return found


def _import_class(name: str) -> type[Expectation]:
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        text = f"'{name}' cannot be imported here: {type(error).__name__}: {error}"
        raise _WrongError((("expect",), text)) from None
    if not (isinstance(kind, type) and issubclass(kind, Expectation)):
        raise _WrongError((("expect",), f"'{name}' is not a class of expectations"))
    return kind


def _refusals(
    kind: type[Expectation], arguments: Mapping[str, object], error: Exception
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what the library says of arguments, by key; of one key only the first."""
    errors = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
    own = [name for name in kind.__fields__ if name not in _OURS]
    seen = set()
    for one in errors:
        key = str(one["loc"][0]) if one["loc"] else "__root__"
        if key in seen:
            continue
        seen.add(key)
        if key in arguments and key not in kind.__fields__:
            said = did_you_mean(key, own) or "."
            yield ("arguments", key), f"there is no argument '{key}'{said} Known: {listed(own)}"
        elif key in arguments:
            yield ("arguments", key), str(one["msg"])
        else:
            missing = f"'{key}' is missing" if key in kind.__fields__ else str(one["msg"])
            yield ("arguments",) if arguments else (), missing


def _bad_patterns(arguments: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield regular expressions that are none, which the library finds out with the first row."""
    for key in ("regex", "regex_list"):
        value = arguments.get(key)
        for pattern in value if isinstance(value, list) else [value] if value else []:
            try:
                re.compile(str(pattern))
            except re.error as error:
                yield ("arguments", key), f"not a regular expression: {error}"


def _columns_named(expectation: object) -> dict[str, list[str]]:
    """Return the columns that an expectation is about, by the argument that names them."""
    found = {}
    for key in _COLUMN_KEYS:
        value = getattr(expectation, key, None)
        if value:
            found[key] = [value] if isinstance(value, str) else [str(name) for name in value]
    return found


_ANSWERS: Final[dict[str, Callable[..., object]]] = {
    answer.__name__: answer for answer in (find_problems, judge_files, build_suite, write_data_docs)
}


def serve() -> None:
    """Answer requests from standard input until it is closed, or none comes for a while."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a custom class may print
    # It hashes every cell of every batch, twice, for a fingerprint that nobody reads; that is 85 %
    # of its time. Above this size it leaves that out by itself.
    pandas_execution_engine.HASH_THRESHOLD = 0
    gc.freeze()  # thousands of classes, none of which is ever garbage
    gc.enable()
    pickle.dump(gx.__version__, answers)  # imported, and ready
    answers.flush()
    while select.select([requests], [], [], IDLE_SECONDS)[0]:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        answer: object
        try:
            answer = _ANSWERS[name](*arguments)
        except Exception as error:
            answer = error if isinstance(error, ConfigError) else RuntimeError(repr(error)[:500])
        pickle.dump(answer, answers)
        answers.flush()
