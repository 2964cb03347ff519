"""How right a classifier's decisions and scores were, beside the baseline's.

Calibration, the curves over every threshold, the table of decisions and their quality class by
class; all of rows whose ground truth has come, from the counts that profiles hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mlmon_dagster.metrics import Ints
from mlmon_dagster.metrics.binnings import (
    class_counts,
    label_counts,
    lowest_scores,
    score_midpoints,
)
from mlmon_dagster.metrics.evaluations import VERDICTS, evaluation_metrics
from mlmon_dagster.metrics.intervals import wilson
from mlmon_dagster.metrics.performance.roc import (
    OperatingPoints,
    class_quality,
    operating_points,
    roc_auc,
    thinned,
)
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, merge, select
from mlmon_dagster.profiles import Baseline
from mlmon_dagster.profiles.loss_columns import JUDGED
from mlmon_dagster.report.charts import NONE
from mlmon_dagster.report.curves import Asked
from mlmon_dagster.report.distributions import find_cells, side_of
from mlmon_dagster.spec import ModelSpec

_GROUPS = 10  # of a calibration
_MOST_CLASSES = 12  # of a table of decisions
_MOST_LISTED = 40  # of a table class by class
_POINTS = 48  # of a curve
_ERRORS = {
    "judge_agreement": "it agrees with people in {}",
    "false_pass_rate": "passes {} of the calls that they call bad",
    "false_fail_rate": "fails {} of the calls that they call good",
}
_SHARES = (0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the highest scores


@dataclass(frozen=True)
class Calibration:
    """Predicted beside actual shares, by groups of the score.

    Attributes:
        rows: Texts of each group: range, rows, predicted, actual, its interval.
        points: Predicted, actual, and the interval of it, of each group.
    """

    rows: Sequence[tuple[str, str, str, str, str]]
    points: Sequence[tuple[float, float, float, float]]

    @property
    def picture(self) -> Markup:
        """Points with intervals over the diagonal on which both are equal."""
        drawn = ['<path class="base" d="M0 200L200 0"/>']
        for x, y, low, high in self.points:
            left, top = 200 * x, 200 * (1 - y)
            drawn.append(f'<path class="whisker" d="M{left:.1f} {200 * (1 - low):.1f}'
                         f'V{200 * (1 - high):.1f}"/>')  # fmt: skip
            drawn.append(f'<circle class="dot" cx="{left:.1f}" cy="{top:.1f}" r="4"/>')
        return _square(drawn)


def calibration_of(stats: ColumnStatistics | None, asked: Asked) -> Calibration | None:
    """Return the calibration of a binary model's score over the labelled rows; None without any.

    Args:
        stats: Profiles of the score.
        asked: Which slice and version.
    """
    side = side_of(stats, asked, asked.model_version)
    if stats is None or side is None or stats.binning.kind != "score":
        return None
    by_label = label_counts(side.counts[None])[0]
    sizes, positive = by_label[:, 1] + by_label[:, 2], by_label[:, 2]
    total = int(sizes.sum())
    if not total:
        return None
    middle = score_midpoints(stats.binning)
    # Groups of about as many rows each; a score that many rows share is in one of them.
    before = np.cumsum(sizes) - sizes
    group = np.minimum((before * _GROUPS) // total, _GROUPS - 1)
    n = np.bincount(group, sizes, _GROUPS)
    kept = n > 0
    hits = np.bincount(group, positive, _GROUPS)[kept]
    sums = np.bincount(group, sizes * middle, _GROUPS)[kept]
    n = n[kept]
    low, high = wilson(hits, n)
    rows, points = [], []
    for i, g in enumerate(np.flatnonzero(kept)):
        held = middle[(group == g) & (sizes > 0)]
        predicted, actual = float(sums[i] / n[i]), float(hits[i] / n[i])
        points.append((predicted, actual, float(low[i]), float(high[i])))
        scores, ends = f"{held[0]:.2f} to {held[-1]:.2f}", f"{low[i]:.3f} to {high[i]:.3f}"
        rows.append((scores, f"{int(n[i]):,}", f"{predicted:.3f}", f"{actual:.3f}", ends))
    return Calibration(rows, points)


@dataclass(frozen=True)
class Matrix:
    """What was said by what was true.

    Attributes:
        title: What it shows. said: Who says what the rows are. truth: Before a name of the truth.
        classes: Names of what was true.
        rows: Of each name that was said: the name and per class: count, share, share in the
            baseline, and how dark the cell is, 0 to 5.
        n: Rows with ground truth.
        note: Beneath it; may be empty.
    """

    title: str
    said: str
    truth: str
    classes: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str, str, int]]]]
    n: int
    note: str = ""


def matrix_of(
    stats: ColumnStatistics | None, baseline: Baseline | None, asked: Asked
) -> Matrix | None:
    """Return which decisions were right, of a classification; None without ground truth.

    Args:
        stats: Profiles of the prediction.
        baseline: The baseline, whose shares stand beside; None while there is none.
        asked: Which slice and version.
    """
    decided = _decided_of(stats, baseline, asked)
    if decided is None or len(decided.names) > _MOST_CLASSES:
        return None
    k = len(decided.names)
    now, then = decided.now[:k, :k], None if decided.then is None else decided.then[:k, :k]
    if not now.sum():
        return None
    return _make_matrix("Predicted against actual", "Predicted", "actual", decided.names, now, then)


def _make_matrix(
    title: str,
    said: str,
    truth: str,
    names: Sequence[str],
    now: Ints,
    then: Ints | None,
    note: str = "",
) -> Matrix:
    shares = now / now.sum()
    usual = then / then.sum() if then is not None and then.sum() else np.full(now.shape, np.nan)

    def write_cell(i: int, j: int) -> tuple[str, str, str, int]:
        share = float(shares[i, j])
        before = _share(float(usual[i, j]))
        return f"{int(now[i, j]):,}", f"{share:.1%}", before, int(min(share * 6, 5))

    k = range(len(names))
    rows = [(name, [write_cell(i, j) for j in k]) for i, name in enumerate(names)]
    return Matrix(title, said, truth, names, rows, int(now.sum()), note)


def judges_of(
    spec: ModelSpec,
    profiles: Mapping[str, ColumnStatistics],
    baseline: Baseline | None,
    asked: Asked,
) -> list[Matrix]:
    """Return what judges say against what people say of the same calls; no judge without such.

    Args:
        spec: The model.
        profiles: Of the windows that are shown.
        baseline: The baseline, whose shares stand beside; None while there is none.
        asked: Which slice and version.
    """
    found = []
    for name, one in spec.evaluations.items():
        stats = profiles.get(f"{JUDGED}{name}")
        side = side_of(stats, asked, asked.model_version)
        if one.of is None or stats is None or side is None:
            continue
        now = _read_judged(side.counts)
        if not now.sum():
            continue
        other = side_of(baseline.windows.get(f"{JUDGED}{name}") if baseline else None, asked)
        then = _read_judged(other.counts) if other else None
        title = f"{name} against people ({one.of})"
        errors = _write_errors(name, stats, asked)
        found.append(_make_matrix(title, name, "people say", ("bad", "good"), now, then, errors))
    return found


def _read_judged(counts: Ints) -> Ints:
    """Return calls by what the judge says, and of these what people say, (2, 2)."""
    return np.asarray(counts[: len(VERDICTS)].reshape(2, 3)[:, 1:])


def _write_errors(name: str, stats: ColumnStatistics, asked: Asked) -> str:
    """Say how a judge errs, weighted back to all calls that it judged."""
    one = merge(select(stats, find_cells(stats, asked, asked.model_version)), ())
    measured = evaluation_metrics({}, {name: one}).set_index("metric")
    texts = [
        says.format(f"{row['value']:.1%} ({row['lower']:.1%} to {row['upper']:.1%})")
        for metric, says in _ERRORS.items()
        if np.isfinite((row := measured.loc[metric])["value"])
    ]
    return f"Of all that it judged, with 95 % intervals: {', '.join(texts)}."


class _Decided(NamedTuple):
    """Decisions beside actuals: names of the classes, and predicted x actual now and usually.

    What is no class of the model is at the end of a table. `then` is None without a baseline that
    counts as these windows do.
    """

    names: Sequence[str]
    now: Ints
    then: Ints | None


def _decided_of(
    stats: ColumnStatistics | None, baseline: Baseline | None, asked: Asked
) -> _Decided | None:
    side = side_of(stats, asked, asked.model_version)
    if stats is None or side is None or stats.binning.kind not in ("confusion", "classes"):
        return None
    base = baseline.windows.get("prediction") if baseline else None
    is_alike = base is not None and base.binning.binning_id == stats.binning.binning_id
    other = side_of(base, asked) if is_alike else None
    return _Decided(
        list(stats.binning.categories) or ["0", "1"],
        _table(stats.binning, side.counts),
        None if other is None else _table(stats.binning, other.counts),
    )


def _table(binning: Binning, counts: Ints) -> Ints:
    if binning.kind == "confusion":
        return np.asarray(label_counts(counts[None])[0][:, 1:])
    return np.asarray(class_counts(binning, counts[None])[0][0])


@dataclass(frozen=True)
class OperatingCurves:
    """What decisions at other thresholds would have been, and where the decisions made are.

    Attributes:
        pictures: Of the ROC and of the precision-recall curve each its name, what is across and
            up, what the picture says in words, and the picture.
        rows: Of each share of the highest scores: the share, the lowest score of it, precision and
            recall with the baseline's, and false alarms with the baseline's.
        made: The same of the decisions as made, if they were logged; their share of positives
            stands where the others have the share of the highest scores.
        has_baseline: Whether the baseline's numbers are there.
    """

    pictures: Sequence[tuple[str, str, str, Markup]]
    rows: Sequence[Sequence[str]]
    made: Sequence[str] | None
    has_baseline: bool


@dataclass(frozen=True)
class _Curves:
    """One side's: what every threshold gives, the area, and the decisions as made."""

    points: OperatingPoints
    area: float
    made: OperatingPoints | None


def operating_curves_of(
    score: ColumnStatistics | None,
    prediction: ColumnStatistics | None,
    baseline: Baseline | None,
    asked: Asked,
) -> OperatingCurves | None:
    """Return the curves of a binary classifier; None unless rows of both classes are labelled.

    Args:
        score: Profiles of the score.
        prediction: Profiles of the decisions; None where none are logged.
        baseline: Whose curves stand beside; None while there is none.
        asked: Which slice and version.
    """
    now = _curves_of(score, prediction, asked, asked.model_version)
    if now is None or score is None:
        return None
    windows = baseline.windows if baseline else {}
    then = _curves_of(windows.get("score"), windows.get("prediction"), asked)
    pictures = [
        ("ROC curve", "x: false positive rate, y: recall", _roc_said(now, then),
         _picture(now, then, "false_alarms", "recall", '<path class="base" d="M0 200L200 0"/>')),
        ("Precision and recall", "x: recall, y: precision", _precision_said(now, then),
         _picture(now, then, "recall", "precision", "")),
    ]  # fmt: skip
    lows = lowest_scores(score.binning)[::-1]
    rows = []
    for share in _SHARES:
        place = _reaching(now.points, share)
        usual = None if then is None else _rates(then.points, _reaching(then.points, share))
        beside = _beside(_rates(now.points, place), usual)
        rows.append([f"{share:.0%}", f"{lows[place - 1]:.3f}", *beside])
    made = None
    if now.made is not None:
        usual = None if then is None else _rates(then.made, 0)
        beside = _beside(_rates(now.made, 0), usual)
        made = [f"{now.made.flagged[0]:.1%}", "as made", *beside]
    return OperatingCurves(pictures, rows, made, then is not None)


def _curves_of(
    score: ColumnStatistics | None,
    prediction: ColumnStatistics | None,
    asked: Asked,
    *version: str,
) -> _Curves | None:
    side = side_of(score, asked, *version)
    if score is None or side is None or score.binning.kind != "score":
        return None
    by_label = label_counts(side.counts[None])[0]
    negatives, positives = by_label[:, 1], by_label[:, 2]
    if not negatives.any() or not positives.any():
        return None
    area = float(roc_auc(negatives[None], positives[None]).value[0])
    decided, made = side_of(prediction, asked, *version), None
    if prediction is not None and decided is not None and prediction.binning.kind == "confusion":
        table = _table(prediction.binning, decided.counts)
        if table.sum(axis=0).all():
            points = operating_points(table[:, 0], table[:, 1])
            made = OperatingPoints(*(values[1:2] for values in points))
    return _Curves(operating_points(negatives, positives), area, made)


def _reaching(points: OperatingPoints, share: float) -> int:
    """Return the place at which the fewest whole bins hold a share of the rows."""
    return int(np.searchsorted(points.flagged, share - 1e-12))


def _rates(points: OperatingPoints | None, place: int) -> list[str]:
    names = ("precision", "recall", "false_alarms")
    return [NONE if points is None else _share(float(getattr(points, n)[place])) for n in names]


def _beside(now: Sequence[str], usual: Sequence[str] | None) -> list[str]:
    """Put the baseline's texts each behind its own; none while there is no baseline."""
    return (
        list(now) if usual is None else [t for pair in zip(now, usual, strict=True) for t in pair]
    )


def _share(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.1%}"


def _roc_said(now: _Curves, then: _Curves | None) -> str:
    said = f"ROC curve: area {now.area:.3f}"
    said += f", baseline {then.area:.3f}" if then else ""
    if now.made is not None:
        said += (
            f"; decisions as made find {_share(float(now.made.recall[0]))} of the positives at "
            f"a false positive rate of {_share(float(now.made.false_alarms[0]))}"
        )
    return f"{said}; the numbers are in the table below."


def _precision_said(now: _Curves, then: _Curves | None) -> str:
    base = float(now.points.precision[-1])
    said = f"Precision and recall over all thresholds; {_share(base)} of the rows are positive"
    said += f", in the baseline {_share(float(then.points.precision[-1]))}" if then else ""
    if now.made is not None:
        said += (
            f"; decisions as made have precision {_share(float(now.made.precision[0]))} "
            f"at recall {_share(float(now.made.recall[0]))}"
        )
    return f"{said}; the numbers are in the table below."


def _picture(now: _Curves, then: _Curves | None, across: str, up: str, under: str) -> Markup:
    """Draw a curve over the baseline's, with a dot and a ring for their decisions as made."""
    drawn = [under]
    for side, name in ((then, "usual"), (now, "curve")):
        if side is None:
            continue
        chosen = thinned(side.points, _POINTS)
        places = _places(side.points, across, up, chosen)
        drawn.append(f'<path class="{name}" d="M{"L".join(places)}"/>')
        if side.made is not None and (at := _places(side.made, across, up, np.array([0]))):
            x, y = at[0].split()
            drawn.append(f'<circle class="{name} made" cx="{x}" cy="{y}" r="5"/>')
    return _square(drawn)


def _places(points: OperatingPoints, across: str, up: str, chosen: Ints) -> list[str]:
    found = zip(getattr(points, across)[chosen], getattr(points, up)[chosen], strict=True)
    return [f"{200 * x:.1f} {200 * (1 - y):.1f}" for x, y in found if not np.isnan(x + y)]


def _square(drawn: Sequence[str]) -> Markup:
    """Frame a picture of shares against shares."""
    ticks = [
        f'<text x="{200 * at:g}" y="216" text-anchor="middle">{at:g}</text>'
        f'<text x="-6" y="{204 - 200 * at:g}" text-anchor="end">{at:g}</text>'
        for at in (0, 0.5, 1)
    ]
    return Markup(
        '<svg class="square" viewBox="-26 -8 240 230" aria-hidden="true" focusable="false">'
        f'<path class="frame" d="M0 0V200H200"/>{"".join(ticks)}{"".join(drawn)}</svg>'
    )


@dataclass(frozen=True)
class ByClass:
    """The quality of decisions class by class, the commonest first.

    Attributes:
        rows: Of each class its name, rows of it, rows decided for it, and of precision, recall and
            F1 the number, the 95 % interval (empty of F1) and the baseline's number.
        n_more: Classes that are left out.
    """

    rows: Sequence[tuple[str, str, str, Sequence[tuple[str, str, str]]]]
    n_more: int


def by_class_of(
    stats: ColumnStatistics | None, baseline: Baseline | None, asked: Asked
) -> ByClass | None:
    """Return the quality of each class of a classification; None without ground truth.

    Rows whose prediction or actual is no class of the model count as wrong.

    Args:
        stats: Profiles of the prediction.
        baseline: The baseline, whose numbers stand beside; None while there is none.
        asked: Which slice and version.
    """
    decided = _decided_of(stats, baseline, asked)
    if decided is None:
        return None
    names, now = decided.names, class_quality(decided.now)
    if not now.actual.sum():
        return None
    then = None if decided.then is None else class_quality(decided.then)
    order = np.argsort(-now.actual[: len(names)], kind="stable")
    rows = []
    for k in order[:_MOST_LISTED]:
        cells = []
        for name in ("precision", "recall", "f1"):
            value = _share(float(getattr(now, name)[k]))
            ends = None if name == "f1" or value == NONE else getattr(now, f"{name}_ends")[k]
            interval = "" if ends is None else f"{ends[0]:.1%} to {ends[1]:.1%}"
            usual = NONE if then is None else _share(float(getattr(then, name)[k]))
            cells.append((value, interval, usual))
        rows.append((names[k], f"{now.actual[k]:,}", f"{now.predicted[k]:,}", cells))
    return ByClass(rows, max(len(names) - _MOST_LISTED, 0))
