"""Data quality: shares of rows null, not a number, unseen or out of range; sums of SHAP values.

Shares by definition, with Wilson's interval (1927).

With a base value, a row's SHAP values add up to what the model put out before its link: to the
score itself, its logit or its log (Lundberg and Lee, 2017: local accuracy). Where they do not, they
are of another version, unit or class than the score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import MIN_WINDOWS, Ints
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows
from mlmon_dagster.metrics.statistics import ColumnStatistics, select, select_whole
from mlmon_dagster.spec.declaration import NOT_ADDITIVE
from mlmon_dagster.spec.metric_registry import AUTO, PERSONAL_RATE
from mlmon_dagster.spec.names import ALL, TABLE

VERSION = "rate-1"
_TIMES, _USUAL = 2.0, 0.9
Columns = Mapping[str, ColumnStatistics]
_NEARLY_ALL, _HALF = 0.9, 0.5


def quality_metrics(*columns: ColumnStatistics) -> pd.DataFrame:
    """Quality rates of columns.

    Args:
        columns: Each over its own C cells.

    Returns:
        MetricFrame with null_rate for every column; nan_rate, inf_rate and out_of_range_rate for
        numeric ones; unseen_rate for categorical ones that the baseline has values of. Each is a
        share of all rows of the cell, 0 to 1, with Wilson's interval and `n` rows; NaN with the
        reason `no_rows` for an empty cell.
    """
    return stack_rows([rates for stats in columns for rates in _rates(stats)])


def _rates(stats: ColumnStatistics) -> list[MetricRows]:
    counted = {"null_rate": stats.n_null}
    if stats.binning.kind == "numeric":
        counted["nan_rate"] = stats.n_nan
        counted["inf_rate"] = stats.n_inf
        counted["out_of_range_rate"] = stats.n_out_of_range
    # A baseline that holds no value of the column cannot say what is unseen.
    if stats.binning.kind == "categorical" and stats.binning.categories:
        counted["unseen_rate"] = stats.counts[:, len(stats.binning.categories) + 1]
    column = stats.binning.column
    return [
        share_rows(stats.cells, column, metric, count, stats.n, method_version=VERSION)
        for metric, count in counted.items()
    ]


def personal_metrics(columns: Columns, baseline: Columns, *, min_rows: int = 30) -> pd.DataFrame:
    """Share of the texts that hold personal data, and what is far above the usual.

    Args:
        columns: Boolean columns of what texts hold, such as an e-mail address.
        baseline: The same over the baseline's windows, as far as it has them.
        min_rows: Fewest texts of a window of the baseline that counts.

    Returns:
        MetricFrame with personal_rate, 0 to 1 of the rows with a text, with Wilson's interval; and
        at slice `all`, where the baseline has texts, personal_rate_auto: twice what nine of ten of
        its windows do not exceed (with fewer than 14, what it has as a whole), `by_chance` what it
        has as a whole.
    """
    found = []
    for name, stats in columns.items():
        found.append(
            share_rows(
                stats.cells, name, PERSONAL_RATE, _count_true(stats), stats.n,
                method_version=VERSION,
            )
        )  # fmt: skip
        if name not in baseline:
            continue
        whole, own = select_whole(stats), select_whole(baseline[name])
        own = select(own, own.n >= min_rows)
        if not len(own):
            continue
        counts = _count_true(own)
        usual = float(counts.sum() / own.n.sum())
        most = float(np.quantile(counts / own.n, _USUAL)) if len(own) >= MIN_WINDOWS else usual
        found.append(
            MetricRows(
                whole.cells, column_name=name, metric=f"{PERSONAL_RATE}{AUTO}",
                value=np.full(len(whole), min(_TIMES * most, 1.0)), n=whole.n,
                n_baseline=int(own.n.sum()), by_chance=usual, method_version=VERSION,
            )
        )  # fmt: skip
    return stack_rows(found)


def _count_true(stats: ColumnStatistics) -> Ints:
    """Return the rows of each cell that are true."""
    found: Ints = stats.counts[:, stats.binning.categories.index("true")]
    return found


def unseen_values(stats: ColumnStatistics) -> dict[tuple[str, pd.Timestamp], dict[str, int]]:
    """Commonest unseen values of each window, over its cells at slice `all`.

    Returns:
        (column, window start) -> name -> rows; windows without any are left out.
    """
    cells = stats.cells
    whole = (cells["slice_key"] == ALL).to_numpy()
    if len(stats.unseen) != len(cells):
        return {}
    found: dict[tuple[str, pd.Timestamp], dict[str, int]] = {}
    for start, wanted, names in zip(cells["window_start"], whole, stats.unseen, strict=True):
        if wanted and names:
            mine = found.setdefault((stats.binning.column, pd.Timestamp(start)), {})
            for name, n in names.items():
                mine[name] = mine.get(name, 0) + n
    return found


def constant_windows(
    stats: ColumnStatistics, baseline: ColumnStatistics
) -> set[tuple[str, pd.Timestamp]]:
    """Windows in which (nearly) every row with a value has the same one, unlike the baseline's.

    Args:
        stats: A column over the windows' cells.
        baseline: It over the baseline's, in the same bins.

    Returns:
        Column and start of these windows: of categories nine of ten rows are one, which had at most
        half of the baseline's; of numbers, or where it had more, all rows are, and had not nine of
        ten before.
    """
    now, then = select_whole(stats), select_whole(baseline).counts.sum(axis=0)
    if not then.sum():
        return set()
    usual = then / then.sum()
    total = now.counts.sum(axis=1)
    share = now.counts.max(axis=1) / np.maximum(total, 1)
    if stats.binning.kind == "numeric":
        share = (now.minimum == now.maximum).astype(np.float64)
    most = np.where(share == 1, _NEARLY_ALL, _HALF)
    is_one = (share >= _NEARLY_ALL) & (usual.max() <= most) & (total > 0)
    starts = now.cells["window_start"][is_one]
    return {(stats.binning.column, pd.Timestamp(start)) for start in starts}


def respelled(unseen: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return the unseen values that are known ones but for case, spaces and punctuation.

    Example:
        >>> respelled(["ny", " TX", "Ohio"], ["NY", "TX"])
        {'ny': 'NY', ' TX': 'TX'}
    """
    spelled = {_bare(name): name for name in known}
    return {name: spelled[bare] for name in unseen if (bare := _bare(name)) in spelled}


def _bare(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name


BROKEN = ":not_additive/"  # before a link: 1 for a row whose SHAP values do not add up to that
RAW = ":raw/"  # before a link: what they should add up to
REST = ":rest/"  # before a link: what they leave of it
MOSTLY = 0.5  # of the rows; where more are broken, the values are of no link
ADDITIVITY_VERSION = "additive-1"


def links_of(columns: Columns) -> list[str]:
    """Return the links that were profiled, the likeliest first."""
    return [name.removeprefix(BROKEN) for name in columns if name.startswith(BROKEN)]


def fitting_link(*sides: Columns) -> tuple[str, float] | None:
    """Return the link that SHAP values add up to, and the share of rows in which they do not.

    Args:
        *sides: Column -> statistics, of one or more sets of windows.

    Returns:
        Of several links the one with the fewest broken rows; None without explained rows.
    """
    found: dict[str, float] = {}
    for link in links_of(sides[0]):
        name = f"{BROKEN}{link}"
        wholes = [select_whole(side[name]) for side in sides if name in side]
        n = sum(int(stats.counts.sum()) for stats in wholes)
        if n:
            found[link] = sum(float(stats.total.sum()) for stats in wholes) / n
    best = min(found, key=lambda link: found[link], default=None)
    return None if best is None else (best, found[best])


def additivity_metrics(columns: Columns, baseline: Columns | None) -> pd.DataFrame:
    """Share of the explained rows whose SHAP values do not add up to the score, per cell.

    Args:
        columns: The profiled columns of all links, over the same C cells.
        baseline: Those of a baseline, which says the link; without one the link is that of each
            cell in which fewest rows are broken.

    Returns:
        MetricFrame of slice `all` with ``not_additive_rate`` at `:table`, 0 to 1 with Wilson's
        interval, n = explained rows; `reason` of a NaN: no_attributions. No rows for models
        whose output is no single number.
    """
    known = fitting_link(baseline) if baseline is not None else None
    links = links_of(columns) if known is None else [known[0]]
    if not links:
        return stack_rows([])
    stats = [select_whole(columns[f"{BROKEN}{link}"]) for link in links]
    counted = np.stack([_rounded(one) for one in stats])
    n = np.stack([one.counts.sum(axis=1) for one in stats])
    best = np.argmin(np.where(n > 0, counted / np.maximum(n, 1), np.inf), axis=0)
    places = (best, np.arange(len(best)))
    versions = [f"{ADDITIVITY_VERSION}:{links[place]}" for place in best.tolist()]
    found = share_rows(
        stats[0].cells, TABLE, NOT_ADDITIVE, counted[places], n[places], reason="no_attributions"
    )
    return stack_rows([found._replace(method_version=versions)])


def _rounded(stats: ColumnStatistics) -> Ints:
    return np.rint(stats.total).astype(np.int64)
