"""A model of a generated spec through three rounds of files, against a fold of its events.

The oracle is plain Python over what was written; it shares no code with the store. Everything else
that is looked at must hold of any model: counters balance, no file blocks a later one, metrics are
finite or say why not, verdicts are of the four states, and a second computation changes nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import math
import random
import shutil
import sys
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import yaml
from click.testing import CliRunner

from benchmarks.drill.passes import Inbox, take_in
from mlmon_dagster.cli import cli
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.project import Project
from mlmon_dagster.spec import Window, maturity_of, spec_from_mapping, window_containing
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import manifest, metric_log, monitor_results, window_state
from mlmon_dagster.work import Work, mark_of
from tests.proof.generated_files import Cells, Producer
from tests.proof.generated_spec import (
    CLASSES,
    ROLES,
    VARIABLE,
    features_of,
    outputs_of,
    source_names,
    spec_of,
)
from tests.proof.spec_space import BINARY, MULTICLASS, Choice

N = 180  # rows of a window
COUNTERS = ("n_new", "n_duplicate", "n_conflict", "n_bad")
KINDS = ("tracebacks", "blocked", "unbalanced", "differences")
STATES = {"OK", "WARN", "ERROR", "NO_DATA"}
_SPANS = {"hour": dt.timedelta(hours=1), "day": dt.timedelta(days=1), "week": dt.timedelta(days=7)}
_LOOKS = 6  # until a round's work must be done


@dataclass
class Found:
    """What a spec's rounds showed.

    Attributes:
        problems: One of KINDS -> sentences.
        n_rows: Rows written.
        n_refused: Refused rows. n_back: Those that came back after their correction.
        n_early: Rows refused as their time had not come. n_retried: Those that `--retry` took in.
        seconds: Processor time.
    """

    choice: Choice
    problems: dict[str, list[str]] = field(default_factory=dict)
    n_rounds: int = 0
    n_rows: int = 0
    n_refused: int = 0
    n_back: int = 0
    n_early: int = 0
    n_retried: int = 0
    n_metrics: int = 0
    n_verdicts: int = 0
    seconds: float = 0.0

    def note(self, kind: str, text: str) -> None:
        """Remember a problem."""
        self.problems.setdefault(kind, []).append(text)


class Oracle:
    """What the events say, folded by itself."""

    def __init__(self, choice: Choice) -> None:
        self._timed = choice["actual_time"] == "yes"
        self._has_outcome = "outcome" in source_names(choice)
        self.predictions: dict[tuple[str, str], list[Cells]] = {}
        self.actuals: dict[str, list[tuple[str, Cells]]] = {}

    def predicted(self, key: str, row: Cells) -> None:
        """Take an accepted prediction row."""
        contents = self.predictions.setdefault((row.get("set") or "production", key), [])
        if row not in contents:
            contents.append(row)

    def known(self, key: str, dataset: str | None, row: Cells) -> None:
        """Take an accepted actual row, in the order of arrival."""
        self.actuals.setdefault(key, []).append((dataset or "all", row))

    def records(self) -> dict[tuple[str, str], Cells]:
        """Return the winning prediction of each id with its newest ground truth."""
        found = {}
        later = ("truth", "known_at", *(("gain",) if self._has_outcome else ()))
        for (dataset, key), contents in self.predictions.items():
            winner = min(contents, key=lambda row: row["at"])
            mine = [row for to, row in self.actuals.get(key, []) if to in ("all", dataset)]
            if self._timed:
                mine.sort(key=lambda row: row["known_at"])
            newest = mine[-1] if mine and mine[-1]["truth"] is not None else {}
            found[dataset, key] = {
                **winner, **{name: newest.get(name) for name in later},
                "n_prediction_rows": len(contents),
            }  # fmt: skip
        return found


class Generated:
    """One model with its files."""

    def __init__(self, choice: Choice, seed: int, store: Store, folder: Path) -> None:
        self.choice, self.store = choice, store
        self.spec = spec_from_mapping(spec_of(choice))
        self.rng = random.Random(seed)
        self.producer = Producer(choice, folder)
        self.oracle = Oracle(choice)
        self.found = Found(choice)
        self.windows: list[Window] = []
        self.now = dt.datetime.now(dt.UTC)
        self.refused: set[str] = set()
        self.n_broken = 0
        self.inbox = Inbox()
        self.project = Project(
            folder, str(store.folder), now=lambda: self.now,
            variables={VARIABLE: self.producer.url}.get,
        )  # fmt: skip
        self.project.__dict__["store"] = store
        self.zone = ZoneInfo(choice["zone"])

    # --- rows

    def start_of(self, number: int) -> dt.datetime:
        """Return a time within a window, 10 in the morning or a whole hour, local."""
        first = dt.datetime(2024, 3, 29, 10, tzinfo=self.zone)
        if self.choice["granularity"] == "month":
            return first.replace(month=3 + number)
        return first + number * _SPANS[self.choice["granularity"]]

    def prediction(self, number: int, k: int, dataset: str | None = None, **changes: Any) -> Cells:
        """Return row k of a window."""
        rng, choice = self.rng, self.choice
        name = f"w{number}-{k}" if dataset is None else f"{dataset}-{k}"
        moment = self.start_of(number) + dt.timedelta(seconds=2 * k)
        if dataset in ("training", "validation"):
            moment = dt.datetime(2024, 2, 10, 10, tzinfo=self.zone) + dt.timedelta(minutes=k)
        row: Cells = {"id": name}
        if choice["id"] == "parts":
            row = {"shop_no": f"s{k % 3}", "receipt": name}
        row["at"] = moment.astimezone(dt.UTC)
        failed = choice["status"] == "yes" and rng.random() < 0.05
        row |= self._outputs(k, failed)
        optional = {
            "dataset": dataset or ("production" if k % 2 else None),
            "model_version": str(1 + number // 2),
            "latency_ms": float(rng.randint(5, 100)),
            "status": "error" if failed else "ok",
            "trace_id": f"t-{name}",
        }
        row |= {ROLES[role]: v for role, v in optional.items() if choice[role] == "yes"}
        if "scores" in outputs_of(choice):
            first, second = rng.randint(0, 50) / 100, rng.randint(0, 50) / 100
            parts = (first, second, round(1 - first - second, 2))
            row |= {f"p_{c}": p for c, p in zip(CLASSES, parts, strict=True)}
        features = features_of(choice)
        if choice["shap"] != "no":
            wanted = list(features) if choice["shap"] == "pattern" else list(features)[:2]
            prefix = "shap_" if choice["shap"] == "pattern" else "why_"
            row |= {f"{prefix}{f}": rng.randint(-9, 9) / 10 if k % 7 else None for f in wanted}
        row |= {name: self._feature(name, str(f["type"])) for name, f in features.items()}
        return {**row, **changes}

    def _outputs(self, k: int, failed: bool) -> Cells:
        rng = self.rng
        score = rng.randint(1, 19) / 20
        decided: Any = int(score > 0.5)
        if self.choice["task"] == MULTICLASS:
            decided = rng.choice(CLASSES)
        elif self.choice["task"] != BINARY:
            decided = round(rng.gauss(10, 3), 2)
        values = {"score": score, "prediction": decided, "group": f"q{k // 6}", "rank": k % 6 + 1.0}
        wanted = [role for role in outputs_of(self.choice) if role != "scores"]
        return {ROLES[r]: None if failed and r != "group" else values[r] for r in wanted}

    def _feature(self, name: str, kind: str) -> Any:
        rng = self.rng
        if features_of(self.choice)[name].get("nullable") and rng.random() < 0.1:
            return None
        return {
            "numeric": lambda: float(rng.randint(1, 400)),
            "categorical": lambda: rng.choice(["north", "south", "NA", "it's \u00e9"]),
            "boolean": lambda: rng.random() < 0.5,
            "datetime": lambda: dt.datetime(2023, rng.randint(1, 12), 3, tzinfo=dt.UTC),
            "text": lambda: rng.choice(["a, b", "line", 'with "quotes"', "\u00fc" * 40]),
        }[kind]()

    def truth(self, key: Cells, day: int, value: Any = ..., dataset: str | None = None) -> Cells:
        """Return ground truth of a prediction, known on a day of July."""
        rng, choice = self.rng, self.choice
        own = choice["names"] == "own"
        if value is ...:
            value = {BINARY: rng.randint(0, 1), MULTICLASS: rng.choice(CLASSES)}.get(
                choice["task"], float(rng.randint(0, 3))
            )
        row: Cells = {"request" if own else "id": key.get("id")}
        if choice["id"] == "parts":
            row = {name: key[name] for name in ("shop_no", "receipt")}
        row["label" if own else "truth"] = value
        if choice["actual_time"] == "yes":
            row["known_at"] = self.knowable + dt.timedelta(minutes=day)
        if choice["dataset"] == "yes":
            row["set"] = dataset
        if choice["outcome"] == "yes":
            row["gain"] = None if value is None else float(day)
        return row

    # --- files

    def predict(self, name: str, rows: list[Cells], *, broken: bool = False) -> None:
        """Write predictions and tell the oracle what must be taken in."""
        self.producer.write("predictions", name, rows, broken=broken)
        self.found.n_rows += len(rows)
        if broken and self.choice["format"] != "sql":
            self.n_broken += 1
            return
        for row in rows:
            if row["at"] is None or row["at"] > self.now:
                self.refused.add(name_of(row))
                self.found.n_refused += 1
            else:
                self.oracle.predicted(name_of(row), row)

    def tell(self, name: str, rows: list[Cells]) -> None:
        """Write ground truth and tell the oracle."""
        if self.choice["actuals"] == "none":
            return
        self.producer.write("actuals", name, rows)
        self.found.n_rows += len(rows)
        for row in rows:
            plain = {"label": "truth", "request": "id"}
            row = {plain.get(n, n): v for n, v in row.items()}
            if name_of(row) is None:
                self.found.n_refused += 1
            else:
                self.oracle.known(name_of(row), row.get("set"), row)

    def first_round(self) -> None:
        """Predictions of three windows, a baseline, and ground truth of two."""
        self.enter(3)
        if self.choice["dataset"] == "yes":
            for dataset in ("training", "validation"):
                rows = [self.prediction(0, k, dataset) for k in range(60)]
                self.predict(dataset, rows)
                self.tell(dataset, [self.truth(r, 0, dataset=dataset) for r in rows])
            self.predict("shadow", [self.prediction(1, k, "shadow") for k in range(5)])
        self.rows = [[self.prediction(w, k) for k in range(N)] for w in range(5)]
        for name, feature in features_of(self.choice).items():
            if feature["type"] == "numeric":  # a constant column
                self.rows[0] = [{**row, name: 7.0} for row in self.rows[0]]
            if feature.get("nullable"):  # a column without any value
                self.rows[2] = [{**row, name: None} for row in self.rows[2]]
        for w in range(3):
            self.predict(f"w{w}", self.rows[w])
        for w in range(2):
            self.tell(f"w{w}", [self.truth(row, 1) for row in self.rows[w][:170]])

    def second_round(self) -> None:
        """Corrections, deliveries once more, conflicts, bad rows, a broken file, late truths."""
        self.enter(3)
        w0, w1, w2 = self.rows[:3]
        if self.choice["format"] == "sql":
            self.predict("w0-again", w0)
        else:
            self.producer.copy("predictions", "w0", "w0-again")
        later = [{**row, "at": row["at"] + dt.timedelta(seconds=31)} for row in w0[5:7]]
        moved = [
            {**row, "at": w0[k]["at"] + dt.timedelta(seconds=7)} for k, row in enumerate(w1[5:7])
        ]
        self.bad = [self.prediction(2, 400 + k) for k in range(3)]
        spoilt = [{**row, "at": None} for row in self.bad]
        self.predict("mixed", [*w0[:5], *later, *moved, *spoilt, *w1[:2]])
        self.lost = [self.prediction(1, 450 + k) for k in range(20)]
        self.predict("broken", self.lost, broken=True)
        # A producer whose clock is ahead: right rows, whose time has not come.
        soon = self.now + dt.timedelta(hours=2)
        self.early = [
            self.prediction(3, 300 + k, at=soon + dt.timedelta(seconds=k)) for k in range(3)
        ]
        self.predict("early", [*w2[:60], *self.early])
        self.found.n_early = len(self.early)
        self.predict("unseen", [self._strange(k) for k in range(40)])
        late = [self.truth(row, 2) for row in w2]
        late += [self.truth(row, 2) for row in self.rows[3][:10]]  # before their predictions
        self.tell("late", late)
        corrected = [self.truth(row, 3) for row in w0[:6]] + [self.truth(w0[7], 3, None)]
        corrected.append(self.truth(w1[3], 3, None))
        nobody = self.truth(w0[0], 1)
        nobody |= {n: None for n in ("id", "request", "shop_no", "receipt") if n in nobody}
        ghost = {"id": "ghost", "shop_no": "s9", "receipt": "ghost"}
        self.tell("corrected", [*corrected, nobody, self.truth(ghost, 2), self.truth(ghost, 2)])
        self.tell("again", corrected)

    def _strange(self, k: int) -> Cells:
        """Return a row with values that nobody has seen, and some that are no numbers."""
        row = self.prediction(2, 500 + k)
        for name, feature in features_of(self.choice).items():
            if feature["type"] == "categorical":
                row[name] = "zz"
            may_be = self.choice["format"] in ("csv", "csv_gz", "bare_csv", "parquet")
            if feature["type"] == "numeric" and may_be and k % 10 == 0:
                row[name] = math.inf if k % 20 else math.nan
        if self.choice["task"] == MULTICLASS and k % 4 == 0:
            row["decided"] = "cow"
        return row

    def third_round(self) -> None:
        """Two more windows, what was refused once more without its faults, corrections undone."""
        self.enter(5)
        self.retry()
        for w in (3, 4):
            self.predict(f"w{w}", self.rows[w])
        self.predict("mended", self.bad)
        if self.choice["format"] != "sql":
            self.predict("whole", self.lost)
        self.tell("w3", [self.truth(row, 4) for row in self.rows[3][10:]])
        self.tell("w4", [self.truth(row, 4) for row in self.rows[4][:20]])
        self.tell("undone", [self.truth(row, 5) for row in self.rows[0][:8]])

    def retry(self) -> None:
        """Type `mlmon ingest MODEL --retry`, now that the time of the early rows has come."""
        folder = self.project.folder
        (folder / "models").mkdir()
        declared = yaml.safe_dump(spec_of(self.choice))
        (folder / "models" / f"{self.spec.model}.yaml").write_text(declared)
        at = ("--project", str(folder), "--now", self.now.isoformat())
        done = CliRunner().invoke(
            cli, [*at, "ingest", self.spec.model, "--retry"],
            env={"MLMON_STORE": str(self.store.folder), VARIABLE: self.producer.url},
        )  # fmt: skip
        if done.exit_code != 1:  # rows without a time are refused again
            self.found.note("tracebacks", f"--retry: {done.exit_code}: {done.output[-800:]}")
        for row in self.early:
            self.oracle.predicted(name_of(row), row)
        self.found.n_refused -= len(self.early)

    def enter(self, n_windows: int) -> None:
        """Let the time come when some windows are over."""
        self.windows = [
            window_containing(self.spec.time, self.start_of(w)) for w in range(n_windows)
        ]
        late = dt.timedelta(hours=2 + self.found.n_rounds)
        self.now = self.windows[-1].end + late
        self.knowable = self.windows[-1].end

    # --- what must hold

    def run(self) -> Found:
        """Go through the rounds."""
        start = time.process_time()
        for step in (self.first_round, self.second_round, self.third_round):
            try:
                step()
                self._compute()
                self.check()
            except Exception:
                self.found.note("tracebacks", traceback.format_exc())
            self.found.n_rounds += 1
        try:
            self._recompute()
        except Exception:
            self.found.note("tracebacks", traceback.format_exc())
        self.found.seconds = time.process_time() - start
        return self.found

    def _compute(self) -> None:
        for _ in range(_LOOKS):
            with contextlib.redirect_stdout(io.StringIO()):  # alerts that go nowhere else
                take_in(self.project, self.spec, self.inbox)
            if not (left := plan(self.project, self.spec, self.now)):
                return
        self.found.note("blocked", f"still planned after {_LOOKS} looks: {left[0].run_key}")

    def check(self) -> None:
        """Compare what the store says with the oracle, and look for what no model may show."""
        self._check_files()
        self._check_records()
        self._check_numbers()

    def _check_files(self) -> None:
        rows = manifest.load_files_frame(self.store.state, self.spec.model).to_dict("records")
        for row in rows:
            name = f"{row['path']}: {row['status']} {row['reason']} {row['error']}"
            if row["status"] == "quarantined" and "broken" in row["path"]:
                continue
            if row["status"] != "done":
                self.found.note("blocked", name)
            elif row["rows_in"] != sum(row[c] for c in COUNTERS):
                self.found.note("unbalanced", f"{name}: {[row[c] for c in COUNTERS]}")
        quarantined = sum(row["status"] == "quarantined" for row in rows)
        n_bad = sum(int(row["n_bad"]) for row in rows if row["status"] == "done")
        if (quarantined, n_bad) != (self.n_broken, self.found.n_refused):
            self.found.note(
                "unbalanced",
                f"{quarantined} files and {n_bad} rows refused, "
                f"not {self.n_broken} and {self.found.n_refused}",
            )

    def _check_records(self) -> None:
        read = self.store.inference_records(self.spec).read(datasets=["production", "shadow"])
        with self.store.state.connect() as conn:
            frozen = {
                w.start for w in window_state.find_frozen(conn, self.spec, self.windows, self.now)
            }
        rows = {}
        for row in read.to_pylist():
            key = row["trace_id"][2:] if self.choice["trace_id"] == "yes" else row["prediction_id"]
            rows[row["dataset"], key] = row
        expected = {
            key: row for key, row in self.oracle.records().items()
            if key[0] in ("production", "shadow")
        }  # fmt: skip
        if self.choice["id"] == "parts" and self.choice["trace_id"] == "no":
            # The id is a hash, and the moment of a winner tells it as well.
            rows = {(d, _moment(r["event_time"])): r for (d, _), r in rows.items()}
            expected = {(d, _moment(r["at"])): r for (d, _), r in expected.items()}
        closed = [w for w in self.windows if w.start in frozen]
        missing = {
            key for key in expected.keys() - rows.keys()
            if not any(w.start <= expected[key]["at"] < w.end for w in closed)
        }  # fmt: skip
        more = rows.keys() - expected.keys()
        if missing or more:
            self.found.note(
                "differences", f"missing {sorted(missing)[:5]}, more {sorted(more)[:5]}"
            )
        for key in rows.keys() & expected.keys():
            is_open = rows[key]["window_start"] not in frozen
            wrong = self._unlike(rows[key], expected[key], is_open)
            if wrong:
                self.found.note("differences", f"{key}: {wrong}")
        names = {name for _, name in rows}
        self.found.n_back = len(names & {name_of(row) for row in getattr(self, "bad", ())})
        self.found.n_retried = sum(
            name_of(row) in names or _moment(row["at"]) in names
            for row in getattr(self, "early", ())
        )

    def _unlike(self, row: Cells, expected: Cells, is_open: bool) -> dict[str, Any]:
        own = {**{v: k for k, v in ROLES.items()}, **{f"p_{c}": f"score:{c}" for c in CLASSES}}
        wrong = {}
        for name, value in expected.items():
            if name in ("id", "shop_no", "receipt", "set"):
                continue
            if name in ("truth", "known_at", "gain") and not is_open:
                continue
            shap = name.removeprefix("shap_").removeprefix("why_")
            place = f"shap:{shap}" if shap != name else own.get(name, name)
            found = row[place]
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            if isinstance(value, float | int) and isinstance(found, float | int):
                same = math.isclose(value, found, rel_tol=1e-12)
            else:
                same = value == found
            if not same:
                wrong[name] = (found, value)
        return wrong

    def _check_numbers(self) -> None:
        frame = metric_log.newest(self.store.state, self.spec.model)
        self.found.n_metrics = len(frame)
        for row in frame.to_dict("records"):
            name = f"{row['metric']} of {row['column_name']} in {row['slice_key']}"
            value, reason = row["value"], row["reason"]
            if pd.isna(value) and not reason:
                self.found.note("differences", f"{name}: no value and no reason")
            elif not pd.isna(value) and not math.isfinite(value):
                self.found.note("differences", f"{name}: {value}")
        verdicts = monitor_results.newest(self.store.state, self.spec.model)
        self.found.n_verdicts = len(verdicts)
        if other := set(verdicts["status"]) - STATES:
            self.found.note("differences", f"verdicts {other}")

    def _recompute(self) -> None:
        """Do everything again; nothing may change but in windows that wait for ground truth.

        What came for those is counted, and computed from once they are judged. The planner's run
        changes nothing at all.
        """
        work = Work(self.project, self.spec, tuple(self.windows), self.now, "again", False)
        everything = self._numbers()
        run(replace(work, is_planned=True))
        if self._numbers() != everything:
            self.found.note("differences", "up to date, and the planner changed it")
        states, timing = work.states(), window_state.timing_of(self.store.state, self.spec.model)

        def is_waiting(window: Window) -> bool:
            state, made = states.get(window.start), mark_of(states, window, "profiles")
            records = mark_of(states, window, "inference_store")
            if state is None or made.data_version.partition(":")[0] == records.data_version:
                return False
            counts = (state.n_expected, state.n_actual)
            return maturity_of(self.spec, window, *counts, self.now, timing) == "provisional"

        waiting = [window.start for window in self.windows if is_waiting(window)]
        before = self._numbers(waiting)
        run(work)
        after = self._numbers(waiting)
        if before != after:
            changed = [k for k in before.keys() | after.keys() if before.get(k) != after.get(k)]
            self.found.note(
                "differences",
                f"computed again: {[(k, before.get(k), after.get(k)) for k in changed[:3]]}",
            )
        again = ingest(work)
        if taken := [f for f in again.files if f.status not in ("waiting", "duplicate")]:
            self.found.note("differences", f"read again: {taken}")

    def _numbers(self, waiting: Collection[dt.datetime] = ()) -> dict[Any, Any]:
        frame = metric_log.newest(self.store.state, self.spec.model)
        frame = frame[~frame["window_start"].isin(waiting)]
        keys = ["window_start", "dataset", "model_version", "slice_key", "slice_value",
                "column_name", "metric"]  # fmt: skip
        numbers = {
            tuple(row[k] for k in keys): (_plain(row["value"]), row["n"], row["reason"])
            for row in frame.to_dict("records")
        }
        verdicts = monitor_results.newest(self.store.state, self.spec.model)
        names = ["window_start", "monitor", "slice_key", "slice_value"]
        return {
            **numbers,
            **{tuple(r[k] for k in names): r["status"] for r in verdicts.to_dict("records")},
        }


def _plain(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{value:.9g}")


def _moment(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat()


def name_of(row: Cells) -> str:
    """Return what a row is called in the oracle; None if it has no id."""
    name: str = row["id"] if "id" in row else row["receipt"]
    return name


def prove(template: Path, folder: Path, choice: Choice, seed: int) -> Found:
    """Take one generated model through its rounds in a store of its own."""
    shutil.copytree(template, folder / "store")
    (folder / "project").mkdir()
    store = open_store(folder / "store")
    try:
        return Generated(choice, seed, store, folder / "project").run()
    finally:
        store.close()
        shutil.rmtree(folder)


def prove_part(template: Path, folder: Path, numbered: Sequence[tuple[int, Choice]]) -> list[Found]:
    """Take some generated models through their rounds; say each that shows something."""
    found = []
    for number, choice in numbered:
        (folder / f"{number}").mkdir(parents=True)
        found.append(prove(template, folder / f"{number}", choice, number))
        for kind, texts in found[-1].problems.items():
            sys.stderr.write(f"  spec {number}: {kind}: {texts[0][-1_500:]}\n")
        if len(found) % 20 == 0:
            sys.stderr.write(f"  {len(found)} of {len(numbered)} specs\n")
    return found
