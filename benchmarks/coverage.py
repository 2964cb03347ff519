"""Estimates beside realized values: errors, how often the band holds, how wide it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks.table import Goal, Row
from mlmon_dagster.metrics.intervals import Z95, wilson

Floats = NDArray[np.float64]
LEVEL = 0.95
COLUMNS = ("constant", "plain CBPE", "chosen", "weighted", "band holds", "band +-", "least +-")


class Size(NamedTuple):
    """How much is drawn: baselines, windows of each, its own windows, rows of a window."""

    baselines: int
    windows: int
    baseline: int
    rows: int


def compared(
    plain: pd.DataFrame,
    best: pd.DataFrame,
    metric: str,
    constant: float,
    truth: Floats,
) -> pd.DataFrame:
    """Return a row per window: how far a constant, plain CBPE and the chosen estimate are off.

    Args:
        plain: Residuals by plain CBPE, or whatever the task has.
        best: Residuals by the method that the product chooses.
        metric: The metric.
        constant: The baseline's own value.
        truth: Realized values in the order of `window_start`.
    """
    name = f"{metric}_residual"
    one, other = (
        frame[frame["metric"] == name].sort_values("window_start") for frame in (plain, best)
    )
    found = pd.DataFrame(
        {
            "constant": np.abs(constant - truth),
            "plain": one["value"].abs().to_numpy(),
            "chosen": other["value"].abs().to_numpy(),
            "half": (other["upper"] - other["lower"]).to_numpy() / 2,
            "held": ((other["lower"] <= 0) & (other["upper"] >= 0)).to_numpy(dtype=np.float64),
            "weighted": other["method_version"].str.startswith("iw-").to_numpy(dtype=np.float64),
        }
    )
    return found[np.isfinite(found["chosen"])]


def coverage(
    held: pd.Series[float], baseline: pd.Series[int], again: int = 1
) -> tuple[float, float, float]:
    """Return the share of windows whose band holds the truth, with Wilson's 95 % interval.

    Windows of one baseline share its errors, so that they count for fewer: as many as give the
    shares of the baselines the spread that they have. That spread is known from so many baselines
    only, so windows count for fewer again, by the square of Student's quantile over the normal one.

    Args:
        held: Whether the band held, per window and draw of its actuals.
        baseline: Of each.
        again: Draws of one window's actuals. If all or none held, they count as one.
    """
    share, n = float(held.mean()), len(held)
    shares = held.groupby(baseline).mean()
    effect = 1.0 if 0 < share < 1 else float(again)
    if len(shares) > 1 and 0 < share < 1:
        independent = share * (1 - share) * len(shares) / n
        effect = max(1.0, float(shares.var()) / independent)
        effect *= float(special.stdtrit(len(shares) - 1, 0.975) / Z95) ** 2
    low, high = wilson(share * n / effect, n / effect)
    return share, float(low), float(high)


def rows_of(name: str, found: pd.DataFrame, *, is_simulated: bool, is_goal: bool) -> Iterator[Row]:
    """Return the rows of a table for one case and metric.

    Args:
        name: Of case and metric.
        found: Of all baselines, as `compared`, with the column ``baseline``.
        is_simulated: As many windows as wished: then the lower end of the share's interval must
            reach 95 % to meet the goal, and the upper end must not to miss it, so that chance
            alone does neither; else the share itself.
        is_goal: Whether the band has a goal at all.
    """
    means = found[["constant", "plain", "chosen"]].mean()
    share, low, high = coverage(found["held"], found["baseline"])
    least = float(found["chosen"].quantile(LEVEL))
    numbers = (
        *(f"{mean:.4f}" for mean in means),
        f"{found['weighted'].mean():.0%}",
        f"{share:.3f}",
        f"{found['half'].mean():.4f}",
        f"{least:.4f}",
    )
    ratio = round(float(means["chosen"] / means["plain"]), 3)
    yield Row(name, numbers, Goal(ratio, 1.05, unit=" x plain"))
    if is_goal:
        interval = ("",) * 4 + (f"{low:.3f}-{high:.3f}", "", "")
        must, best = (low, high) if is_simulated else (share, None)
        yield Row("  band holds the truth", interval, Goal(must, LEVEL, is_least=True, best=best))


def realized_of(frame: pd.DataFrame, metric: str) -> Floats:
    """Return estimate - residual per window, where every row has its actual."""
    parts: Mapping[str, Floats] = {
        name: frame[frame["metric"] == name].sort_values("window_start")["value"].to_numpy()
        for name in (f"estimated_{metric}", f"{metric}_residual")
    }
    return parts[f"estimated_{metric}"] - parts[f"{metric}_residual"]
