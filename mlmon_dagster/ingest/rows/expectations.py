"""The user's own Great Expectations: what is wrong with their declaration, and what they find.

Names, arguments and custom classes are the library's to judge, which is not imported when a spec
is loaded. One that is wrong in spite of ``mlmon validate``, or fails on the rows that came, is a
result that says so: never a pass, and never in the way of the file.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypedDict, cast

import numpy as np
import pyarrow as pa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.report import Fault
from mlmon_dagster.ingest.rows.canonical import Draft
from mlmon_dagster.ingest.rows.suite import (
    Evaluated,
    Kind,
    Made,
    great_expectations,
    is_evaluated,
    run_suite,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.checks import Problem
from mlmon_dagster.spec.declaration import Expectation
from mlmon_dagster.spec.names import did_you_mean, listed
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.state.manifest import BY_RULE

if TYPE_CHECKING:
    import pandas as pd

_MOST_VALUES, _WIDTH = 3, 80
_COLUMN_KEYS: Final = ("column", "column_A", "column_B", "column_list", "column_set")
_OURS: Final = frozenset(
    {"batch_id", "catch_exceptions", "id", "meta", "rendered_content", "result_format", "severity",
     "windows"}
)  # fmt: skip
# They need a database, or another table.
_NOT_OF_ROWS: Final = frozenset(
    {"expect_query_results_to_match_comparison", "expect_table_row_count_to_equal_other_table"}
)
_OF_WHOLE_COLUMNS: Final = ("ExpectColumnValuesToBeOfType", "ExpectColumnValuesToBeInTypeList")


class Result(TypedDict):
    """What one expectation found in one file, ready for JSON.

    Attributes:
        expectation: As it is declared.
        columns: Those that it is about.
        severity: As it is declared.
        kept: Whether it holds; False if it could not be evaluated.
        rows: Rows that it saw.
        unexpected: Rows that it did not expect; None for one about the whole file.
        values: A few of what it did not expect, of columns whose values may be shown.
        error: Why it could not be evaluated; empty if it was.
    """

    expectation: str
    columns: list[str]
    severity: str
    kept: bool
    rows: int
    unexpected: int | None
    values: list[str]
    error: str


class _WrongError(ConfigError):
    """A declaration that Great Expectations refuses, and the keys below it that are wrong."""

    def __init__(self, *problems: tuple[tuple[str, ...], str]) -> None:
        super().__init__("; ".join(said for _, said in problems))
        self.problems = problems


def declared_for(spec: ModelSpec, stream: Stream) -> list[Expectation]:
    """Return what the spec itself expects of the rows of a stream."""
    return [one for one in spec.expectations if one.stream == stream]


def expectation_problems(spec: ModelSpec) -> list[Problem]:
    """Return what is wrong with the declared expectations: names, arguments, columns.

    The library is imported only if there are any.
    """
    found = []
    for index, declared in enumerate(spec.expectations):
        try:
            _built(declared, spec)
        except _WrongError as error:
            found += [Problem(("expectations", index, *at), said) for at, said in error.problems]
    return found


def judge_declared(
    draft: Draft, spec: ModelSpec, declared: Sequence[Expectation]
) -> tuple[tuple[Fault, ...], list[Result]]:
    """Judge the rows of a file that are good so far, and are not passed over.

    Args:
        draft: The rows, with all that the generated suite found.
        spec: The model.
        declared: What the spec expects of the stream.

    Returns:
        The rows to refuse, and one result per expectation.
    """
    staged, n_rows = draft.parsed.staged, draft.parsed.n_rows
    if staged.again is not None:  # a part of a file, whose whole was judged
        declared = [one for one in declared if one.severity == "refuse"]
    rows = np.flatnonzero(~draft.bad() & ~staged.passed_over(n_rows))
    if not rows.size:
        return (), []
    faults: tuple[Fault, ...] = ()
    results = []
    by_name = {column.name: column for column in columns_of(spec, staged.stream)}
    for one, columns, found in _evaluated(draft, spec, declared, rows):
        result = _result(one, columns, found, spec, int(rows.size))
        results.append(result)
        is_refusing = one.severity == "refuse" and not result["kept"] and not result["error"]
        if is_refusing and not isinstance(found, Exception):
            refused = np.sort(np.asarray(found.result["unexpected_index_list"], dtype=np.int64))
            faults += Fault.of(refused, BY_RULE, by_name[columns[0]], one.expect)
    return faults, results


def _evaluated(
    draft: Draft, spec: ModelSpec, declared: Sequence[Expectation], rows: np.ndarray
) -> Iterator[tuple[Expectation, list[str], Evaluated | Exception]]:
    """Yield each expectation with its columns and its result, or the error in its stead."""
    built: list[tuple[Expectation, list[str], Made]] = []
    for one in declared:
        try:
            expectation = _built(one, spec)
        except _WrongError as error:
            yield one, [], error
        else:
            columns = [name for names in _columns(expectation).values() for name in names]
            built.append((one, columns, expectation))
    if not built:
        return
    found: list[Evaluated | Exception] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas has opinions about regular expressions
        try:
            found += run_suite(_frame(draft, rows), [expectation for *_, expectation in built])
        except Exception:  # of a custom class, which spoils the suite: each alone
            found = [_alone(_frame(draft, rows), _built(one, spec)) for one, *_ in built]
    for (one, columns, _), result in zip(built, found, strict=True):
        yield one, columns, result


def _frame(draft: Draft, rows: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    table = pa.table({name: v.take(pa.array(rows)) for name, v in draft.columns.items()})
    frame: pd.DataFrame = table.to_pandas()
    frame.index = pd.Index(rows)
    return frame


def _alone(frame: pd.DataFrame, expectation: Made) -> Evaluated | Exception:
    try:
        return run_suite(frame, [expectation])[0]
    except Exception as error:
        return error


def _result(
    declared: Expectation,
    columns: list[str],
    found: Evaluated | Exception,
    spec: ModelSpec,
    n_rows: int,
) -> Result:
    may_show = all(spec.shows_values_of(name) for name in columns)
    error = _error_of(found, may_show)
    judged = None if error or isinstance(found, Exception) else found
    result = judged.result if judged else {}
    rows = result.get("unexpected_index_list")
    kept = judged is not None and judged.success
    if judged and not kept and declared.severity == "refuse" and rows is None:
        error = "it does not say which rows it did not expect"
    values = result.get("partial_unexpected_list") or []
    if not values and result.get("observed_value") is not None:
        values = [result["observed_value"]]
    return Result(
        expectation=declared.expect,
        columns=columns,
        severity=declared.severity,
        kept=kept,
        rows=n_rows,
        unexpected=None if rows is None else len(rows),
        values=_shown(values) if may_show and not kept else [],
        error=error,
    )


def _error_of(found: Evaluated | Exception, may_show: bool) -> str:
    """Say why there is no verdict. What a library says may quote values: else only its kind."""
    if isinstance(found, _WrongError):
        return str(found)
    if isinstance(found, Exception):
        return f"{type(found).__name__}: {found}"[:300] if may_show else type(found).__name__
    if is_evaluated(found):
        return ""
    # One message, or one by metric.
    infos = [found.exception_info, *found.exception_info.values()]
    texts = [
        str(i["exception_message"])
        for i in infos
        if isinstance(i, dict) and i.get("exception_message")
    ]
    return texts[0][:300] if may_show and texts else "it fails on these rows"


def _shown(values: Sequence[object]) -> list[str]:
    texts = [
        ", ".join(map(str, v.values() if isinstance(v, dict) else v))
        if isinstance(v, dict | tuple | list)
        else str(v)
        for v in values
    ]
    return [text[:_WIDTH] for text in dict.fromkeys(texts)][:_MOST_VALUES]


def _built(declared: Expectation, spec: ModelSpec) -> Made:
    """Make the library's expectation.

    Raises:
        _WrongError: If there is none of the name, or it does not take the arguments or columns.
    """
    kind, arguments = _class_of(declared.expect), declared.arguments
    wrong: list[tuple[tuple[str, ...], str]] = [
        (("arguments", key), f"'{key}' is not for a spec to say")
        for key in sorted(_OURS & arguments.keys())
    ]
    if wrong:
        raise _WrongError(*wrong)
    try:
        expectation = kind(**arguments)
    except Exception as error:
        raise _WrongError(*_refused(kind, arguments, error)) from None
    known = [column.name for column in columns_of(spec, declared.stream)]
    known += [] if "dataset" in known else ["dataset"]
    sources = {column.source: column.name for column in columns_of(spec, declared.stream)}
    for key, names in _columns(expectation).items():
        for name in names:
            if name not in known:
                hint = f"; here it is '{sources[name]}'" if name in sources else ""
                said = hint or did_you_mean(name, known) or "."
                text = f"'{name}' is not a column of {declared.stream}{said} Known: {listed(known)}"
                wrong.append((("arguments", key) if key in arguments else ("expect",), text))
    wrong += _bad_patterns(arguments)
    if declared.severity == "refuse" and not _judges_rows(kind):
        text = (
            f"{declared.expect} is about a whole file and finds no rows to refuse; write "
            "severity: WARN or ERROR"
        )
        wrong.append((("severity",), text))
    if wrong:
        raise _WrongError(*wrong)
    return expectation


def _class_of(name: str) -> Kind:
    if ":" in name:
        return _custom_class(name)
    known = _known()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; closest are {', '.join(near)}" if near else ""
        text = f"Great Expectations has no '{name}' for rows of files{hint}"
        raise _WrongError((("expect",), text))
    return known[name]


@functools.cache
def _known() -> dict[str, Kind]:
    """Return the library's own expectations by name, those left out that files cannot answer."""
    expectations = great_expectations().expectations
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    found: dict[str, Kind] = {}
    for name in sorted(list_registered_expectation_implementations()):
        kind = get_expectation_impl(name)
        is_own = getattr(expectations, kind.__name__, None) is kind
        if is_own and name.startswith("expect_") and name not in _NOT_OF_ROWS:
            found[name] = cast(Kind, kind)
    return found


def _custom_class(name: str) -> Kind:
    base = great_expectations().expectations.Expectation
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        text = f"'{name}' cannot be imported here: {type(error).__name__}: {error}"
        raise _WrongError((("expect",), text)) from None
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise _WrongError((("expect",), f"'{name}' is not a class of expectations"))
    return cast(Kind, kind)


def _judges_rows(kind: Kind) -> bool:
    from great_expectations.expectations import expectation as bases

    expectations = great_expectations().expectations
    whole = tuple(getattr(expectations, name) for name in _OF_WHOLE_COLUMNS)
    of_rows = (
        bases.ColumnMapExpectation,
        bases.ColumnPairMapExpectation,
        bases.MulticolumnMapExpectation,
    )
    return isinstance(kind, type) and issubclass(kind, of_rows) and not issubclass(kind, whole)


def _refused(
    kind: Kind, arguments: Mapping[str, object], error: Exception
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


def _columns(expectation: Made) -> dict[str, list[str]]:
    """Return the columns that an expectation is about, by the argument that names them."""
    found = {}
    for key in _COLUMN_KEYS:
        value = getattr(expectation, key, None)
        if value:
            found[key] = [value] if isinstance(value, str) else [str(name) for name in value]
    return found
