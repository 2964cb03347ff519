"""From staged files to rows that may be appended: judge them, and refuse what is bad.

A rule holds where no cell is there to test it; such columns are named instead of passing silently.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.formats.parse import Parsed
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.raw import Layout, refused, row_hashes
from mlmon_dagster.ingest.report import ROW_REASONS, Fault, Mask, mask_of, names, rows_at_fault
from mlmon_dagster.ingest.rows.canonical import (
    Draft,
    canonical_rows,
    find_withdrawn,
    moments_of,
    place,
)
from mlmon_dagster.ingest.rows.expectations import Result, declared_for, judge_declared
from mlmon_dagster.ingest.rows.rules import Rule, rules_of
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.sources import Source, Stream
from mlmon_dagster.store.state.erased_ids import Erased, Query
from mlmon_dagster.store.state.manifest import BY_RULE
from mlmon_dagster.store.tables.kept_rows import ABOUT, KeptRows
from mlmon_dagster.store.tables.part_files import PartedRows


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one file.

    Attributes:
        n_rules: How many there are.
        untested: Columns with a rule but without a single value to test it on.
        failed: How many rows break a rule, by its position, name and column.
        declared: What the spec's own expectations found, ready for JSON; None if it has none.
    """

    n_rules: int
    untested: tuple[str, ...]
    failed: Counter[tuple[int, str, str]]
    declared: list[Result] | None = None


def judge_files(
    drafts: Sequence[Draft], spec: ModelSpec, stream: Stream
) -> list[tuple[Draft, Verdict]]:
    """Find the rows of files that break a rule, and add them to the faults of each file.

    What the spec expects beyond its rules is judged of the rows that are good so far.
    """
    judged = [judge_by_rules(draft, rules_of(spec, stream)) for draft in drafts]
    if not declared_for(spec, stream):
        return judged
    declared = judge_declared([draft for draft, _ in judged], spec, stream)
    return [
        (draft.with_faults(faults), replace(verdict, declared=results))
        for (draft, verdict), (faults, results) in zip(judged, declared, strict=True)
    ]


def judge_by_rules(draft: Draft, rules: Sequence[Rule]) -> tuple[Draft, Verdict]:
    """Find the rows that break one of some rules, and add them to the faults."""
    failed: Counter[tuple[int, str, str]] = Counter()
    faults: tuple[Fault, ...] = ()
    for position, rule in enumerate(rules):
        if rule.judges_rows and (rows := rule.find_rows(draft)).size:
            faults += Fault.of(rows, rule.reason, rule.column, rule.expected)
            failed[position, rule.expectation, rule.column.name] = int(rows.size)
    return draft.with_faults(faults), Verdict(len(rules), _untested(draft, rules), failed)


def _untested(draft: Draft, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return the file's names of columns that have a rule but not a single value."""
    if not draft.parsed.n_rows:
        return ()
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
_UNPLACED = {"future_time", "before_start", "after_end", "erased"}
_STORABLE = {"erased", "after_end", BY_RULE}  # refused, and no sign of a file that is wrong


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
        report: The short result of its rules.
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
    return draft.with_faults(Fault.where(gone, "erased", column, "no row of an erased prediction"))


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
        verdict: Of its rules.
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
    unstorable = [fault for fault in draft.faults if fault.reason not in _STORABLE]
    reasons: Counter[tuple[str, str, str, str]] = Counter()
    for fault in unstorable:
        reasons[fault.reason, fault.source, fault.name, fault.expected] += fault.rows.size
    n_null = 0
    if parsed.staged.stream == "actuals" and "actual" in draft.columns:
        withdrawn = find_withdrawn(draft.columns["actual"], spec)
        n_null = int((mask_of(withdrawn) & ~bad).sum())
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
            stored. Rows that only a rule of the spec refuses, or its end, do not count.
    """
    staged, parsed = parts[0].parsed.staged, parts[0].parsed
    letters = tuple(letter for part in parts for letter in part.letters)[:MAX_LETTERS]
    if staged.again is None:
        _check_bad_rate(parts, letters, source)
    untested = _find_untested(parts)
    return Prepared(
        staged=staged,
        rows=rows,
        n_rows=sum(part.n_rows for part in parts),
        n_bad=sum(part.n_bad for part in parts),
        n_erased=sum(part.n_erased for part in parts),
        letters=letters,
        bad_windows=tuple(sorted(frozenset().union(*(part.bad_windows for part in parts)))),
        report=report_parts(parts),
        warnings=_warnings(parts, untested),
        examples=tuple(letter["message"] for letter in letters[:MAX_EXAMPLES]),
        layout=None if staged.again or parsed.is_of_other else parsed.layout,
        kept=KeptRows.joined([part.kept for part in parts if part.kept is not None]),
    )


def _find_untested(parts: Sequence[Part]) -> tuple[str, ...]:
    return tuple(
        name
        for name in parts[0].verdict.untested
        if all(name in part.verdict.untested for part in parts[1:])
    )


def report_parts(parts: Sequence[Part]) -> dict[str, object]:
    """Return the short result of the rules over all parts, ready for JSON."""
    failed: Counter[tuple[int, str, str]] = Counter()
    for part in parts:
        failed.update(part.verdict.failed)
    first = parts[0].verdict
    return {
        "n_rows": sum(part.parsed.n_rows for part in parts),
        "n_expectations": first.n_rules,
        "success": not failed,
        "failed": [
            {"expectation": rule, "column": column, "rows": n}
            for (_, rule, column), n in sorted(failed.items())
        ],
        "untested": list(_find_untested(parts)),
        **({} if first.declared is None else {"expectations": first.declared}),
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
