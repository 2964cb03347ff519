"""Which baseline each window of a run is compared with: one for many, or one for each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.pipeline.work import Work, parts_of
from mlmon_dagster.spec import BaselineSpec, ModelSpec
from mlmon_dagster.store.state.window_state import NO_BASELINE, StepMark

if TYPE_CHECKING:
    from mlmon_dagster.profiles import Baseline
    from mlmon_dagster.store.baselines import StoredBaseline


@dataclass(frozen=True)
class Comparison:
    """Some windows and what they are compared with.

    Attributes:
        work: The windows.
        baseline: None while there is none, or for metrics that need none.
        mark: Fingerprint of a baseline of earlier windows; empty for others.
    """

    work: Work
    baseline: Baseline | None = None
    mark: str = ""

    def marked(self, marks: Mapping[dt.datetime, StepMark]) -> dict[dt.datetime, StepMark]:
        """Return the windows' marks with what they were compared with, if that moves on."""
        if not self.mark:
            return {}
        found = {}
        for window in self.work.windows:
            mark = marks[window.start]
            mark = replace(mark, data_version=f"{mark.data_version}:{self.mark[:8]}")
            if not mark.maturity:
                prefix = "" if self.baseline else f"{NO_BASELINE}:"
                mark = replace(mark, maturity=f"{prefix}{self.mark}")
            found[window.start] = mark
        return found


def baseline_of(spec: ModelSpec, family: str) -> BaselineSpec:
    """Return what a family of metrics is compared with: its own choice, or the spec's."""
    own = spec.monitors.drift.baseline if family == "drift" else None
    return own or spec.baseline


def comparisons(work: Work, family: str, columns: Sequence[str]) -> Iterator[Comparison]:
    """Yield the run's windows in parts, each with the baseline it is compared with."""
    from mlmon_dagster.profiles.rolling import RollingBaselines, is_rolling

    store, spec, choice = work.project.store, work.spec, baseline_of(work.spec, family)
    for part, stored in _parts(work):
        if stored is None or not is_rolling(stored, choice):
            yield Comparison(part, None if stored is None else _own(part))
            continue
        last = part.windows[-1].start
        rolling = RollingBaselines(store, spec, stored, choice, part.start, last, columns)
        for window in part.windows:
            found = _or_none(partial(rolling.of, window.start))
            yield Comparison(replace(part, windows=(window,)), found, rolling.mark(window.start))


def fixed_comparisons(work: Work) -> Iterator[Comparison]:
    """Yield the run's windows in parts, each with its baseline where that does not move on."""
    from mlmon_dagster.profiles.rolling import is_rolling

    for part, stored in _parts(work):
        is_fixed = stored is not None and not is_rolling(stored, work.spec.baseline)
        yield Comparison(part, _own(part) if is_fixed else None)


def _parts(work: Work) -> Iterator[tuple[Work, StoredBaseline | None]]:
    """Yield the run's windows in parts that share a stored baseline; None while there is none."""
    from mlmon_dagster.profiles.bins.fit import stored_baseline

    for part in parts_of(work) if work.windows else []:
        try:
            yield part, stored_baseline(work.project.store, work.spec, part.start)
        except BaselineMissingError:
            yield part, None


def _own(part: Work) -> Baseline | None:
    """Return the baseline in force for a part, which has rows of its own."""
    from mlmon_dagster.profiles.rolling import load_baseline

    return _or_none(partial(load_baseline, part.project.store, part.spec, part.start))


def _or_none(load: Callable[[], Baseline]) -> Baseline | None:
    try:
        return load()
    except BaselineMissingError:
        return None
