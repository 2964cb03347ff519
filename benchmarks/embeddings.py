"""Topic and novelty of embedded texts: false alarms and power in three worlds, and their cost.

`python -m benchmarks embeddings --texts FOLDER ...`: each folder has BANKING77's ``train.csv`` and
``test.csv`` (PolyAI, CC BY 4.0) or CLINC150's ``data_full.json`` (Larson et al., CC BY 3.0). They
are embedded by the package wordllama, whose weights are in its wheel, and by latent semantic
analysis: 128 directions of weighted words and pairs of words (scikit-learn). A day has 2,000 rows
of intents with Zipf's weights; twelve intents are held out, each is the new one of an episode of
three days. In ``indep`` rows are independent, in ``users`` a day's mixture is drawn and a user
sends five rows on one intent, in ``wander`` the log weights are autoregressive (.9, sd .4).

A window is judged by the family drift as in a project, and is told where 2 of the newest 3 fail.
Beside it stand, in the same worlds and by the same rule, what others judge by, written anew from
their sources: the error of rebuilding a vector from its principal directions (NannyML: 65 % of the
variance, three standard deviations of the days' means) and the distance of the means (Evidently:
above .2; Arize: three standard deviations).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.drift_laws import column_of, numeric_law
from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics.embeddings import (
    MOST_FITTED,
    EmbeddingFit,
    Vectors,
    compare_rows,
    find_topics,
    fit_embeddings,
    measure_novelty,
    name_likeness,
    name_topics,
    project,
)
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles.bin_shapes import categorical_binning
from mlmon_dagster.profiles.measures import drift
from mlmon_dagster.profiles.storage import to_rows
from mlmon_dagster.spec.files.loader import parse_model
from tests.monitors.cases import evaluate

ROWS, BASELINE, UNCHANGED, EPISODE = 2_000, 42, 100, 3
HELD_OUT, MOST_FALSE, MOST_BYTES = 12, 0.01, 2_000
CHANGES = ("new 5 %", "new 10 %", "12 new, 10 %", "usual one +10 %", "noise .5 sd")
LEAST = {"indep": 0.9, "users": 0.7, "wander": 0.9}  # of new intents of a tenth are found
NOISE = 0.2  # of a text's length: no two people write alike
LATENT = 128  # directions of words
KEPT_VARIANCE, SPREADS, FAR_MEANS = 0.65, 3.0, 0.2  # of the others
SPEC = """\
model: assistant
task: binary_classification
owners: [team:support]
time: {start: 2024-01-01}
source: {predictions: {path: landing/*}}
columns: {prediction_id: id, event_time: at, score: p}
features: {asked: {type: embedding}}
"""
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def read_texts(folder: Path) -> tuple[list[str], Ints]:
    """Return the texts of one data set, and their intents."""
    if (folder / "data_full.json").exists():
        parts = json.loads((folder / "data_full.json").read_text())
        rows = [row for part in ("train", "val", "test") for row in parts[part]]
        texts = pd.DataFrame(rows, columns=["text", "category"])
    else:
        texts = pd.concat(pd.read_csv(folder / name) for name in ("train.csv", "test.csv"))
    return texts["text"].tolist(), pd.factorize(texts["category"], sort=True)[0]


def embed_words(texts: Sequence[str]) -> Vectors:
    """Return the mean vectors of the texts' word parts, (N, 256)."""
    import wordllama  # no dependency: of this benchmark alone

    model = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, disable_download=True
    )
    return np.asarray(model.embed(list(texts)), np.float32)


def embed_latent(texts: Sequence[str]) -> Vectors:
    """Return latent semantic directions of the texts, (N, 128)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(texts)
    found = TruncatedSVD(LATENT, random_state=1).fit_transform(words).astype(np.float32)
    return found + np.float32(1e-6)  # a text without a known word has a direction, too


ENCODERS: Mapping[str, Callable[[Sequence[str]], Vectors]] = {
    "wordllama": embed_words,
    "latent": embed_latent,
}


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
        self._new, self._usual = order[:HELD_OUT], order[HELD_OUT:]
        self._texts = [np.flatnonzero(intents == i) for i in range(intents.max() + 1)]
        share = 1 / np.arange(1, len(self._usual) + 1)
        self._share = share / share.sum()
        self._moved = np.zeros(len(self._usual))

    def draw_day(self, change: str = "", episode: int = 0) -> Vectors:
        """Return the vectors of one more day, of an episode that has its own new intent."""
        rng, share = self.rng, self._share
        if self.kind == "users":
            share = rng.dirichlet(150 * share)
        if self.kind == "wander":
            step = 0.4 * np.sqrt(1 - 0.9**2)
            self._moved = 0.9 * self._moved + rng.normal(0, step, len(share))
            share = share * np.exp(self._moved)
            share /= share.sum()
        each = 5 if self.kind == "users" else 1
        of = np.repeat(rng.choice(self._usual, ROWS // each, p=share / share.sum()), each)
        if change.startswith(("new", "12 new", "usual")):
            amount = 0.05 if change == "new 5 %" else 0.1
            which = self._new if change.startswith("12") else self._new[[episode]]
            which = self._usual[[5 + episode]] if change.startswith("usual") else which
            hit = rng.random(ROWS) < amount
            of[hit] = rng.choice(which, int(hit.sum()))
        picked = np.array([self._texts[i][int(rng.integers(len(self._texts[i])))] for i in of])
        found = self._vectors[picked]
        size = 0.5 if change.startswith("noise") else NOISE
        noise = rng.standard_normal(found.shape, dtype=np.float32)
        return found + np.float32(size / np.sqrt(found.shape[1])) * noise


def count_days(
    fit: EmbeddingFit, days: Sequence[Vectors], prefix: str
) -> dict[str, ColumnStatistics]:
    """Return topic and novelty of some days as the profiles count them."""
    topics, likeness = name_topics(fit), name_likeness(fit)
    law = numeric_law("x", np.arange(3.0))
    counts: dict[str, list[Ints]] = {"topic": [], "novelty": []}
    for number, vectors in enumerate(days):
        projected = project(fit, vectors)
        names = [f"{prefix}{number}-{i}" for i in range(len(vectors))]
        nearest = find_topics(fit, projected)
        said = compare_rows(fit, nearest, measure_novelty(fit, projected, names))
        counts["topic"].append(np.bincount(nearest, minlength=len(topics) + 2))
        counts["novelty"].append(np.bincount(said, minlength=len(likeness) + 2))
    found = {}
    for part, names in (("topic", topics), ("novelty", likeness)):
        column = f"asked.{part}"
        binning = categorical_binning(column, names)
        found[column] = column_of(replace(law, binning=binning), np.stack(counts[part]))
    return found


def judge_days(
    own: Mapping[str, ColumnStatistics], now: Mapping[str, ColumnStatistics]
) -> dict[str, Flags]:
    """Say which days fail, by column and by any of them, as the family drift judges them."""
    spec = parse_model(SPEC)
    cells = next(iter(now.values())).cells
    windows: list[dict[str, Any]] = [
        {
            "window_start": start, "window_end": start + pd.Timedelta(days=1), "n": ROWS,
            "n_actual": 0, "maturity": "mature", "data_version": "1",
        }
        for start in cells["window_start"]
    ]  # fmt: skip
    results = evaluate(
        spec, drift(spec, now, own), windows, now=windows[-1]["window_end"].to_pydatetime(),
        run_id="benchmark", is_backfill=False, families=["drift"],
    )  # fmt: skip
    place = {start: i for i, start in enumerate(cells["window_start"])}
    found = {name: np.zeros(len(windows), bool) for name in ("topic", "novelty", "verdict")}
    for row in results:
        if row["status"] in ("WARN", "ERROR"):
            at = place[pd.Timestamp(row["window_start"])]
            found["verdict"][at] = True
            found[str(row["column_name"]).removeprefix("asked.")][at] = True
    return found


class Others:
    """What others judge a day by, as fitted to the days of a baseline."""

    def __init__(self, days: Sequence[Vectors]) -> None:
        everything = np.concatenate(days)
        self._mean, self._spread = everything.mean(axis=0), everything.std(axis=0)
        scaled = (everything - self._mean) / self._spread
        values, vectors = np.linalg.eigh(np.cov(scaled[:MOST_FITTED].T))
        part = np.cumsum(values[::-1]) / values.sum()
        self._directions = vectors[:, ::-1][:, : int(np.searchsorted(part, KEPT_VARIANCE)) + 1]
        self._usual = {
            name: np.array([measure(day) for day in days])
            for name, measure in self._measures().items()
        }

    def _measures(self) -> dict[str, Callable[[Vectors], float]]:
        return {"rebuilding, 3 sd": self._measure_error, "means, 3 sd": self._measure_distance}

    def _measure_error(self, day: Vectors) -> float:
        scaled = (day - self._mean) / self._spread
        rest = scaled - scaled @ self._directions @ self._directions.T
        return float(np.linalg.norm(rest, axis=1).mean())

    def _measure_distance(self, day: Vectors) -> float:
        return float(np.linalg.norm(day.mean(axis=0) - self._mean))

    def judge(self, day: Vectors) -> dict[str, bool]:
        """Say who calls a day changed."""
        found = {}
        for name, measure in self._measures().items():
            usual, far = self._usual[name], measure(day) - self._usual[name].mean()
            found[name] = bool(
                (far if name.startswith("means") else abs(far)) > SPREADS * usual.std()
            )
        found["means, above .2"] = self._measure_distance(day) > FAR_MEANS
        return found


def find_told(failed: Flags) -> Flags:
    """Say at which days 2 of the newest 3 fail."""
    before = np.concatenate([np.zeros(2, bool), failed]).astype(int)
    return np.asarray(before[2:] + before[1:-1] + before[:-2] >= 2, bool)


def run_world(
    kind: str, vectors: Vectors, intents: Ints, baselines: int
) -> tuple[pd.DataFrame, float]:
    """Return the share of unchanged days, and of changed episodes, that are told, and bytes."""
    rows, sizes = [], []
    for seed in range(baselines):
        world = World(kind, vectors, intents, seed)
        days = [world.draw_day() for _ in range(BASELINE)]
        everything = np.concatenate(days)
        names = [f"b{number}-{i}" for number in range(BASELINE) for i in range(ROWS)]
        chosen = world.rng.permutation(len(everything))[:MOST_FITTED]
        fit = fit_embeddings(everything[chosen], [names[i] for i in chosen])
        assert fit is not None
        own, others = count_days(fit, days, "b"), Others(days)
        sizes.append(measure_bytes(own))
        del everything, days
        drawn = [("unchanged", [world.draw_day() for _ in range(UNCHANGED)])]
        for change in CHANGES:
            for episode in range(HELD_OUT):
                of = [world.draw_day(change, episode) for _ in range(EPISODE)]
                drawn.append((change, of))
        for change, of in drawn:
            failed = judge_days(own, count_days(fit, of, "p"))
            theirs = pd.DataFrame([others.judge(day) for day in of])
            failed |= {name: theirs[name].to_numpy() for name in theirs}
            for by, flags in failed.items():
                told = find_told(flags)
                share = told.mean() if change == "unchanged" else float(told.any())
                rows.append({"change": change, "by": by, "told": share})
    table = pd.DataFrame(rows).groupby(["by", "change"], sort=False)["told"].mean().unstack()
    return table, float(np.mean(sizes))


def measure_bytes(columns: Mapping[str, ColumnStatistics]) -> float:
    """Return the bytes of a window in the table of profiles."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profiles.parquet"
        pq.write_table(to_rows(columns), path, compression="zstd")
        return path.stat().st_size / len(next(iter(columns.values())))


def measure_cost() -> tuple[float, float]:
    """Return CPU seconds: the median of a window of 20,000 x 1,536 numbers, read, and of a fit."""
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
        seconds = []
        for _ in range(3):
            begin = time.process_time()
            database.sql(
                f"SELECT r.vector, r.topic, r.novelty FROM (SELECT {EMBEDDED_FUNCTION}(x, "
                f"'benchmark', id) AS r FROM read_parquet('{path}'))"
            ).to_arrow_table()
            seconds.append(time.process_time() - begin)
        return float(np.median(seconds)), fitting


def tables(
    folders: Sequence[Path], baselines: int
) -> Iterator[tuple[str, Sequence[str], list[Row]]]:
    """Yield what was measured: cost first, then each world of each data set and encoder."""
    window, fitting = measure_cost()
    yield "Cost", ["CPU s"], [
        Row("20,000 x 1,536 with reading", (f"{window:.2f}",), Goal(window, 1.0)),
        Row("its fit", (f"{fitting:.2f}",)),
    ]  # fmt: skip
    for folder in folders:
        texts, intents = read_texts(folder)
        for encoder, embed in ENCODERS.items():
            vectors = embed(texts)
            for kind in LEAST:
                found, size = run_world(kind, vectors, intents, baselines)
                title = f"{folder.name}, {encoder}, {kind}: share told"
                yield title, list(found.columns), list(_show_world(kind, found))
                yield "A window", ["bytes"], [Row("", (f"{size:,.0f}",), Goal(size, MOST_BYTES))]


def _show_world(kind: str, found: pd.DataFrame) -> Iterator[Row]:
    for by, told in found.iterrows():
        numbers = tuple(f"{share:.2f}" for share in told)
        false = Goal(told["unchanged"], MOST_FALSE) if by == "verdict" else None
        yield Row(str(by), numbers, false)
        if by == "verdict":
            least = Goal(told["new 10 %"], LEAST[kind], is_least=True)
            yield Row("  of new 10 %", ("",) * len(numbers), least)


def main() -> int:
    """Print the tables; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--baselines", type=int, default=8)
    arguments = parser.parse_args()
    return int(show(tables(arguments.texts, arguments.baselines), seed=0) > 0)


if __name__ == "__main__":
    sys.exit(main())
