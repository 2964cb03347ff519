"""What the usual rules would say of a year: PSI above .2, and means that leave three spreads.

The defaults of other tools, on the same rows: a window's PSI of any column above .2 against the
baseline in ten of its quantiles (Evidently and most guides), and a daily mean, null share or share
of a category outside of three standard deviations of the baseline's days on three days of five.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.year_worlds import YearWorld

Floats = NDArray[np.float64]
PSI_LIMIT, SPREADS, FAILING, OF = 0.2, 3.0, 3, 5
_SMOOTHING = 1e-4
_NO_FEATURE = ("window", "at", "dataset", "id", "label", "known", "look", "version")
Alarms = Mapping[str, set[int]]  # column -> windows


def alarm_by_psi(world: YearWorld) -> Alarms:
    """Return the windows in which each column's PSI is above .2."""
    before, after = _split(world)
    found: dict[str, set[int]] = {}
    for column in _columns(after):
        codes, n_codes = _encode(before[column], pd.concat([before[column], after[column]]))
        counted = pd.crosstab(after["window"].to_numpy(), codes[len(before) :])
        counted = counted.reindex(columns=range(n_codes), fill_value=0)
        expected = np.bincount(codes[: len(before)], minlength=n_codes) / len(before)
        shares = counted.to_numpy() / counted.to_numpy().sum(axis=1, keepdims=True)
        p, q = np.maximum(shares, _SMOOTHING), np.maximum(expected, _SMOOTHING)
        psi = ((p - q) * np.log(p / q)).sum(axis=1)
        found[column] = set(counted.index[psi > PSI_LIMIT].tolist())
    return found


def alarm_by_spreads(world: YearWorld) -> Alarms:
    """Return the windows at which three of five days of a column lie three spreads off."""
    before, after = _split(world)
    found: dict[str, set[int]] = {}
    for column in _columns(after):
        for name, values in _daily(column, before, after).items():
            usual = values[values.index < after["window"].min()]
            spread = float(usual.std(ddof=1))
            later = values[values.index >= after["window"].min()]
            is_off = (later - usual.mean()).abs() > SPREADS * spread
            often = is_off.rolling(OF, min_periods=FAILING).sum() >= FAILING
            found[name] = set(later.index[often].tolist())
    return found


def _split(world: YearWorld) -> tuple[pd.DataFrame, pd.DataFrame]:
    is_before = world.rows["window"] < 0
    return world.rows[is_before], world.rows[~is_before]


def _columns(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows.columns if name not in _NO_FEATURE]


def _encode(baseline: pd.Series, every: pd.Series) -> tuple[NDArray[np.int64], int]:
    """Return the bins of values: ten quantiles, or the baseline's values; others, and none."""
    if every.dtype.kind in "if":
        edges = np.unique(np.nanquantile(baseline, np.linspace(0, 1, 11)[1:-1]))
        codes = np.searchsorted(edges, every.to_numpy(), side="right")
        n = len(edges) + 2
        return np.where(every.isna(), n - 1, codes).astype(np.int64), n
    known = {value: code for code, value in enumerate(baseline.dropna().unique())}
    codes = every.map(known).fillna(len(known)).to_numpy()
    return codes.astype(np.int64), len(known) + 1


def _daily(column: str, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, pd.Series]:
    every = pd.concat([before, after])
    by_day = every.groupby("window")[column]
    daily = {f"{column} nulls": every[column].isna().groupby(every["window"]).mean()}
    if every[column].dtype.kind in "ifb":
        return daily | {column: by_day.mean()}
    shares = pd.crosstab(every["window"], every[column], normalize="index")
    common = before[column].value_counts(normalize=True)
    kept = [value for value in shares if common.get(value, 0.0) > 0.01 or value not in common]
    return daily | {f"{column} = {value}": shares[value] for value in kept}
