"""From staged files to rows that may be appended: parse, judge, and refuse what is bad."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.faults import Fault, Mask, names, rows_at_fault
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.raw import Layout, refused
from mlmon_dagster.ingest.row_hash import row_hashes
from mlmon_dagster.ingest.rows.canonical import Draft, canonical_rows, moments_of, place
from mlmon_dagster.ingest.rows.expectations import Verdict, judge
from mlmon_dagster.spec import ModelSpec, Source, Window
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.state.erased_ids import Erased, Query
from mlmon_dagster.store.tables.kept_rows import ABOUT, KeptRows

FEW_BAD_ROWS = 10  # so many are never too many
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
    rows: pa.Table
    n_rows: int
    n_bad: int
    letters: tuple[dict[str, object], ...]
    bad_windows: tuple[Window, ...]
    report: Mapping[str, object]
    warnings: tuple[str, ...]
    examples: tuple[str, ...]
    layout: Layout | None = None
    kept: KeptRows | None = None
    n_erased: int = 0


class TooManyBadError(SchemaError):
    """A file is refused because of its bad rows, some of which are attached as evidence."""

    def __init__(self, error: SchemaError, n_rows: int, letters: Sequence[dict[str, Any]]) -> None:
        super().__init__(error.reason, str(error))
        self.n_rows = n_rows
        self.letters = tuple({**letter, "window_start": None} for letter in letters)
        self.examples = tuple(letter["message"] for letter in letters[:MAX_EXAMPLES])


def judge_batch(
    drafts: Sequence[Draft], spec: ModelSpec, stream: Stream
) -> list[tuple[Draft, Verdict]]:
    """Run the suite over the files of a batch and add what it found to their faults."""
    verdicts = judge(drafts, spec, stream)
    return [(d.with_faults(v.faults), v) for d, v in zip(drafts, verdicts, strict=True)]


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


def prepare(
    draft: Draft, verdict: Verdict, spec: ModelSpec, source: Source, now: dt.datetime
) -> Prepared:
    """Separate good rows from bad ones.

    Raises:
        TooManyBadError: If more than ``max_bad_rate`` of the rows, and more than ten, are bad.
    """
    staged = draft.parsed.staged
    wanted = ~staged.passed_over(draft.parsed.n_rows)
    bad = draft.bad() & wanted
    windows = _windows_of(draft, np.flatnonzero(bad), spec)
    letters = _dead_letters(draft, bad, windows)
    if staged.again is None:
        _check_bad_rate(draft, letters, source)
    is_erased = draft.erased() & bad
    return Prepared(
        staged=staged,
        rows=canonical_rows(draft, ~bad & wanted, spec, now),
        n_rows=int(wanted.sum()),
        n_bad=int(bad.sum()),
        n_erased=int(is_erased.sum()),
        letters=letters,
        bad_windows=tuple(sorted(set(windows.values()))),
        report=verdict.report,
        warnings=_warnings(draft, verdict, bad),
        examples=tuple(letter["message"] for letter in letters[:MAX_EXAMPLES]),
        layout=draft.parsed.layout if staged.again is None else None,
        kept=_kept(draft, bad & ~is_erased, windows),
    )


def _kept(draft: Draft, refused_rows: Mask, windows: Mapping[int, Window]) -> KeptRows | None:
    """Take the refused rows out of the file as they were written."""
    rows = np.flatnonzero(refused_rows)
    parsed, cut_out = draft.parsed, draft.parsed.cut
    if not rows.size or cut_out is None:
        return None
    cut = cut_out(rows.tolist())
    numbers = parsed.staged.row_numbers(parsed.n_rows)
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


def _check_bad_rate(draft: Draft, letters: Sequence[dict[str, object]], source: Source) -> None:
    n_rows = draft.parsed.n_rows
    own_faults = [fault for fault in draft.faults if fault.reason != "erased"]
    n_bad = int(rows_at_fault(own_faults, n_rows).sum())
    if n_bad <= FEW_BAD_ROWS or n_bad <= source.max_bad_rate * n_rows:
        return
    found = (
        f"{n_bad:,} of {n_rows:,} rows are bad ({_by_reason(own_faults)}); expected at most "
        f"{source.max_bad_rate:.2%} under max_bad_rate."
    )
    raise TooManyBadError(
        refused(draft.parsed.staged.name, "too_many_bad", found), n_rows, letters[:100]
    )


def _by_reason(faults: Iterable[Fault]) -> str:
    counts = sorted(((f.rows.size, f.reason, f.source) for f in faults), reverse=True)
    listed = [f"{n:,} {reason} in {names([source])}" for n, reason, source in counts[:3]]
    return ", ".join(listed) + (", ..." if len(counts) > len(listed) else "")


def _dead_letters(
    draft: Draft, bad: Mask, windows: Mapping[int, Window]
) -> tuple[dict[str, Any], ...]:
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
    numbers = draft.parsed.staged.row_numbers(draft.parsed.n_rows)
    letters = {
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


def _warnings(draft: Draft, verdict: Verdict, bad: Mask) -> tuple[str, ...]:
    parsed = draft.parsed
    found = []
    if parsed.n_rows == 0:
        found.append("the file has no rows")
    if parsed.extra:
        found.append(
            f"columns {names(parsed.extra)} are not declared and not kept; "
            "declare them under 'features' to monitor them"
        )
    if parsed.absent:
        found.append(f"columns {names(parsed.absent)} are missing; their values are null")
    if verdict.untested:
        found.append(
            f"columns {names(verdict.untested)} hold no value at all, so no rule could test them"
        )
    if parsed.staged.stream == "actuals" and "actual" in draft.columns:
        n_null = int((draft.columns["actual"].is_null().to_numpy(False) & ~bad).sum())
        if n_null:
            found.append(
                f"{n_null:,} rows without an actual: they withdraw earlier actuals, if any"
            )
    return tuple(found)
