"""What is kept as late labels come equals what is computed anew: ``python -m tests.late_days``.

A history is 10 to 25 days of a small model: rows come late, twice or with other values, labels come
up to 8 days late, are corrected and retracted, and a day may have no rows. It is lived look by
look; after a look nothing is left to be asked for. Then every number and verdict of a copy is
deleted, and computed from its records at once. Both have to be equal, at a drawn moment and when
all labels are there.

Left out is what depends on when it was looked at: freshness, which is judged by the clock, and
schema, by the files of a look; what a verdict was traced to, which is said of the newest window of
a run; and at the drawn moment what is about ground truth from the first window on that still waits
for it, since its profiles wait, too.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import yaml

from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.store.state import metric_log, monitor_results, schema
from tests.pipeline.looking import Place

FIRST, DAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC), dt.timedelta(days=1)
LATEST, AFTER = 8, 5  # days: the latest label, and what comes of it after that
MODEL = "late"
BASELINES: dict[str, Any] = {
    "fixed": {"dataset": "validation"},
    "moving": {"moving": "6d", "gap": "1d"},
    "previous": "previous",
    "weekday": {"same": "weekday", "weeks": 2},
}
OF_TRUTH = ("performance", "estimated_performance")
OF_LOOKS = ("freshness", "schema")
KEPT = ("baseline", "inference_store")  # steps: bins are of when they were fitted
TRACED = ("why", "traced", "no_why", "money")
SAMPLE = ("window_start", "dataset", "model_version", "slice_key", "slice_value", "column_name",
          "metric")  # fmt: skip
VERDICT = ("family", "monitor", "window_start", "dataset", "slice_key", "slice_value")
NUMBERS = ("value", "lower", "upper", "n", "n_baseline", "p_value", "by_chance", "reason",
           "method_version")  # fmt: skip
SAID = ("status", "value", "baseline_value", "n", "threshold", "excess", "p_value", "p_adjusted",
        "family_size", "reason", "message", "details")  # fmt: skip
Files = dict[tuple[int, str], list[pd.DataFrame]]  # day and stream -> what lands


@dataclass
class Found:
    """What was compared, and what differs.

    Attributes:
        n: How much of what.
        wrong: What differs.
    """

    n: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass
class History:
    """A drawn history: what is declared, what lands when, and when one looks."""

    spec: dict[str, Any]
    files: Files
    looks: list[int]
    compared_at: int

    @property
    def name(self) -> str:
        """What it is about."""
        monitors = self.spec["monitors"]
        return json.dumps(
            [self.spec["task"], self.spec["baseline"], self.spec["actuals"], monitors["drift"]]
        )


def draw_history(rng: np.random.Generator) -> History:
    """Draw a history."""
    n_days = int(rng.integers(10, 26, 2).min())
    spec = draw_spec(rng)
    files: Files = {}
    if spec["baseline"] == BASELINES["fixed"]:
        for day in range(-12, 0):
            rows, labels = draw_day(rng, spec, day, "validation")
            land_on(files, 0, "predictions", rows)
            land_on(files, 0, "actuals", labels)
    without, shifted = (int(rng.integers(2, n_days)) for _ in range(2))
    for day in range(n_days):
        if day == without and rng.random() < 0.5:
            continue
        draw_production(rng, spec, files, day, is_shifted=day >= shifted)
    last = n_days + LATEST + AFTER
    looks = [day for day in range(n_days) if rng.random() < 0.5]
    looks = sorted({*looks, *range(n_days, last, 4), last})
    among = [day for day in looks if day >= 6]
    return History(spec, files, looks, int(rng.choice(among)))


def draw_spec(rng: np.random.Generator) -> dict[str, Any]:
    """Draw what the model declares."""
    is_classifier = rng.random() < 0.7
    baseline = BASELINES[str(rng.choice(list(BASELINES), p=[0.15, 0.35, 0.25, 0.25]))]
    outputs = ["score", "prediction"] if is_classifier else ["prediction"]
    drift: dict[str, Any] = {"min_rows": 20, "slices": bool(rng.random() < 0.3)}
    if rng.random() < 0.3:
        drift["columns"] = ["amount", "kind", *outputs, *(["actual"] if rng.random() < 0.5 else [])]
    if rng.random() < 0.2:
        drift["baseline"] = dict(BASELINES["moving"])
    drop: dict[str, Any] = {"metric": "roc_auc", "drop": 0.1, "slices": bool(rng.random() < 0.3)}
    gap: dict[str, Any] = {"metric": "calibration_gap", "shift": 0.05}
    service: dict[str, Any] = {"p95_latency_ms": {"above": 400}}
    if rng.random() < 0.3:
        service["classes"] = {"slow": {"when": "latency_ms > 100", "above": 0.3}}
    actuals: dict[str, Any] = {"min_coverage": 0.8}
    if rng.random() < 0.7:
        actuals["expected_within"] = f"{rng.integers(2, 8)}d"
    if rng.random() < 0.3:
        actuals["closed_after"] = "9d"
    return {
        "model": MODEL,
        "task": "binary_classification" if is_classifier else "regression",
        "owners": ["team:risk"],
        "time": {"start": "2026-01-01"},
        "source": {
            stream: {"path": f"landing/{stream}/*.parquet", "settle": "0s"}
            for stream in ("predictions", "actuals")
        },
        "columns": {
            "prediction_id": "id", "event_time": "at", "dataset": "dataset",
            "latency_ms": "latency", "actual": "truth", "actual_time": "known_at",
            **{name: name for name in outputs},
        },
        "features": {
            "amount": {"type": "numeric", "max": 4},
            "age": {"type": "numeric", "nullable": True},
            "kind": {"type": "categorical"},
        },
        "slices": ["kind"] if rng.random() < 0.6 else [],
        "baseline": baseline,
        "actuals": actuals,
        "monitors": {
            "quality": {"min_rows": 20},
            "drift": drift,
            "service": service,
            "performance": [drop, gap] if is_classifier else [{"metric": "rmse", "drop": 0.2}],
        },
    }  # fmt: skip


def draw_day(
    rng: np.random.Generator, spec: Mapping[str, Any], day: int, dataset: str, shift: float = 0.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw the predictions of a day, and the labels of them."""
    n = int(rng.integers(30, 81))
    amount = rng.normal(shift, 1, n)
    noise = rng.normal(0, 1, n)
    score = 1 / (1 + np.exp(-1.5 * amount))
    is_classifier = spec["task"] == "binary_classification"
    at = FIRST + day * DAY + pd.to_timedelta(np.sort(rng.random(n)), unit="D")
    rows = pd.DataFrame(
        {
            "id": [f"{dataset}-{day}-{i}" for i in range(n)],
            "at": at,
            "dataset": dataset,
            "amount": amount,
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(40, 10, n).round()),
            "kind": rng.choice(["web", "shop", "new"], n, p=[0.6, 0.4, 0] if not shift else None),
            "latency": rng.lognormal(4, 0.5, n),
            "prediction": (score > 0.5).astype(int) if is_classifier else 2 * amount,
        }
    )
    if is_classifier:
        rows["score"] = score
    truth = (rng.random(n) < score).astype(int) if is_classifier else 2 * amount + noise
    known_at = at + pd.to_timedelta(rng.random(n), unit="h")
    labels = pd.DataFrame(
        {"id": rows["id"], "dataset": dataset, "truth": truth, "known_at": known_at}
    )
    return rows, labels.assign(deleted=False)


def draw_production(
    rng: np.random.Generator,
    spec: Mapping[str, Any],
    files: Files,
    day: int,
    *,
    is_shifted: bool,
) -> None:
    """Draw a day and when its rows and labels land."""
    rows, labels = draw_day(rng, spec, day, "production", 1.0 if is_shifted else 0.0)
    late = rng.random(len(rows)) < (0.1 if rng.random() < 0.4 else 0.0)
    land_on(files, day, "predictions", rows[~late])
    land_on(files, day + int(rng.integers(1, 4)), "predictions", rows[late])
    if rng.random() < 0.3:  # again, some of them with another value
        again = rows[rng.random(len(rows)) < 0.1]
        again = again.assign(amount=again["amount"] + (rng.random(len(again)) < 0.5))
        land_on(files, day + int(rng.integers(0, 4)), "predictions", again)
    if rng.random() < 0.2:
        land_on(files, day, "predictions", rows.assign(dataset="shadow"))
    most = int(rng.integers(0, LATEST + 1))
    lag = rng.integers(0, most + 1, len(labels))
    lag[rng.random(len(labels)) < 0.05] = -1  # never
    for days in range(most + 1):
        some = labels[lag == days]
        known = some["known_at"] + days * DAY
        land_on(files, day + days, "actuals", some.assign(known_at=known))
    for share in (0.1, 0.05):
        days = most + int(rng.integers(1, AFTER))
        some = labels[rng.random(len(labels)) < share * (rng.random() < 0.5)]
        changed = some.assign(known_at=some["known_at"] + days * DAY)
        changed = changed.assign(truth=1 - some["truth"], deleted=share < 0.1)
        land_on(files, day + days, "actuals", changed)


def land_on(files: Files, day: int, stream: str, rows: pd.DataFrame) -> None:
    """Note that rows land on a day, if there are any."""
    if len(rows):
        files.setdefault((day, stream), []).append(rows)


def live(history: History, folder: Path, found: Found) -> None:
    """Live a history, and compare it with what is computed anew."""
    place = Place(folder / "lived", yaml.safe_dump(history.spec, sort_keys=False), FIRST)
    since = -1
    for look in history.looks:
        for day in range(since + 1, look + 1):
            for stream in ("predictions", "actuals"):
                if rows := history.files.get((day, stream)):
                    place.land(stream, f"{day:03}", pd.concat(rows))
        since = look
        place.now = FIRST + (look + 1) * DAY + dt.timedelta(hours=3)
        place.look()
        settle(history, place, look, found)
        if look in (history.compared_at, history.looks[-1]):
            compare(history, place, folder / f"anew{look}", found)
    place.project.store.close()


def settle(history: History, place: Place, look: int, found: Found) -> None:
    """Look until nothing is asked for: once more at most, where it is learnt when labels come."""
    found.n["looks"] += 1
    is_learnt = "expected_within" not in history.spec["actuals"]
    for n_more in range(4):
        requests = plan(place.project, place.spec, place.now)
        if not requests:
            return
        if n_more >= is_learnt:
            asked = [(r.windows[0].key, r.windows[-1].key, r.assets) for r in requests]
            found.wrong.append(f"{history.name}: look {look}, {n_more} more: asks for {asked}")
        place.look()


def compare(history: History, place: Place, folder: Path, found: Found) -> None:
    """Compare numbers and verdicts with those of a copy that are computed anew."""
    shutil.copytree(place.folder, folder)
    anew = Place(folder, yaml.safe_dump(history.spec, sort_keys=False), place.now)
    with anew.store.state.begin() as conn:
        c = schema.window_step.c
        conn.execute(sa.delete(schema.window_step).where(c.step.not_in(KEPT)))
        for table in (schema.metric_window, schema.monitor_result):
            conn.execute(sa.delete(table))
    anew.look()
    verdicts = [read_verdicts(one) for one in (place, anew)]
    waits = [v[v["maturity"].eq("provisional")]["window_start"].min() for v in verdicts]
    since = min((moment for moment in waits if not pd.isna(moment)), default=None)
    about = f"{history.name}: {'end' if since is None else 'drawn moment'}"
    samples = [read_samples(one) for one in (place, anew)]
    for what, both, keys, said in (
        ("samples", samples, SAMPLE, NUMBERS),
        ("verdicts", verdicts, VERDICT, SAID),
    ):
        rows, others = (dict(read_rows(one, keys, said, since)) for one in both)
        found.n[what] += len(others)
        found.n[f"{what} with a value"] += sum(row["value"] is not None for row in others.values())
        for key in sorted(rows.keys() | others.keys(), key=str):
            mine, other = rows.get(key), others.get(key)
            if mine is None or other is None:
                found.wrong.append(f"{about}: {what}: {key}: lived {mine}, anew {other}")
                continue
            differs = {n: (mine[n], other[n]) for n in said if not are_equal(mine[n], other[n])}
            if differs:
                found.wrong.append(f"{about}: {what}: {key}: {differs}")
    anew.project.store.close()
    shutil.rmtree(folder)


def read_samples(place: Place) -> pd.DataFrame:
    """Return the newest numbers."""
    samples = metric_log.newest(place.store.state, MODEL)
    is_of_truth = samples["metric"].isin(metric_names_of_truth(place))
    if "drift" in list_of_truth(place):
        is_of_truth |= samples["baseline_kind"] != "none"
    return samples.assign(is_of_truth=is_of_truth)


def metric_names_of_truth(place: Place) -> set[str]:
    """Return the names of numbers that a maturity is stored with."""
    samples = metric_log.newest(place.store.state, MODEL)
    return set(samples[samples["maturity"] != ""]["metric"])


def list_of_truth(place: Place) -> tuple[str, ...]:
    """Return the families whose numbers read the truth: drift where it compares it."""
    return (*OF_TRUTH, "drift") if "actual" in place.spec.monitors.drift.columns else OF_TRUTH


def read_verdicts(place: Place) -> pd.DataFrame:
    """Return the newest verdicts."""
    verdicts = monitor_results.newest(place.store.state, MODEL)
    verdicts = verdicts[~verdicts["family"].isin(OF_LOOKS)]
    details = [json.loads(text) for text in verdicts["details"]]
    kept = [{k: v for k, v in one.items() if k not in TRACED} for one in details]
    return verdicts.assign(
        details=[json.dumps(one, sort_keys=True) for one in kept],
        is_of_truth=verdicts["family"].isin(list_of_truth(place)),
    )


def read_rows(
    frame: pd.DataFrame, keys: Sequence[str], said: Sequence[str], since: pd.Timestamp | None
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield what is compared, by key."""
    if since is not None:
        frame = frame[~(frame["is_of_truth"] & (frame["window_start"] >= since))]
    plain = frame[[*keys, *said]].astype(object)
    plain = plain.where(plain.notna(), None)
    for row in plain.to_dict("records"):
        yield tuple(row[key] for key in keys), {name: row[name] for name in said}


def are_equal(one: Any, other: Any) -> bool:
    """Tell whether two are equal, numbers but for how their sums were rounded."""
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-9, atol=1e-12))
    return bool(one == other)


def live_histories(n: int, seed: int, seconds: float | None = None) -> Found:
    """Live so many histories, or as many as begin within so many seconds."""
    found, began = Found(), time.monotonic()
    for number in range(n):
        if seconds is not None and time.monotonic() - began > seconds:
            break
        history, n_before = draw_history(np.random.default_rng([seed, number])), len(found.wrong)
        with tempfile.TemporaryDirectory(prefix="mlmon-late-days-") as folder:
            live(history, Path(folder), found)
        found.n["histories"] += 1
        told = f"{number}: {history.name}: {len(found.wrong) - n_before} differ"
        print("\n    ".join([told, *found.wrong[n_before:]]), file=sys.stderr, flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was compared and what differs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.late_days",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--histories", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="begin no further history after that")
    options = parser.parse_args(arguments)
    found = live_histories(options.histories, options.seed, options.seconds)
    print(", ".join(f"{n:,} {what}" for what, n in found.n.items()))
    print(f"{len(found.wrong):,} differ")
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
