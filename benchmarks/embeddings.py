"""Topic and novelty of embedded texts: false alarms and power in three worlds, and their cost.

`python -m benchmarks embeddings --texts FOLDER`: the folder has BANKING77's ``train.csv`` and
``test.csv`` (PolyAI, CC BY 4.0). They are embedded by the package wordllama, whose weights are in
its wheel. A day has 2,000 rows of 65 intents with Zipf's weights; 12 intents are held out. In
``indep`` rows are independent, in ``users`` a day's mixture is drawn and a user sends five rows on
one intent, in ``wander`` the log weights are autoregressive (.9, sd .4).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.drift_laws import column_of, numeric_law
from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.drift.columns import columns_drift
from mlmon_dagster.metrics.drift.references import DriftBaseline
from mlmon_dagster.metrics.embeddings import (
    MOST_FITTED,
    EmbeddingFit,
    Vectors,
    find_topics,
    fit_embeddings,
    measure_novelty,
    project,
)
from mlmon_dagster.metrics.intervals import benjamini_hochberg
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles.bin_shapes import categorical_binning

ROWS, BASELINE, UNCHANGED, CHANGED = 2_000, 42, 40, 8
HELD_OUT, LEVEL, LARGE, MOST_FALSE = 12, 0.01, 0.1, 0.02
CHANGES = ("new 5 %", "new 10 %", "12 new, 10 %", "usual one +10 %", "noise .5 sd")
NOISE = 0.2  # of a text's length: no two people write alike
Ints = NDArray[np.int64]
Generator = np.random.Generator


def embed_texts(folder: Path) -> tuple[Vectors, Ints]:
    """Return the texts' vectors, and their intents."""
    import wordllama  # no dependency: of this benchmark alone

    texts = pd.concat(pd.read_csv(folder / name) for name in ("train.csv", "test.csv"))
    model = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, disable_download=True
    )
    vectors = np.asarray(model.embed(texts["text"].tolist()), np.float32)
    return vectors, pd.factorize(texts["category"], sort=True)[0]


class World:
    """Days of one kind of traffic.

    Args:
        kind: ``indep``, ``users`` or ``wander``.
        vectors: Of the texts. intents: Of the texts.
        seed: Of everything that is drawn.
    """

    def __init__(self, kind: str, vectors: Vectors, intents: Ints, seed: int) -> None:
        self.kind, self.rng = kind, np.random.default_rng([seed, len(kind)])
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        order = self.rng.permutation(intents.max() + 1)
        self._new, usual = order[:HELD_OUT], order[HELD_OUT:]
        self._usual = usual
        self._texts = [np.flatnonzero(intents == i) for i in range(intents.max() + 1)]
        share = 1 / np.arange(1, len(usual) + 1)
        self._share = share / share.sum()
        self._moved = np.zeros(len(usual))

    def day(self, change: str = "") -> Vectors:
        """Return the vectors of one more day."""
        rng, share = self.rng, self._share
        if self.kind == "users":
            share = rng.dirichlet(150 * share)
        if self.kind == "wander":
            step = 0.4 * np.sqrt(1 - 0.9**2)
            self._moved = 0.9 * self._moved + rng.normal(0, step, len(share))
            share = share * np.exp(self._moved)
            share /= share.sum()
        each = 5 if self.kind == "users" else 1
        of = np.repeat(rng.choice(self._usual, ROWS // each, p=share), each)
        if change.startswith(("new", "12 new", "usual")):
            amount = 0.05 if change == "new 5 %" else 0.1
            which = self._new if change.startswith("12") else self._new[:1]
            which = self._usual[5:6] if change.startswith("usual") else which
            hit = rng.random(ROWS) < amount
            of[hit] = rng.choice(which, int(hit.sum()))
        picked = np.array([self._texts[i][int(rng.integers(len(self._texts[i])))] for i in of])
        found = self._vectors[picked]
        size = 0.5 if change.startswith("noise") else NOISE
        noise = rng.standard_normal(found.shape, dtype=np.float32)
        return found + np.float32(size / np.sqrt(found.shape[1])) * noise


def count_days(
    fit: EmbeddingFit, days: list[Vectors], prefix: str, bins: ColumnStatistics | None = None
) -> dict[str, ColumnStatistics]:
    """Return topic and novelty of some days as the profiles count them."""
    topics, novel = [], []
    for number, vectors in enumerate(days):
        projected = project(fit, vectors)
        names = [f"{prefix}{number}-{i}" for i in range(len(vectors))]
        topics.append(find_topics(fit, projected))
        novel.append(measure_novelty(fit, projected, names))
    law = numeric_law("novelty", np.concatenate(novel))
    law = law if bins is None else replace(law, binning=bins.binning)
    named = categorical_binning("topic", [f"topic {i + 1}" for i in range(len(fit.centres))])
    edges = upper_edges(law.binning)
    size = law.binning.size
    counts = np.stack([np.bincount(np.searchsorted(edges, x), minlength=size) for x in novel])
    by_topic = np.stack([np.bincount(x, minlength=named.size) for x in topics])
    column = column_of(law, counts)
    centred = [x - law.binning.centre for x in novel]
    return {
        "novelty": replace(
            column,
            minimum=np.array([x.min() for x in novel]),
            maximum=np.array([x.max() for x in novel]),
            total=np.array([x.sum() for x in centred]),
            total_sq=np.array([np.square(x).sum() for x in centred]),
        ),
        "topic": column_of(replace(law, binning=named), by_topic),
    }


def judge_days(
    own: dict[str, ColumnStatistics], now: dict[str, ColumnStatistics]
) -> dict[str, NDArray[np.bool_]]:
    """Say which days are called changed, by each p-value and by the verdict of a window."""
    frame = columns_drift(now, DriftBaseline(own, seed=1, min_rows=30))
    found: dict[str, NDArray[np.bool_]] = {}
    p, far = {}, {}
    for name in ("topic", "novelty"):
        psi = frame[(frame["metric"] == "psi") & (frame["column_name"] == name)]
        p[name] = psi["p_value"].to_numpy()
        far[name] = (psi["value"] - psi["by_chance"]).to_numpy() > LARGE
        found[f"{name}, p"] = p[name] <= LEVEL
    adjusted = np.array([benjamini_hochberg(both) for both in zip(*p.values(), strict=True)])
    verdict = np.stack(list(far.values()), axis=1) & (adjusted <= LEVEL)
    found["verdict"] = verdict.any(axis=1)
    return found


def run_world(kind: str, vectors: Vectors, intents: Ints, baselines: int) -> pd.DataFrame:
    """Return the share of days called changed, by what was changed and by whom."""
    rows = []
    for seed in range(baselines):
        world = World(kind, vectors, intents, seed)
        days = [world.day() for _ in range(BASELINE)]
        everything = np.concatenate(days)
        names = [f"b{number}-{i}" for number in range(BASELINE) for i in range(ROWS)]
        chosen = world.rng.permutation(len(everything))[:MOST_FITTED]
        fit = fit_embeddings(everything[chosen], [names[i] for i in chosen])
        assert fit is not None
        own = count_days(fit, days, "b")
        del everything, days
        for change, n in (("unchanged", UNCHANGED), *((c, CHANGED) for c in CHANGES)):
            drawn = [world.day("" if change == "unchanged" else change) for _ in range(n)]
            for by, called in judge_days(own, count_days(fit, drawn, "p", own["novelty"])).items():
                rows += [{"change": change, "by": by, "called": bool(one)} for one in called]
    return pd.DataFrame(rows).groupby(["by", "change"], sort=False)["called"].mean().unstack()


def measure_cost() -> tuple[float, float]:
    """Return the CPU seconds of a window of 20,000 x 1,536 numbers with reading, and of a fit."""
    import duckdb

    from mlmon_dagster.profiles.embedded import _embedding, _to_binning
    from mlmon_dagster.spec.derived import EMBEDDED_FUNCTION
    from mlmon_dagster.store.tables.derived_columns import FUNCTIONS, know_embedding

    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((MOST_FITTED, 1_536), dtype=np.float32)
    names = [f"{i}" for i in range(len(vectors))]
    begin = time.process_time()
    fit = fit_embeddings(vectors, names)
    fitting = time.process_time() - begin
    assert fit is not None
    known = _embedding(_to_binning(":embedding/x", fit))
    know_embedding("benchmark", known)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "window.parquet"
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 1_536)
        pq.write_table(pa.table({"id": names, "x": lists.cast(pa.list_(pa.float32()))}), path)
        database = duckdb.connect(":memory:")
        for name, function in FUNCTIONS.items():
            database.create_function(
                name, function.compute, list(function.takes), function.gives, type="arrow",
                null_handling="special",
            )  # fmt: skip
        begin = time.process_time()
        database.sql(
            f"SELECT r.vector, r.topic, r.novelty FROM (SELECT {EMBEDDED_FUNCTION}(x, 'benchmark', "
            f"id) AS r FROM read_parquet('{path}'))"
        ).to_arrow_table()
        return time.process_time() - begin, fitting


def tables(
    vectors: Vectors, intents: Ints, baselines: int
) -> Iterator[tuple[str, Sequence[str], list[Row]]]:
    """Yield what was measured: cost first, then each world."""
    window, fitting = measure_cost()
    yield "Cost", ["CPU s"], [
        Row("20,000 x 1,536 with reading", (f"{window:.2f}",), Goal(window, 1.0)),
        Row("its fit", (f"{fitting:.2f}",)),
    ]  # fmt: skip
    for kind in ("indep", "users", "wander"):
        found = run_world(kind, vectors, intents, baselines)
        rows = []
        for by, called in found.iterrows():
            goal = Goal(called["unchanged"], MOST_FALSE) if by == "verdict" else None
            rows.append(Row(str(by), tuple(f"{share:.2f}" for share in called), goal))
        yield f"{kind}: share of windows called changed", list(found.columns), rows


def main() -> int:
    """Print the tables; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--baselines", type=int, default=2)
    arguments = parser.parse_args()
    vectors, intents = embed_texts(arguments.texts)
    return int(show(tables(vectors, intents, arguments.baselines), seed=0) > 0)


if __name__ == "__main__":
    sys.exit(main())
