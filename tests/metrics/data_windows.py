"""Random and degenerate windows of features, latencies and statuses, and their oracles."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlmon_dagster.metrics.drift.distances import FURTHER
from mlmon_dagster.spec.metric_registry import BINARY
from tests.metrics.rows import make_spec, measured
from tests.metrics.windows import LARGEST

N, BASE = 400, 960
NUMBERS = ("x", "k", "constant", "huge", "largest")  # by what their baseline holds
WORDS = ("c", "flag")
NOTHING = ("no_number", "no_word")  # features that the baseline has no value of
NAMES = np.array(["p", "q", "r", "s"], dtype=object)
Floats = NDArray[np.float64]


class DataWorld(NamedTuple):
    """Windows by name, the baseline, and what was measured of them."""

    windows: dict[str, pd.DataFrame]
    baseline: pd.DataFrame
    frame: pd.DataFrame

    def rows(self, window: str, column: str, family: str) -> pd.DataFrame:
        """Return the metrics of one column of a window at slice `all`, by name."""
        frame = self.frame
        mine = frame[
            (frame["day"] == list(self.windows).index(window)) & (frame["slice_key"] == "all")
            & (frame["column_name"] == column) & (frame["family"] == family)
        ]  # fmt: skip
        assert mine["metric"].is_unique
        return mine.set_index("metric")


def _lose(rng: np.random.Generator, values: Any, share: float) -> Any:
    return np.where(rng.random(len(values)) < share, None, np.asarray(values, dtype=object))


def _base(rng: np.random.Generator) -> dict[str, Any]:
    sign = np.where(np.arange(BASE) % 2, 1.0, -1.0)
    return {
        "x": _lose(rng, rng.normal(size=BASE), 0.05),
        "k": _lose(rng, rng.poisson(3, BASE).astype(float), 0.05),
        "constant": np.full(BASE, 7.0),
        "huge": 1e300 * sign,
        "largest": LARGEST * sign,
        "c": _lose(rng, rng.choice(NAMES, BASE), 0.05),
        "flag": rng.random(BASE) < 0.3,
        "no_number": [None] * BASE,
        "no_word": [None] * BASE,
    }


def _window(
    rng: np.random.Generator, n: int = N, *, number: Any = None, word: Any = "q", missing: float = 0
) -> pd.DataFrame:
    """One window; all numeric columns hold the same, and so do those of text."""
    if callable(number):
        numbers = {name: _lose(rng, number(name), missing) for name in (*NUMBERS, "no_number")}
    else:
        numbers = {name: np.resize(number, n) for name in (*NUMBERS, "no_number")}
    words = {name: np.resize(np.asarray(word, dtype=object), n) for name in ("c", "no_word")}
    return pd.DataFrame({**numbers, **words, "flag": rng.random(n) < 0.5})


def _windows() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(5)

    def normal(name: str) -> Floats:
        return rng.poisson(4, N).astype(float) if name == "k" else rng.normal(0.3, 1.2, N)

    def changed(name: str) -> Floats:
        return rng.poisson(2, N).astype(float) if name == "k" else rng.normal(-1, 2, N)

    nothing: Any = np.array([None], dtype=object)
    return {
        "random": _window(rng, number=normal, word=_lose(rng, rng.choice(NAMES, N), 0.1)),
        "changed": _window(rng, number=changed, missing=0.2,
                           word=_lose(rng, rng.choice([*NAMES, "new"], N), 0.1)),
        "one_row": _window(rng, 1, number=1.0),
        "all_null": _window(rng, number=nothing, word=nothing),
        "not_a_number": _window(rng, number=np.nan),
        "infinite": _window(rng, number=[np.inf, -np.inf], word="unseen"),
        "constant": _window(rng, number=7.0),
        "1e300": _window(rng, number=1e300, word=["new", "newer"]),
        "largest": _window(rng, number=LARGEST),
        "most_negative": _window(rng, number=[-LARGEST, LARGEST]),
        "int64": _window(rng, number=[2.0**63, -(2.0**63), 2.0**53 + 2, 0.0]),
        "denormal": _window(rng, number=[5e-324, 0.0, np.nan, np.inf]),
    }  # fmt: skip


LATENCIES: dict[str, Any] = {
    "random": np.random.default_rng(1).lognormal(3, 1.5, N),
    "changed": np.random.default_rng(2).choice([0.0, 20.0, 35.5], N),
    "one_row": 5.0,
    "all_null": np.array([None], dtype=object),
    "not_a_number": np.nan,
    "infinite": np.inf,
    "constant": 12.5,
    "1e300": 1e300,
    "largest": [LARGEST, np.nan],
    "most_negative": [-LARGEST],
    "int64": [0.0],
    "denormal": [0.002, 5e6],
}


@cache
def data_world() -> DataWorld:
    """Return all windows, measured."""
    numeric: dict[str, Any] = {"type": "numeric", "nullable": True}
    features = {name: dict(numeric) for name in (*NUMBERS, "no_number")}
    features["x"] |= {"min": -2, "max": 2}
    features |= {name: {"type": "categorical", "nullable": True} for name in ("c", "no_word")}
    features["flag"] = {"type": "boolean", "nullable": True}
    spec = make_spec(
        BINARY,
        {"score": "s", "latency_ms": "ms", "status": "status"},
        features=features,
        monitors={"drift": {"also": list(FURTHER)}},
    )
    then = pd.DataFrame(_base(np.random.default_rng(3))).assign(day=np.arange(BASE) // 60)
    then = then.assign(score=0.5, latency_ms=1.0, status="ok")
    windows = _windows()
    for name, rows in windows.items():
        rows["latency_ms"] = np.resize(LATENCIES[name], len(rows))
        words = [None] if name == "all_null" else ["ok", "SUCCESS", "timeout", "200", None]
        rows["status"] = np.resize(np.array(words, dtype=object), len(rows))
        rows["score"] = 0.5
    current = pd.concat([rows.assign(day=i) for i, rows in enumerate(windows.values())])
    return DataWorld(windows, then, measured(spec, current, then))


def finite(values: Any) -> Floats:
    """Return the values that are numbers and finite."""
    numbers = np.asarray(pd.to_numeric(pd.Series(values)), dtype=float)
    return numbers[np.isfinite(numbers)]


def quantile_counts(values: Any, baseline: Any) -> NDArray[np.int64]:
    """Count a continuous column in the baseline's 20 quantile bins, and its nulls."""
    known, then = finite(values), finite(baseline)
    edges = np.quantile(then, np.arange(1, 20) / 20, method="inverted_cdf")
    counts = np.bincount(np.searchsorted(edges, known, side="left"), minlength=20)
    return np.append(counts, len(values) - len(known))


def word_counts(values: Any, baseline: Any) -> NDArray[np.int64]:
    """Count a column of words: those of the baseline, unseen ones, and nulls."""
    names = sorted(set(pd.Series(baseline).dropna().astype(str)))
    words = pd.Series(values).dropna().astype(str)
    counts = [int((words == name).sum()) for name in names]
    return np.array([*counts, len(words) - sum(counts), len(values) - len(words)])


def distances(current: NDArray[np.int64], baseline: NDArray[np.int64]) -> dict[str, float]:
    """Return the distances over bins, by scipy or by the formula of their names."""
    a, b = ((c + 0.5) / (c.sum() + len(c) / 2) for c in (current, baseline))
    p, q = current / current.sum(), baseline / baseline.sum()
    table = np.array([current, baseline])[:, current + baseline > 0]
    statistic = stats.chi2_contingency(table, correction=False).statistic
    return {
        "psi": stats.entropy(a, b) + stats.entropy(b, a),
        "jensen_shannon": float(jensenshannon(a, b, base=2)),
        "chi_square": statistic * (1 / current.sum() + 1 / baseline.sum()),
        "hellinger": float(np.sqrt(1 - np.sqrt(a * b).sum())),
        "total_variation": float(np.abs(p - q).sum() / 2),
        "l_infinity": float(np.abs(p - q).max()),
        "kl": stats.entropy(a, b),
    }
