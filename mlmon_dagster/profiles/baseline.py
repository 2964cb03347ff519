"""The baseline of a model: its bins, and the profiles of its own windows.

A random half of it is kept apart, so that what is learnt from one half is measured on the other.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.metrics.estimated.multiclass import CONFIDENCE, DECIDED_FOR
from mlmon_dagster.metrics.performance.weighted_back import DECIDED
from mlmon_dagster.metrics.statistics import (
    BaselineWindows,
    Binning,
    ColumnStatistics,
    all_over_versions,
    merge,
    with_empty,
)
from mlmon_dagster.profiles.bin_shapes import decode_binnings, encode_binnings
from mlmon_dagster.profiles.build import build_profiles, held
from mlmon_dagster.profiles.compiler import Engine
from mlmon_dagster.profiles.fit import fit_binnings, value_expressions
from mlmon_dagster.profiles.storage import from_rows, to_rows
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.model import ModelSpec, profile_signature
from mlmon_dagster.spec.tasks import class_scores
from mlmon_dagster.spec.windows import Window, complete_windows, window_containing
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.baselines import FIRST_WINDOWS, StoredBaseline
from mlmon_dagster.store.state import erased_ids, window_state
from mlmon_dagster.store.state.sql import literal

if TYPE_CHECKING:
    from mlmon_dagster.store.state.window_state import WindowInputs
    from mlmon_dagster.store.tables.inference_records import RecordsLog, WindowCounts

KIND = "baseline_profiles"
MIN_FIRST_ROWS = 500
METHOD = "7"  # another way of choosing bins is another baseline
BaselineKind = Literal["dataset", "promoted", "moving", "previous", "same", "model_version"]
_KINDS: dict[str, BaselineKind] = {"dataset": "dataset", baselines.PROMOTED: "promoted"}
SEED = 20130401
# One half of the rows, by hash of their id: the same ones on every engine and every day.
IN_HALF = f"SUBSTR(MD5(prediction_id || ':{SEED}'), 1, 1) < '8'"
_PREFIX = ":half/"
_SHOWN = 8


@dataclass(frozen=True)
class Baseline:
    """What windows are compared with.

    Attributes:
        baseline_id: Equal for equal rows and an equal spec.
        kind: How it was chosen; ``dataset`` is the events of another dataset, ``promoted`` an
            accepted period, the others are earlier windows of production.
        dataset: That dataset.
        n: Rows.
        data_version: Fingerprint of the rows.
        binnings: Column -> bins.
        windows: Column -> statistics of the baseline's own windows, so that the spread between
            unchanged windows is known; the whole baseline is `pooled`.
        halves: Column -> statistics of a random half of the rows, for the columns that
            performance is estimated from.
    """

    baseline_id: str
    kind: BaselineKind
    dataset: str
    n: int
    data_version: str
    binnings: dict[str, Binning]
    windows: BaselineWindows
    halves: dict[str, ColumnStatistics] = field(default_factory=dict)

    def pooled(self, column: str) -> ColumnStatistics:
        """Return a column's statistics over all windows and versions, one cell per slice."""
        return merge(self.windows[column], ("dataset", "slice_key", "slice_value"))


def ensure_baseline(
    store: Store, spec: ModelSpec, now: dt.datetime, log: RecordsLog | None = None
) -> Baseline:
    """Fit the baseline from the events of its dataset, unless that was done for these very rows.

    The records of that dataset are rebuilt first, so events and ground truth that arrived since
    are in. Where windows are compared with earlier ones, only bins are fitted, once, from the
    first windows of production.

    Args:
        store: The store.
        spec: The model.
        now: When the baseline is stored; it does not affect its identity.
        log: What the records are made from, if it is at hand.

    Raises:
        BaselineMissingError: If the dataset has no events, or production too few windows yet.
    """
    if spec.baseline.is_rolling:
        return _ensure_bins(store, spec, now)
    dataset = spec.baseline.dataset
    windows = _windows_of(store, spec, dataset)
    records = store.inference_records(spec, log)
    counts = records.rebuild(windows, [dataset])
    n = sum(count.n for count in counts)
    if n == 0:
        raise no_baseline(spec)
    data_version = _data_version(counts)
    baseline_id = _digest([METHOD, data_version, *profile_signature(spec)])[:16]
    payload = baselines.read_whole_payload(
        store, baselines.load_newest(store.state, spec.model, baseline_id)
    )
    if payload is None:
        source = records.from_sql(windows, [dataset])
        binnings = _fit_and_save(store, spec, baseline_id, source)
        payload = encode_binnings(binnings)
    # Also if it was stored before: rows that went back to an earlier state make it the newest.
    baselines.save_baseline(
        store, spec.model, baseline_id, "dataset", payload, now,
        dataset=dataset, n=n, data_version=data_version,
    )  # fmt: skip
    return _saved(store, spec, baseline_id)


def fit_period(
    store: Store, spec: ModelSpec, windows: Sequence[Window], now: dt.datetime
) -> Baseline:
    """Fit a baseline from production's own records of a period, and store it; nothing uses it yet.

    Args:
        store: The store.
        spec: The model.
        windows: The period's windows, computed.
        now: When the baseline is stored; it does not affect its identity.

    Raises:
        BaselineMissingError: If the period has no predictions.
    """
    states = window_state.load(store.state, spec.model, windows[0].start, windows[-1].end)
    filled = [state for state in states.values() if state.n and "inference_store" in state.steps]
    n = sum(state.n for state in filled)
    if n == 0:
        raise BaselineMissingError(
            f"Model {spec.model!r} has no computed predictions from {windows[0].key} to "
            f"{windows[-1].key}, so nothing can become the new normal. Run mlmon run "
            f"{spec.model} first, or choose another period."
        )
    versions = [
        [state.window_start.isoformat(), state.n, state.steps["inference_store"].data_version]
        for state in sorted(filled, key=lambda state: state.window_start)
    ]
    data_version = _digest(versions)[:32]
    baseline_id = _digest([METHOD, baselines.PROMOTED, data_version, *profile_signature(spec)])[:16]
    source = store.inference_records(spec).from_sql(windows, [PRODUCTION])
    binnings = _fit_and_save(store, spec, baseline_id, source)
    baselines.save_baseline(
        store, spec.model, baseline_id, baselines.PROMOTED, encode_binnings(binnings), now,
        dataset=PRODUCTION, n=n, data_version=data_version,
    )  # fmt: skip
    return _saved(store, spec, baseline_id)


def load_stored(
    store: Store, spec: ModelSpec, stored: StoredBaseline, binnings: dict[str, Binning]
) -> Baseline:
    """Return a baseline that has rows of its own, with their profiles.

    Raises:
        BaselineMissingError: If it is bins only, since windows are compared with earlier ones.
    """
    if stored.kind == FIRST_WINDOWS:
        raise no_baseline(spec)
    return _load(store, spec, stored, binnings)


def no_baseline(spec: ModelSpec) -> BaselineMissingError:
    """Return the error that says what is still missing."""
    step = (
        "too few have come yet"
        if spec.baseline.is_rolling
        else f"there are none. Land some, then run mlmon run {spec.model}, or name another dataset "
        f"under 'baseline' in models/{spec.model}.yaml"
    )
    return BaselineMissingError(
        f"Model {spec.model!r} has no baseline yet. It is {spec.baseline.described()}, and {step}. "
        "Until then nothing is compared with it, and drift and performance are not judged."
    )


def binnings_of(store: Store, stored: StoredBaseline) -> dict[str, Binning]:
    """Return the bins of a stored baseline.

    Raises:
        StoreError: If the file that has them is gone.
    """
    return decode_binnings(baselines.read_payload(store, stored))


def _saved(store: Store, spec: ModelSpec, baseline_id: str) -> Baseline:
    stored = baselines.load_newest(store.state, spec.model, baseline_id)
    assert stored is not None
    return _load(store, spec, stored, binnings_of(store, stored))


def _load(
    store: Store, spec: ModelSpec, stored: StoredBaseline, binnings: dict[str, Binning]
) -> Baseline:
    where = f"baseline_id = {literal(stored.baseline_id)}"
    rows = store.table(KIND, spec.model).read(where=where)
    of_half = _half_binnings(spec, binnings)
    found = from_rows(rows, binnings | of_half)
    halves = with_empty(found, of_half)
    return Baseline(
        baseline_id=stored.baseline_id,
        kind=_KINDS.get(stored.kind, spec.baseline.kind),
        dataset=stored.dataset,
        n=stored.n,
        data_version=stored.data_version,
        binnings=binnings,
        windows=BaselineWindows(with_empty(found, binnings)),
        halves={name.removeprefix(_PREFIX): half for name, half in halves.items()},
    )


def _ensure_bins(store: Store, spec: ModelSpec, now: dt.datetime) -> Baseline:
    """Fit the bins that profiles are counted in, from the first windows of production, once.

    As many windows as a comparison needs, and more if they hold fewer than 500 rows. Later rows
    do not change them: profiles in other bins could not be compared.
    """
    baseline_id = _digest([METHOD, FIRST_WINDOWS, *profile_signature(spec)])[:16]
    stored = baselines.load_newest(store.state, spec.model, baseline_id)
    payload = baselines.read_whole_payload(store, stored)
    if stored is None or payload is None:
        counts = _first_windows(store, spec, now)
        source = store.inference_records(spec).from_sql(list(counts), [PRODUCTION])
        engine, source = held(store.queries, spec, source)
        binnings = fit_binnings(engine, spec, source, key=_key(store, spec))
        payload, n = encode_binnings(binnings), sum(counts.values())
        data_version = _digest([[w.start.isoformat(), n] for w, n in counts.items()])[:32]
    else:
        n, data_version = stored.n, stored.data_version
    baselines.save_baseline(
        store, spec.model, baseline_id, FIRST_WINDOWS, payload, now,
        dataset=PRODUCTION, n=n, data_version=data_version,
    )  # fmt: skip
    return _saved(store, spec, baseline_id)


def _first_windows(store: Store, spec: ModelSpec, now: dt.datetime) -> dict[Window, int]:
    """Return the first complete windows of production that bins are fitted from, and their rows."""
    states = window_state.load(store.state, spec.model)
    needed = spec.baseline.windows_needed(spec.time.granularity)
    windows = [w for w in complete_windows(spec.time, now) if w.start in states]
    kept: dict[Window, int] = {}
    for first in range(0, len(windows), needed):
        some = windows[first : first + needed]
        # Where there cannot be enough of them, what is not computed yet need not be.
        n_rows = _count_rows(store, spec, some, states, may_rebuild=len(windows) >= needed)
        for window in some:
            if n_rows[window]:
                kept[window] = n_rows[window]
            if len(kept) >= needed and sum(kept.values()) >= MIN_FIRST_ROWS:
                return kept
    raise BaselineMissingError(
        f"Model {spec.model!r} is learning: windows are compared with "
        f"{spec.baseline.described()}, and bins for that are chosen from the first {needed} "
        f"complete windows with at least {MIN_FIRST_ROWS} predictions. There are {len(kept)}, with "
        f"{sum(kept.values()):,}."
    )


def _count_rows(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    states: Mapping[dt.datetime, WindowInputs],
    *,
    may_rebuild: bool,
) -> dict[Window, int]:
    """Return the rows of windows; of those that are not computed only if they may be rebuilt."""
    waiting = [w for w in windows if "inference_store" not in states[w.start].steps]
    n_rows = {window: states[window.start].n for window in windows}
    if waiting and may_rebuild:
        counts = store.inference_records(spec).rebuild(waiting, [PRODUCTION])
        by_start = {count.window_start: count.n for count in counts}
        n_rows |= {window: by_start.get(window.start, 0) for window in waiting}
    return n_rows


def _windows_of(store: Store, spec: ModelSpec, dataset: str) -> list[Window]:
    starts = store.records_log(spec).window_starts(dataset)
    return [window_containing(spec.time, start) for start in starts]


def _data_version(counts: Sequence[WindowCounts]) -> str:
    return _digest([[c.window_start.isoformat(), c.n, c.data_version] for c in counts if c.n])[:32]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _key(store: Store, spec: ModelSpec) -> str:
    return erased_ids.personal_key(store.state, spec.model)


def _fit_and_save(
    store: Store, spec: ModelSpec, baseline_id: str, source: str
) -> dict[str, Binning]:
    """Choose the bins of a baseline's rows and store the profiles of its windows."""
    key = _key(store, spec)
    engine, source = held(store.queries, spec, source)
    binnings = fit_binnings(engine, spec, source, key=key)
    recurring = _with_recurring_tails(engine, spec, source, binnings, key)
    whole = build_profiles(engine, spec, source, recurring, key=key)
    saved = to_rows(whole | _profile_half(engine, spec, source, binnings, key))
    saved = saved.append_column("baseline_id", [[baseline_id] * saved.num_rows])
    store.table(KIND, spec.model).replace(saved, None, f"baseline_id = {literal(baseline_id)}")
    return binnings


def _with_recurring_tails(
    engine: Engine, spec: ModelSpec, source: str, binnings: dict[str, Binning], key: str
) -> dict[str, Binning]:
    """Leave only names that several windows have in the tails, so that others count as unseen.

    Drift pools both. How many of a window's rows have a value that no other window has is what
    the monitor of unseen values expects, see `metrics.novelty.own_unseen`.
    """
    values = value_expressions(spec, key)
    found = dict(binnings)
    for name, binning in binnings.items():
        if binning.kind == "categorical" and binning.tail and name in values:
            rows = engine.query(
                f"SELECT x FROM (SELECT {values[name][1]} AS x, window_start FROM {source} "
                "AS records) AS v WHERE x IS NOT NULL GROUP BY x "
                "HAVING COUNT(DISTINCT window_start) > 1"
            )
            several = set(rows.column("x").to_pylist())
            found[name] = replace(binning, tail=tuple(n for n in binning.tail if n in several))
    return found


def scored_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that performance is estimated from, without ground truth."""
    if spec.columns.actual is None:
        return []
    if spec.task == "binary_classification" and spec.columns.score is not None:
        decided = [DECIDED] if spec.columns.prediction is not None else []
        return ["score", *decided]
    if spec.task == "multiclass_classification" and spec.columns.scores is not None:
        names = class_scores(spec).values()
        return [*names, CONFIDENCE, *(f"{DECIDED_FOR}{name}" for name in names)]
    return []


def _half_binnings(spec: ModelSpec, binnings: Mapping[str, Binning]) -> dict[str, Binning]:
    """Return the bins of one half of the baseline, by the names that it is stored under."""
    names = [name for name in scored_columns(spec) if name in binnings]
    return {f"{_PREFIX}{name}": binnings[name] for name in names}


def _profile_half(
    engine: Engine, spec: ModelSpec, from_sql: str, binnings: Mapping[str, Binning], key: str
) -> dict[str, ColumnStatistics]:
    """Profile one half of the baseline, of the whole alone and not of its slices."""
    mine = {name: binnings[name] for name in scored_columns(spec) if name in binnings}
    if not mine:
        return {}
    half = f"(SELECT records.* FROM {from_sql} AS records WHERE {IN_HALF})"
    whole = spec.model_copy(update={"slices": ()})
    found = build_profiles(engine, whole, half, mine, key=key)
    return {f"{_PREFIX}{name}": stats for name, stats in found.items()}


def season_notice(windows: Mapping[str, ColumnStatistics]) -> str:
    """Say which columns of a baseline may have a season that it misses; empty if none has."""
    from mlmon_dagster.metrics.drift.between_windows import may_miss_a_season

    kept = {name: stats for name, stats in windows.items() if not name.startswith(":")}
    found = may_miss_a_season(all_over_versions(kept))
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    names = ", ".join(found[:_SHOWN]) + more
    return (
        f"The baseline is shorter than a year, and its windows differ much in {names}: a season "
        "that it does not hold will be drift for as long as it lasts. Where that is no news, "
        "compare with earlier windows: baseline: {moving: 28d} or {same: weekday, weeks: 4}."
    )
