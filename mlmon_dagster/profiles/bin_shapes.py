"""The shapes that bins can have: from edges, values, names or nothing to a binning, and to JSON.

What is chosen from the baseline's rows is chosen in `fit`; here nothing is queried.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from mlmon_dagster.metrics.binnings import just_below
from mlmon_dagster.metrics.late_truth.means_by_output import STATES
from mlmon_dagster.metrics.statistics import Binning, Kind

SUB_BINS = 12
MAX_CATEGORIES = 1_000
MAX_TAIL = 9_000
SCORE_BINS = 1_024
LOGIT_SPAN = 14.0
LATENCY_RANGE = (1e-3, 1e7)  # ms: a microsecond to nearly three hours
LATENCY_BINS = 1_163  # 2 % wide, so that the middle is within 1 % of every value
# Of the roles of an event: how many bins, and between which ends.
_ROLES: Mapping[str, tuple[float, ...]] = {
    "score": (SCORE_BINS * 3, -LOGIT_SPAN, LOGIT_SPAN),
    "order": (2, -LOGIT_SPAN, LOGIT_SPAN),
    "confusion": (6,),
    "latency": (LATENCY_BINS, *LATENCY_RANGE),
    "status": (2,),
}
_LARGEST = sys.float_info.max
_FEW_CLASSES = 5


def numeric_binning(
    column: str,
    edges: Sequence[float],
    *,
    low: float,
    high: float,
    centre: float = 0.0,
    fine: int = SUB_BINS,
) -> Binning:
    """Bins between given edges, each cut into equal-width sub-bins, and one at either end.

    Codes: ``coarse * fine + sub``. The first coarse bin holds what is below ``low``, the last one
    what is above ``high``: nothing of the baseline. A heap at ``high`` is a bin of its own, as one
    at ``low`` is anyway.

    Args:
        column: Column name.
        edges: Inner edges in any order, repeated ones dropped. One at ``high`` or above it says
            that many rows are there.
        low: Smallest baseline value.
        high: Largest baseline value.
        centre: Value to subtract before squaring.
        fine: Sub-bins per bin.
    """
    low, high = float(low), float(high)
    inner = {float(edge) for edge in edges if edge < high}
    if len(inner) < len(set(edges)):
        inner.add(just_below(high))
    kept = tuple(sorted({edge for edge in inner if edge > -math.inf} | {just_below(low), high}))
    return _between_edges(column, kept, low, high, centre, fine)


def _between_edges(
    column: str, edges: tuple[float, ...], low: float, high: float, centre: float, fine: int
) -> Binning:
    return _binning(
        column, "numeric", (len(edges) + 1) * fine, edges=edges, fine=fine, low=low, high=high,
        centre=centre,
    )  # fmt: skip


def personal_binning(column: str, quantiles: Sequence[float]) -> Binning:
    """Bins with round edges, ends and centre, so that none of them is somebody's value.

    A step is 5 to 10 % of the middle 90 % of the baseline, whatever its smallest and largest are.

    Args:
        column: Column name.
        quantiles: At 1/20, 2/20, ... 19/20; () without values.
    """
    if not quantiles:
        return _binning(column, "numeric", 1)
    spread = quantiles[-1] / 2 - quantiles[0] / 2
    step = _round_step(spread) or _round_step(abs(quantiles[0])) or 1.0

    def rounded(value: float, to_whole: Callable[[float], int] = round) -> float:
        return float(f"{to_whole(value / step) * step:.12g}") + 0.0

    low, high = rounded(quantiles[0], math.floor), rounded(quantiles[-1], math.ceil)
    if low == high:
        low, high = low - step, high + step
    middle = rounded(quantiles[len(quantiles) // 2])
    edges = sorted({edge for edge in (*map(rounded, quantiles), low) if edge < high})
    return _between_edges(column, tuple(edges), low, high, middle, 1)


def _round_step(half: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is at least a tenth of it; 0 for next to 0."""
    if half < 1e-290:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(half / 10))
    return next(times * unit for times in (1, 2, 5, 10) if times * unit >= half / 10)


def discrete_binning(column: str, values: Sequence[float], *, centre: float = 0.0) -> Binning:
    """One bin per value, from midpoint to midpoint, and one at either end for what is beyond.

    Codes: 0 below all values, ``i + 1`` for value i, the last one above. A constant's own bin
    holds nothing else. Without values there is one bin for everything.
    """
    known = sorted({float(value) for value in values})
    if not known:
        return _binning(column, "numeric", 1)
    inner = [_between(a, b) for a, b in pairwise(known)]
    if inner:
        before = known[0] - (inner[0] - known[0])
        after = known[-1] + (known[-1] - inner[-1])
    else:
        before, after = known[0], known[0]
    # A gap may be so small that half of it vanishes in rounding, or so large that no number is
    # beyond it.
    first = min(max(before, -_LARGEST), math.nextafter(known[0], -math.inf))
    edges = (first, *inner, max(min(after, _LARGEST), known[-1]))
    return _binning(
        column, "numeric", len(known) + 2, edges=edges, low=known[0], high=known[-1],
        centre=centre, values=(first, *known, edges[-1]),
    )  # fmt: skip


def _between(a: float, b: float) -> float:
    middle = a / 2 + b / 2
    return middle if a <= middle < b else a


def categorical_binning(column: str, names: Sequence[str]) -> Binning:
    """Codes for the first 1,000 names, then ``other`` (the next 9,000) and ``unseen``.

    Args:
        column: Column name.
        names: Baseline categories, commonest first. With more than 10,000 of them the column is
            open: everything beyond the first 1,000 is ``other`` and nothing is ``unseen``.
    """
    is_open = len(names) > MAX_CATEGORIES + MAX_TAIL
    own = tuple(names[:MAX_CATEGORIES])
    tail = () if is_open else tuple(names[MAX_CATEGORIES:])
    return _binning(column, "categorical", len(own) + 2, categories=own, tail=tail, is_open=is_open)


def role_binning(column: str, kind: Kind) -> Binning:
    """Fixed bins of score, prediction, latency and status; the same for every model.

    Codes of a score: ``logit_bin * 3 + state``, 1,024 bins between logits -14 and 14; of a
    prediction: ``predicted * 3 + state`` (0 unlabelled, 1 negative, 2 positive); of a latency:
    1,163 equal steps of ln(ms) from 1e-3 to 1e7; of a status: 0 ok, 1 error; of the order of
    scores: 0 negative, 1 positive.
    """
    if kind not in _ROLES:
        raise ValueError(f"bins of kind {kind!r} are fitted, not fixed")
    size, *ends = _ROLES[kind]
    return _binning(column, kind, int(size), **dict(zip(("low", "high"), ends, strict=False)))


def class_binning(column: str, classes: Sequence[str]) -> Binning:
    """Predicted x actual class; codes as in `metrics.binnings`."""
    size = (len(classes) + 1) * (len(classes) + 3)
    return _binning(column, "classes", size, categories=tuple(classes))


def row_binning(column: str, size: int, features: Sequence[str]) -> Binning:
    """So many cells for hashes of these features."""
    return _binning(column, "rows", size, categories=tuple(features))


def loss_binning(column: str, typical: float, centre: float = 0.0) -> Binning:
    """One code, and the power of two in parts of which sums are counted.

    Args:
        column: Column name.
        typical: Typical magnitude in the baseline; 0 if it has none.
        centre: Value to subtract before summing.
    """
    return _binning(column, "loss", 1, high=_power_above(typical), centre=centre)


def _power_above(magnitude: float) -> float:
    exponent = math.frexp(magnitude)[1] if magnitude > 0 else 0
    return 2.0 ** min(max(exponent, -200), 200)


def renamed(binning: Binning, column: str) -> Binning:
    """Return the same bins for another column."""
    draft = dataclasses.replace(binning, column=column, binning_id="")
    return dataclasses.replace(draft, binning_id=_digest(binning_to_json(draft)))


def _binning(column: str, kind: Kind, size: int, **fields: Any) -> Binning:
    draft = Binning(column, kind, size, "", **fields)
    return dataclasses.replace(draft, binning_id=_digest(binning_to_json(draft)))


def _digest(content: Mapping[str, object]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def class_score_binning(column: str, label: str, classes: int) -> Binning:
    """Bins of one class's score against the rest; coarser ones where there are many classes."""
    bins = SCORE_BINS if classes <= _FEW_CLASSES else SCORE_BINS // 4
    return _binning(
        column, "score", bins * 3, low=-LOGIT_SPAN, high=LOGIT_SPAN, categories=(label,)
    )


def decided_binning(column: str) -> Binning:
    """Bins of the score of rows that were decided for one class, coarser than a score's."""
    return _binning(column, "score", SCORE_BINS // 4 * 3, low=-LOGIT_SPAN, high=LOGIT_SPAN)


def vectors_binning(
    column: str, arrays: Sequence[str], rows: Sequence[str], shape: Sequence[int]
) -> Binning:
    """Keep what is fitted to an embedding, which has no counts.

    Args:
        column: Column name.
        arrays: What is fitted to all rows.
        rows: What is kept of single rows, each behind its row's name.
        shape: Of the directions.
    """
    return _binning(
        column, "vectors", 1,
        categories=tuple(arrays), tail=tuple(rows), values=tuple(map(float, shape)),
    )  # fmt: skip


def size_binning(column: str, typical: float) -> Binning:
    """Logarithmic bins 2 % wide, from 1e-4 to 1e6 times the typical value, or up to twice that.

    A largest value would not do: one row of it would put all others into the lowest bin.
    """
    middle = _power_above(typical)
    return _binning(column, "latency", LATENCY_BINS, low=middle * 1e-4, high=middle * 1e6)


def by_output_binning(column: str, edges: Sequence[float], values: Sequence[float]) -> Binning:
    """Groups of the output x states of a row, which are bins of a value or none.

    Args:
        column: Column name.
        edges: Inner edges of the groups, in any order.
        values: A typical value of each bin, ascending; edges are half-way.
    """
    kept = tuple(sorted(set(map(float, edges))))
    size = (len(kept) + 1) * (STATES + len(values))
    return _binning(column, "by_output", size, edges=kept, values=tuple(map(float, values)))


def signed_values(typical: float) -> tuple[float, ...]:
    """Return 0 and sizes on both sides of it, two an octave, 1/128 to 4,096 times the typical."""
    middle = _power_above(typical)
    sizes = [middle * 2.0 ** (step / 2) for step in range(-14, 25)]
    return (*(-size for size in reversed(sizes)), 0.0, *sizes)


def binning_to_json(binning: Binning) -> dict[str, object]:
    """Return a binning as JSON values; floats survive exactly."""
    return json.loads(json.dumps(dataclasses.asdict(binning)))  # type: ignore[no-any-return]


def binning_from_json(content: Mapping[str, Any]) -> Binning:
    """Read what `binning_to_json` returned."""
    lists = ("edges", "categories", "tail", "values")
    fields: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in content.items()}
    return Binning(**fields)


def encode_binnings(binnings: Mapping[str, Binning]) -> str:
    """Write bins as JSON; names in their own letters, so that a search for one finds it."""
    content = {"binnings": [binning_to_json(b) for b in binnings.values()]}
    return json.dumps(content, ensure_ascii=False)


def decode_binnings(payload: str) -> dict[str, Binning]:
    """Read what `encode_binnings` wrote; floats are the same to the last bit."""
    return {binning.column: binning for binning in _decoded(payload)}


@lru_cache(maxsize=16)  # every window of a model is read with the same bins
def _decoded(payload: str) -> tuple[Binning, ...]:
    return tuple(map(binning_from_json, json.loads(payload)["binnings"]))
