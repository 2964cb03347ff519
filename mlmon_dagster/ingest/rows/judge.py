"""From staged files to rows that may be appended: judge them, and refuse what is bad.

Great Expectations judges: its suite of a stream is generated from the spec and run on every batch,
and its unexpected rows are the bad rows. It calls a rule kept when no cell was there to test it;
such columns are named in the result instead of passing silently.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.errors import MlmonError, SchemaError
from mlmon_dagster.ingest.declared_columns import Column, Kind, columns_of, is_probability
from mlmon_dagster.ingest.formats.parse import Parsed
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.raw import Layout, refused, row_hashes
from mlmon_dagster.ingest.report import ROW_REASONS, Fault, Mask, names, rows_at_fault
from mlmon_dagster.ingest.rows.canonical import (
    Draft,
    canonical_rows,
    known_datasets,
    moments_of,
    place,
)
from mlmon_dagster.ingest.rows.expectations import declared_for, judge_declared
from mlmon_dagster.ingest.rows.suite import great_expectations, is_evaluated, run_suite
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.declaration import Expectation
from mlmon_dagster.spec.sources import Source, Stream
from mlmon_dagster.store.state.erased_ids import Erased, Query
from mlmon_dagster.store.state.manifest import BY_RULE
from mlmon_dagster.store.tables.kept_rows import ABOUT, KeptRows
from mlmon_dagster.store.tables.part_files import PartedRows

CHUNK_ROWS = 250_000
_TYPES: Final[dict[Kind, str]] = {
    "id": "str",
    "text": "str",
    "number": "float64",
    "label": "float64",
    "time": "Timestamp",
}
# What an excused cell holds while the suite looks; any value that breaks no rule.
_STAND_INS: Final[dict[Kind, object]] = {
    "id": "",
    "text": "",
    "number": 0.0,
    "label": 0.0,
    "time": 0,
    "boolean": False,
}


@dataclass(frozen=True)
class Rule:
    """One expectation about one column, and what a row that breaks it is called."""

    expectation: str
    column: Column
    options: tuple[tuple[str, object], ...] = ()
    reason: str = "wrong_type"
    expected: str | None = None

    @property
    def judges_rows(self) -> bool:
        """Say whether it finds rows, not only a fault of the whole column."""
        return self.expectation not in {"ExpectColumnToExist", "ExpectColumnValuesToBeOfType"}


class Failed(TypedDict):
    """A rule that rows of a file break."""

    expectation: str
    column: str
    rows: int


@dataclass(frozen=True)
class Verdict:
    """What the suite says of one file.

    Attributes:
        faults: Rows that break a rule, in the file's own numbering.
        untested: Columns with a rule but without a single value to test it on.
        failed: The rules that rows break, by their position, and how many.
        report: The short result, ready for JSON.
    """

    faults: tuple[Fault, ...]
    untested: tuple[str, ...]
    failed: Mapping[int, Failed]
    report: dict[str, object]


def rules_of(spec: ModelSpec, stream: Stream) -> tuple[Rule, ...]:
    """Generate the rules of a stream from the spec."""
    return tuple(rule for column in _judged(spec, stream) for rule in _rules(column, spec, stream))


def judge(
    drafts: Sequence[Draft], spec: ModelSpec, stream: Stream, held: set[int] | None = None
) -> list[Verdict]:
    """Run the suite over many files as one batch, in chunks of 250,000 rows.

    Rules about a column as a whole, that it is there and of its type, are evaluated once: the
    columns of all chunks have the same types, and each of these rules costs as much as one that
    looks at rows.

    Args:
        drafts: The typed rows of each file; files without rows get an empty verdict.
        spec: The model.
        stream: What the files hold.
        held: Positions of such rules that held for earlier parts of the same file; those that
            hold now are added.

    Returns:
        One verdict per file, in order.

    Raises:
        MlmonError: If an expectation could not be evaluated at all; never taken for a pass.
    """
    rules = rules_of(spec, stream)
    columns = _judged(spec, stream)
    sizes = [draft.parsed.n_rows for draft in drafts]
    batch = pa.concat_tables([_batch_rows(draft, columns) for draft in drafts])
    held = set() if held is None else held
    broken: dict[int, list[np.ndarray]] = {}
    for start in range(0, batch.num_rows, CHUNK_ROWS):
        chunk = batch.slice(start, CHUNK_ROWS)
        for position, rows in _evaluate(chunk, start, rules, held):
            broken.setdefault(position, []).append(rows)
    rows_by_rule = {position: np.sort(np.concatenate(found)) for position, found in broken.items()}
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return [
        _verdict(draft, rules, rows_by_rule, int(low), int(high))
        for draft, low, high in zip(drafts, offsets[:-1], offsets[1:], strict=True)
    ]


def _judged(spec: ModelSpec, stream: Stream) -> tuple[Column, ...]:
    found = columns_of(spec, stream)
    if any(column.name == "dataset" for column in found):
        return found
    return (*found, Column("dataset", "dataset", "text"))


def _rules(column: Column, spec: ModelSpec, stream: Stream) -> Iterator[Rule]:
    yield Rule("ExpectColumnToExist", column)
    if column.kind in _TYPES:
        yield Rule("ExpectColumnValuesToBeOfType", column, (("type_", _TYPES[column.kind]),))
    if not column.nullable:
        yield Rule("ExpectColumnValuesToNotBeNull", column, reason="null_required")
    if is_probability(spec, column.name):
        yield _score_rule(column)
    if column.kind == "label":
        reason = "bad_actual" if column.name == "actual" else "wrong_type"
        yield _set_rule(column, [0.0, 1.0], reason, "0 or 1")
    if column.name == "dataset":
        names = known_datasets(stream)
        yield _set_rule(column, list(names), "bad_dataset", f"one of {', '.join(names)}")


def _set_rule(column: Column, values: Sequence[object], reason: str, expected: str) -> Rule:
    options = (("value_set", list(values)),)
    return Rule("ExpectColumnValuesToBeInSet", column, options, reason, expected)


def _score_rule(column: Column) -> Rule:
    options = (("min_value", 0.0), ("max_value", 1.0))
    return Rule(
        "ExpectColumnValuesToBeBetween", column, options, "score_out_of_range",
        "a number from 0 to 1",
    )  # fmt: skip


def _batch_rows(draft: Draft, columns: Sequence[Column]) -> pa.Table:
    arrays = {}
    for column in columns:
        values = draft.columns[column.name]
        excused = draft.excused.get(column.name)
        if excused is not None:
            stand_in = pa.scalar(_STAND_INS[column.kind], values.type)
            values = pc.if_else(pa.array(excused), stand_in, values)
        arrays[column.name] = values
    return pa.table(arrays)


def _evaluate(
    chunk: pa.Table, offset: int, rules: Sequence[Rule], held: set[int]
) -> Iterator[tuple[int, np.ndarray]]:
    import pandas as pd

    # Only rows decide about rows, so a whole chunk without a value has no type to be wrong.
    empty = {n for n in chunk.column_names if chunk.column(n).null_count == chunk.num_rows}
    asked = [
        (i, rule)
        for i, rule in enumerate(rules)
        if i not in held
        and not (rule.expectation == "ExpectColumnValuesToBeOfType" and rule.column.name in empty)
    ]
    frame = chunk.select(list(dict.fromkeys(rule.column.name for _, rule in asked))).to_pandas()
    frame.index = pd.RangeIndex(offset, offset + len(frame))
    known = great_expectations().expectations
    results = run_suite(
        frame,
        [
            getattr(known, rule.expectation)(column=rule.column.name, **dict(rule.options))
            for _, rule in asked
        ],
    )
    for (position, rule), result in zip(asked, results, strict=True):
        if not is_evaluated(result):
            raise MlmonError(_not_evaluated(rule, result.exception_info))
        if result.success:
            if not rule.judges_rows:
                held.add(position)
            continue
        if not rule.judges_rows:
            raise MlmonError(_not_evaluated(rule, result.result))
        yield position, np.asarray(result.result["unexpected_index_list"], dtype=np.int64)


def _not_evaluated(rule: Rule, why: object) -> str:
    return (
        f"{rule.expectation} of column {rule.column.name!r} could not be evaluated: "
        f"{str(why)[:500]}. This is a fault of the program or its libraries, not of the file."
    )


def _verdict(
    draft: Draft,
    rules: Sequence[Rule],
    rows_by_rule: Mapping[int, np.ndarray],
    low: int,
    high: int,
) -> Verdict:
    faults: list[Fault] = []
    failed: dict[int, Failed] = {}
    for position, rows in sorted(rows_by_rule.items()):
        mine = rows[np.searchsorted(rows, low) : np.searchsorted(rows, high)] - low
        if not mine.size:
            continue
        rule = rules[position]
        faults += Fault.of(mine, rule.reason, rule.column, rule.expected)
        failed[position] = {
            "expectation": rule.expectation, "column": rule.column.name, "rows": int(mine.size)
        }  # fmt: skip
    untested = _untested(draft, rules) if high > low else ()
    report = {
        "suite": f"great_expectations {great_expectations().__version__}",
        "n_rows": high - low,
        "n_expectations": len(rules),
        "success": not failed,
        "failed": list(failed.values()),
        "untested": list(untested),
    }
    return Verdict(tuple(faults), untested, failed, report)


def _untested(draft: Draft, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return the file's names of columns that have a rule but not a single value."""
    found: dict[str, None] = {}
    for rule in rules:
        values = draft.columns[rule.column.name]
        is_there = rule.column.source not in draft.parsed.absent
        if is_there and values.null_count == len(values):
            found[rule.column.source] = None
    return tuple(found)


FEW_BAD_ROWS = 10  # so many are never too many


class Letter(TypedDict):
    """A refused row and one of its reasons, before it is a row of ``dead_letter``."""

    row_number: int
    reason: str
    column_name: str
    message: str
    row_hash: str
    prediction_id: str | None
    window_start: dt.datetime | None


MAX_LETTERS = 10_000  # dead letters kept per file; all bad rows are counted
MAX_EXAMPLES = 5
_UNPLACED = {"future_time", "before_start", "erased"}


@dataclass(frozen=True)
class Prepared:
    """A file that is accepted, with its rows.

    Attributes:
        staged: The file.
        rows: Canonical rows, the bad ones left out.
        n_rows: Rows read, the bad ones included.
        n_bad: Bad rows.
        n_erased: Of these, rows of erased predictions.
        letters: Dead letters, without the columns model, stream, sha256 and created_at, and with
            the prediction_id that is stored as its hash.
        bad_windows: Windows of bad rows whose time is readable.
        report: The suite's short result.
        warnings: For people.
        examples: Messages of the first bad rows.
        layout: The file's columns; None if it was not read, or not as a whole.
        kept: The refused rows as they were written, the ``id_hash`` still being the id itself;
            None if there are none. Erased rows are not kept.
    """

    staged: Staged
    rows: PartedRows
    n_rows: int
    n_bad: int
    letters: tuple[Letter, ...]
    bad_windows: tuple[Window, ...]
    report: Mapping[str, object]
    warnings: tuple[str, ...]
    examples: tuple[str, ...]
    layout: Layout | None = None
    kept: KeptRows | None = None
    n_erased: int = 0


class TooManyBadError(SchemaError):
    """A file is refused because of its bad rows, some of which are attached as evidence."""

    def __init__(self, error: SchemaError, n_rows: int, letters: Sequence[Letter]) -> None:
        super().__init__(error.reason, str(error))
        self.n_rows = n_rows
        self.letters: tuple[Letter, ...] = tuple(
            {**letter, "window_start": None} for letter in letters
        )
        self.examples = tuple(letter["message"] for letter in letters[:MAX_EXAMPLES])


def judge_batch(
    drafts: Sequence[Draft], spec: ModelSpec, stream: Stream, held: set[int] | None = None
) -> list[tuple[Draft, Verdict]]:
    """Run the suite over the files of a batch and add what it found to their faults.

    What the spec expects beyond the suite is judged of each file alone, of its good rows, so that
    the answer is the same whatever else is in the batch. ``held`` is that of `judge`.
    """
    verdicts = judge(drafts, spec, stream, held)
    found = [(d.with_faults(v.faults), v) for d, v in zip(drafts, verdicts, strict=True)]
    declared = declared_for(spec, stream)
    return [_with_declared(*one, spec, declared) for one in found] if declared else found


def _with_declared(
    draft: Draft, verdict: Verdict, spec: ModelSpec, declared: Sequence[Expectation]
) -> tuple[Draft, Verdict]:
    faults, results = judge_declared(draft, spec, declared)
    report = {**verdict.report, "expectations": results}
    return draft.with_faults(faults), replace(verdict, report=report)


def drop_erased(draft: Draft, erased: Erased, query: Query, spec: ModelSpec) -> Draft:
    """Refuse rows whose prediction was erased on request, however late they arrive.

    Args:
        draft: The typed rows.
        erased: What was erased.
        query: Runs SQL over Arrow tables.
        spec: The model.
    """
    if not erased:
        return draft
    column = next(c for c in columns_of(spec, draft.parsed.staged.stream) if c.name == _ID)
    gone = erased.mask(query, draft.columns[_ID], draft.columns["dataset"])
    return draft.with_faults(Fault.where(gone, "erased", column, "no row of it"))


_ID = "prediction_id"


@dataclass(frozen=True)
class Part:
    """Some rows of a file, its good ones apart from the bad ones; its parts add up.

    Attributes:
        parsed: What was read, without its cells.
        rows: Canonical rows, the bad ones left out.
        n_rows: Rows read.
        n_bad: Bad rows.
        n_erased: Of these, rows of erased predictions.
        n_unstorable: Rows that cannot be stored, whatever the spec expects of them.
        n_null: Good rows of ground truth that have none.
        reasons: What cannot be stored, by reason, column and what was expected -> rows.
        letters: Of the first bad rows.
        bad_windows: Windows of bad rows whose time is readable.
        verdict: Of the suite.
        kept: The refused rows.
    """

    parsed: Parsed
    rows: pa.Table
    n_rows: int
    n_bad: int
    n_erased: int
    n_unstorable: int
    n_null: int
    reasons: Counter[tuple[str, str, str, str]]
    letters: tuple[Letter, ...]
    bad_windows: frozenset[Window]
    verdict: Verdict
    kept: KeptRows | None


def prepare(draft: Draft, verdict: Verdict, spec: ModelSpec, now: dt.datetime) -> Part:
    """Separate good rows from bad ones."""
    parsed = draft.parsed
    wanted = ~parsed.staged.passed_over(parsed.n_rows)
    bad = draft.bad() & wanted
    windows = _windows_of(draft, np.flatnonzero(bad), spec)
    is_erased = draft.erased() & bad
    unstorable = [fault for fault in draft.faults if fault.reason not in ("erased", BY_RULE)]
    reasons: Counter[tuple[str, str, str, str]] = Counter()
    for fault in unstorable:
        reasons[fault.reason, fault.source, fault.name, fault.expected] += fault.rows.size
    n_null = 0
    if parsed.staged.stream == "actuals" and "actual" in draft.columns:
        n_null = int((draft.columns["actual"].is_null().to_numpy(False) & ~bad).sum())
    return Part(
        parsed=replace(parsed, columns={}, faults=(), not_finite={}),
        rows=canonical_rows(draft, ~bad & wanted, spec, now),
        n_rows=int(wanted.sum()),
        n_bad=int(bad.sum()),
        n_erased=int(is_erased.sum()),
        n_unstorable=int(rows_at_fault(unstorable, parsed.n_rows).sum()),
        n_null=n_null,
        reasons=reasons,
        letters=_dead_letters(draft, bad, windows),
        bad_windows=frozenset(windows.values()),
        verdict=verdict,
        kept=_kept(draft, bad & ~is_erased, windows),
    )


def whole(parts: Sequence[Part], rows: PartedRows, source: Source) -> Prepared:
    """Add up all parts of a file.

    Args:
        parts: The parts, in the order of their rows.
        rows: The good rows of all.
        source: What the file is from.

    Raises:
        TooManyBadError: If more than ``max_bad_rate`` of the rows, and more than ten, cannot be
            stored. Rows that only a rule of the spec refuses do not count.
    """
    staged, parsed = parts[0].parsed.staged, parts[0].parsed
    letters = tuple(letter for part in parts for letter in part.letters)[:MAX_LETTERS]
    if staged.again is None:
        _check_bad_rate(parts, letters, source)
    untested = tuple(
        name
        for name in parts[0].verdict.untested
        if all(name in part.verdict.untested for part in parts[1:])
    )
    return Prepared(
        staged=staged,
        rows=rows,
        n_rows=sum(part.n_rows for part in parts),
        n_bad=sum(part.n_bad for part in parts),
        n_erased=sum(part.n_erased for part in parts),
        letters=letters,
        bad_windows=tuple(sorted(frozenset().union(*(part.bad_windows for part in parts)))),
        report=_report(parts, untested),
        warnings=_warnings(parts, untested),
        examples=tuple(letter["message"] for letter in letters[:MAX_EXAMPLES]),
        layout=None if staged.again or parsed.is_of_other else parsed.layout,
        kept=KeptRows.joined([part.kept for part in parts if part.kept is not None]),
    )


def _report(parts: Sequence[Part], untested: Sequence[str]) -> Mapping[str, object]:
    """Return the short result of the suite over all parts."""
    if len(parts) == 1:
        return parts[0].verdict.report
    failed: dict[int, Failed] = {}
    for part in parts:
        for position, one in part.verdict.failed.items():
            n = one["rows"] + (failed[position]["rows"] if position in failed else 0)
            failed[position] = {**one, "rows": n}
    told = [failed[position] for position in sorted(failed)]
    return {
        **parts[0].verdict.report,
        "n_rows": sum(part.parsed.n_rows for part in parts),
        "success": not told,
        "failed": told,
        "untested": list(untested),
    }


def _kept(draft: Draft, refused_rows: Mask, windows: Mapping[int, Window]) -> KeptRows | None:
    """Take the refused rows out of the file as they were written."""
    rows = np.flatnonzero(refused_rows)
    parsed, cut_out = draft.parsed, draft.parsed.cut
    if not rows.size or cut_out is None:
        return None
    cut = cut_out(rows.tolist())
    numbers = parsed.row_numbers()
    starts = [window.start if (window := windows.get(row)) else None for row in cut.numbers]
    about = pa.table(
        [
            pa.array(numbers[cut.numbers], pa.int64()),
            pa.array(parsed.place_of(cut.numbers), pa.string()),
            pc.fill_null(draft.columns[_ID].take(pa.array(cut.numbers)), ""),
            pa.array(refused_rows[cut.numbers]),
            pa.array(starts, ABOUT.field("window_start").type),
        ],
        schema=ABOUT,
    )
    for name in cut.columns.column_names:
        about = about.append_column(name, cut.columns[name])
    return KeptRows(about, cut.head)


def _check_bad_rate(parts: Sequence[Part], letters: Sequence[Letter], source: Source) -> None:
    n_rows = sum(part.parsed.n_rows for part in parts)
    n_bad = sum(part.n_unstorable for part in parts)
    if n_bad <= FEW_BAD_ROWS or n_bad <= source.max_bad_rate * n_rows:
        return
    reasons: Counter[tuple[str, str, str, str]] = Counter()
    for part in parts:
        reasons.update(part.reasons)
    found = (
        f"{n_bad:,} of {n_rows:,} rows cannot be stored ({_by_reason(reasons)}); expected at most "
        f"{source.max_bad_rate:.2%} under max_bad_rate."
    )
    if (why := reasons.most_common(1)[0][0][0]) in _UNPLACED:  # nothing is wrong with such rows
        found += f" {ROW_REASONS[why]}."
    file = parts[0].parsed.staged.name
    raise TooManyBadError(refused(file, "too_many_bad", found), n_rows, letters[:100])


def _by_reason(reasons: Mapping[tuple[str, str, str, str], int]) -> str:
    counts = sorted(((n, *key) for key, n in reasons.items()), reverse=True)
    listed = [f"{n:,} {reason} in {names([source])}" for n, reason, source, *_ in counts[:3]]
    more = ", ..." if len(counts) > len(listed) else ""
    of_type = [said for _, reason, *_, said in counts[:1] if reason == "wrong_type"]
    return ", ".join(listed) + more + "".join(f": not {said}" for said in of_type)


def _dead_letters(draft: Draft, bad: Mask, windows: Mapping[int, Window]) -> tuple[Letter, ...]:
    rows = np.flatnonzero(bad)
    if not rows.size:
        return ()
    hashes = _hashes(draft, rows)
    ids = dict(zip(rows.tolist(), draft.columns[_ID].take(pa.array(rows)).to_pylist(), strict=True))
    pairs = sorted(
        (
            (int(row), fault)
            for fault in draft.faults
            for row in fault.rows[bad[fault.rows]][:MAX_LETTERS]
        ),
        key=lambda pair: (pair[0], pair[1].reason, pair[1].name),
    )[:MAX_LETTERS]
    places = dict(
        zip((r for r, _ in pairs), draft.parsed.place_of([r for r, _ in pairs]), strict=True)
    )
    file = draft.parsed.staged.name
    numbers = draft.parsed.row_numbers()
    letters: dict[tuple[int, str, str], Letter] = {
        (row, fault.reason, fault.name): {
            "row_number": int(numbers[row]),
            "reason": fault.reason,
            "column_name": fault.name,
            "message": fault.message(f"{file}, {places[row]}"),
            "row_hash": "" if fault.reason == "erased" else hashes[row],
            "prediction_id": ids[row],
            "window_start": window.start if (window := windows.get(row)) else None,
        }
        for row, fault in pairs
    }
    return tuple(letters.values())


def _hashes(draft: Draft, rows: np.ndarray) -> dict[int, str]:
    table = pa.table({name: values.take(pa.array(rows)) for name, values in draft.columns.items()})
    hashes = row_hashes(table, table.column_names).view(np.uint64)
    return {int(row): f"{int(value):016x}" for row, value in zip(rows, hashes, strict=True)}


def _windows_of(draft: Draft, rows: np.ndarray, spec: ModelSpec) -> dict[int, Window]:
    """Return the window of each bad row whose time can be believed."""
    if not rows.size or draft.parsed.staged.stream == "actuals":
        return {}
    doubted = np.zeros(draft.parsed.n_rows, dtype=bool)
    for fault in draft.faults:
        if fault.reason in _UNPLACED or fault.reason == "bad_dataset":
            doubted[fault.rows] = True
    times = draft.columns["event_time"]
    usable = rows[~doubted[rows] & ~times.is_null().to_numpy(False)[rows]]
    placed = place(spec.time, moments_of(times.take(pa.array(usable))))
    return {
        int(row): placed.windows[position]
        for row, position in zip(usable, placed.positions, strict=True)
    }


def _warnings(parts: Sequence[Part], untested: Sequence[str]) -> tuple[str, ...]:
    parsed = parts[0].parsed
    found = []
    if parsed.is_of_other:
        return (f"both streams name this file, and it has no columns of {parsed.staged.stream}",)
    if not any(part.parsed.n_rows for part in parts):
        found.append("the file has no rows")
    if parsed.extra:
        found.append(
            f"columns {names(parsed.extra)} are not declared and not kept; "
            "declare them under 'features' to monitor them"
        )
    if parsed.absent:
        found.append(f"columns {names(parsed.absent)} are missing; their values are null")
    if untested:
        found.append(f"columns {names(untested)} hold no value at all, so no rule could test them")
    if n_null := sum(part.n_null for part in parts):
        found.append(f"{n_null:,} rows without an actual: they withdraw earlier actuals, if any")
    return tuple(found)
