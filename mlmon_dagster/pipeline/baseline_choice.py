"""Which baseline each window of a run is compared with: one for many, or one for each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.pipeline.parts import Part
from mlmon_dagster.pipeline.work import Work
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import BaselineSpec
from mlmon_dagster.store.state.window_state import NO_BASELINE, StepMark

if TYPE_CHECKING:
    from mlmon_dagster.profiles import Baseline


@dataclass(frozen=True)
class Comparison:
    """Some windows and what they are compared with.

    Attributes:
        part: The windows.
        baseline: None while there is none, or for metrics that need none.
        mark: Fingerprint of a baseline of earlier windows; empty for others.
    """

    part: Part
    baseline: Baseline | None = None
    mark: str = ""

    @property
    def work(self) -> Work:
        """The windows, as what a step of a run works on."""
        return self.part.work

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


def comparisons(
    part: Part, family: str, columns: Sequence[str], alone: Collection[Window] = ()
) -> Iterator[Comparison]:
    """Yield windows that share a baseline, in parts that are compared with the same rows.

    Args:
        part: The windows.
        family: The family of metrics.
        columns: The profiled columns that are compared.
        alone: Windows that are not compared. They come first and together, without a baseline,
            where each window has one of its own; that takes long to make.
    """
    choice = baseline_of(part.work.spec, family)
    if not _is_rolling(part, choice):
        yield Comparison(part, _own(part))
        return
    if alone:
        yield Comparison(part.only(sorted(alone, key=lambda window: window.start)))
    windows = [window for window in part.work.windows if window not in alone]
    if not windows:
        return
    rolling = part.in_force.rolling(choice, windows[0].start, windows[-1].start, columns)
    for window in windows:
        found = _or_none(partial(rolling.of, window.start))
        yield Comparison(part.only([window]), found, rolling.mark(window.start))


def fixed_comparison(part: Part) -> Comparison:
    """Return windows with their baseline where that does not move on."""
    return Comparison(part, None if _is_rolling(part, part.work.spec.baseline) else _own(part))


def _is_rolling(part: Part, choice: BaselineSpec) -> bool:
    return part.in_force.baseline_id is not None and part.in_force.is_rolling(choice)


def _own(part: Part) -> Baseline | None:
    """Return the baseline in force for a part, if it has rows of its own."""
    return _or_none(lambda: part.in_force.own)


def _or_none(load: Callable[[], Baseline]) -> Baseline | None:
    try:
        return load()
    except BaselineMissingError:
        return None
