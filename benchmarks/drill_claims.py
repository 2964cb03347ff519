"""Is what `mlmon drill` says true? Its faults, put into raw files of a copy of the project.

`python -m benchmarks.drill_claims --project DIR --model flight_delay --now 2014-01-03T12:00:00Z`
drills the model, then writes the project's landing files anew into three new projects, each fault
from the first of its healthy windows on: at 1.3 times the size that the drill says is noticed, at
half of it, and none at all. `mlmon ingest`, `mlmon run` and `mlmon alerts deliver` do the rest.
Which rows are hit is drawn `--draws` times. At 1.3 times an alert must open within the windows that
the drill says in nine of ten draws, as the drill says it of nine of ten beginnings. Landing files
must be Parquet.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from benchmarks.table import KEPT_HELP, Goal, Kept, Row, render
from mlmon_dagster.drill.drill import Drill, Finding, Subject
from mlmon_dagster.drill.faults import FAULTS, LABEL_FLIP, facts_of, inject
from mlmon_dagster.drill.trial import HORIZON
from mlmon_dagster.project import parse_now, project_from_environment
from mlmon_dagster.spec import ModelSpec, Window, load_model
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.store import alert_state
from mlmon_dagster.work import Work

CLAIMS = "carrier:nulls,dest:unseen,hour:shift,visib:unit,seats:stuck,:label_flip"
HISTORY = dt.timedelta(days=7)  # before the first fault
FACTORS = (1.3, 0.5, 0.0)
SURE = 0.9  # of the draws


@dataclass(frozen=True)
class Claim:
    """What the drill says of one fault: that an alert opens within some of these windows."""

    subject: Subject
    finding: Finding

    @property
    def name(self) -> str:
        """What is wrong with what."""
        return f"{self.finding.subject or 'ground truth'} {self.finding.fault}"

    @property
    def windows(self) -> tuple[Window, ...]:
        """The healthy windows that the family was drilled in."""
        return self.subject.windows[self.finding.family]


def claims_of(drill: Drill, wanted: Sequence[str]) -> list[Claim]:
    """Drill, and keep the wanted claims: of each the family that sees it first."""
    pairs = [tuple(text.split(":")) for text in wanted]
    columns = dict.fromkeys(column for column, _ in pairs if column)
    subjects = list(drill.columns(list(columns)) if columns else ())
    if any(not column for column, _ in pairs):
        subjects += drill.whole()
    found = []
    for column, fault in pairs:
        mine = [
            Claim(subject, finding)
            for subject in subjects
            for finding in subject.findings
            if (finding.subject, finding.fault) == (column, fault) and finding.size is not None
        ]
        if mine:
            found.append(min(mine, key=lambda c: (c.finding.size or 0.0, c.finding.after)))
    return found


@dataclass(frozen=True)
class Files:
    """The rows of a project's landing files, and what they are called in there."""

    spec: ModelSpec
    predictions: pd.DataFrame
    actuals: pd.DataFrame

    @classmethod
    def read(cls, folder: Path, spec: ModelSpec, since: dt.datetime) -> Files:
        """Read the rows of the baseline, and those of production since a moment."""

        def of(path: str | None) -> pd.DataFrame:
            return pd.concat(pd.read_parquet(file) for file in sorted(folder.glob(path or "")))

        columns = spec.columns
        assert spec.source.actuals is not None
        assert columns.dataset is not None
        rows, truth = of(spec.source.predictions.path), of(spec.source.actuals.path)
        at = pd.to_datetime(rows[columns.event_time], utc=True)
        rows = rows[(rows[columns.dataset] != PRODUCTION) | (at >= since)]
        truth = truth[truth[columns.prediction_id].isin(rows[columns.prediction_id])]
        return cls(spec, rows.reset_index(drop=True), truth.reset_index(drop=True))

    def land(self, folder: Path) -> None:
        """Write the rows into a project's landing folders, a file a day and stream."""
        assert self.spec.source.actuals is not None
        at = pd.to_datetime(self.predictions[self.spec.columns.event_time], utc=True)
        day = at.dt.tz_convert(self.spec.time.zone).dt.date
        known = dict(zip(self.predictions[self.spec.columns.prediction_id], day, strict=True))
        days = (day, self.actuals[self.spec.columns.prediction_id].map(known))
        paths = (self.spec.source.predictions.path, self.spec.source.actuals.path)
        for path, rows, by in zip(paths, (self.predictions, self.actuals), days, strict=True):
            target = (folder / str(path)).parent
            target.mkdir(parents=True)
            for name, mine in rows.groupby(by):
                mine.to_parquet(target / f"{name}.parquet", index=False)

    def broken(self, claim: Claim, size: float, seed: int) -> Files:
        """Return the rows with a claim's fault of some size, from its first window on."""
        fault = next(f for f in FAULTS if f.name == claim.finding.fault)
        is_truth = fault.name == LABEL_FLIP
        column = "actual" if is_truth else claim.finding.subject
        rows = self.actuals if is_truth else self.predictions
        name, key = self._name_of(column), self.spec.columns.prediction_id
        first, last = claim.windows[0].start, claim.windows[-1].end
        at = pd.to_datetime(self.predictions[self.spec.columns.event_time], utc=True)
        ids = self.predictions.loc[(at >= first) & (at < last), key]
        mine = rows[key].isin(ids).to_numpy()
        values = rows[name].astype("float64" if is_numeric_dtype(rows[name]) else "object")
        luck = np.where(mine, np.random.default_rng(seed).uniform(size=len(rows)), 2.0)
        facts = facts_of(self.spec, column, values[mine])
        changed = inject(values, fault, facts, size, luck)
        if fault.unit != "share":  # such a fault hits every row
            changed = changed.where(mine, values)
        changed_rows = rows.assign(**{name: changed})
        if is_truth:
            return Files(self.spec, self.predictions, changed_rows)
        return Files(self.spec, changed_rows, self.actuals)

    def _name_of(self, column: str) -> str:
        if column in self.spec.features:
            return self.spec.features[column].from_ or column
        return str(getattr(self.spec.columns, column))


def mlmon(folder: Path, now: dt.datetime, *words: str, may_find: bool = False) -> None:
    """Run a command in a project.

    Args:
        folder: The project's.
        now: The moment of the command.
        words: What is run.
        may_find: Whether an end with 1 says that something was found, such as refused rows, which
            are part of the faults.
    """
    command = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(folder)]
    command += ["--now", now.isoformat(), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode > may_find or "Traceback" in ended.stderr:
        sys.exit(
            f"{' '.join(words)} ended with {ended.returncode}:\n{ended.stdout[-2000:]}"
            f"\n{ended.stderr[-2000:]}"
        )


def opened_in(folder: Path, claim: Claim) -> list[dt.datetime]:
    """Return the windows in which alerts of the claim's monitor opened."""
    project = project_from_environment(folder)
    with project.store.state.connect() as conn:
        alerts = alert_state.all_alerts(conn, None)
        events = alert_state.all_events(conn, None)
    project.store.close()
    return sorted(
        row["window_start"]
        for key, rows in events.items()
        for row in rows
        if row["kind"] == "opened"
        and alerts[key]["family"] == claim.finding.family
        and alerts[key]["monitor"] == claim.finding.monitor
    )


def lived(place: Path, source: Path, files: Files, start: dt.date, now: dt.datetime) -> Path:
    """Let a new project live through some files, and return its folder."""
    shutil.copytree(source / "models", place / "models")
    path = place / "models" / f"{files.spec.model}.yaml"
    path.write_text(re.sub(r"(?m)^(\s*start: )\S+", rf"\g<1>{start}", path.read_text()))
    files.land(place)
    mlmon(place, now, "ingest", may_find=True)
    mlmon(place, now, "run", files.spec.model)
    mlmon(place, now, "alerts", "deliver")
    return place


def opened_after(folder: Path, claim: Claim) -> int:
    """Return in which window of its fault a claim's alert opened, 1 being the first; 0 if none."""
    opened = [moment for moment in opened_in(folder, claim) if moment >= claim.windows[0].start]
    n = sum(window.start <= opened[0] for window in claim.windows) if opened else 0
    return n if n <= HORIZON else 0


def tried(
    project: Path,
    files: Files,
    claims: Sequence[Claim],
    factor: float,
    draw: int,
    now: dt.datetime,
) -> dict[str, int]:
    """Put faults of so many times the smallest size into files, and return when alerts opened."""
    for number, claim in enumerate(claims, start=1):
        if factor:
            size = factor * (claim.finding.size or 0.0)
            files = files.broken(claim, size, 100 * draw + number)
    start = min(claim.windows[0].start for claim in claims) - HISTORY
    with tempfile.TemporaryDirectory(prefix="mlmon-claims-") as place:
        lived(Path(place), project, files, start.date(), now)
        return {claim.name: opened_after(Path(place), claim) for claim in claims}


def main() -> int:
    """Print a table, and return how many claims were not true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--model", default="flight_delay")
    parser.add_argument("--now", type=parse_now, required=True)
    parser.add_argument("--claims", default=CLAIMS, help="column:fault, by comma")
    parser.add_argument("--draws", type=int, default=1, help="of the rows that are hit")
    parser.add_argument("--keep", type=Path, help=KEPT_HELP)
    given = parser.parse_args()
    project = project_from_environment(given.project, now=lambda: given.now)
    spec = load_model(project.models_folder / f"{given.model}.yaml")
    wanted = given.claims.split(",")
    names = [text.partition(":")[2] for text in wanted]
    drill = Drill(Work(project, spec, (), given.now, "drill", is_backfill=True), 14, 0, names)
    claims = claims_of(drill, wanted)
    project.store.close()
    start = min(claim.windows[0].start for claim in claims) - HISTORY
    files = Files.read(project.folder, spec, start)
    opened: dict[tuple[str, float], list[int]] = {}
    kept = Kept(given.keep)
    for factor, draw in [(f, d) for f in FACTORS for d in range(given.draws if f else 1)]:
        name = (given.claims, str(given.now), factor, draw)
        found = kept.of(
            name, partial(tried, project.folder, files, claims, factor, draw, given.now)
        )
        for claim, n in found.items():
            opened.setdefault((claim, factor), []).append(n)
        print(f"  {factor:g} times, draw {draw}: {found}", file=sys.stderr, flush=True)
    rows = [_row(claim, [opened[claim.name, factor] for factor in FACTORS]) for claim in claims]
    heads = ("smallest", "after", "1.3 x, in time", *(f"at {f:g} x, windows" for f in FACTORS))
    print(render(f"Windows until alerts opened: {given.model}", heads, rows, seed=0, width=18))
    return len(wanted) - sum(row.goal.is_met for row in rows if row.goal)


def _row(claim: Claim, opened: Sequence[Sequence[int]]) -> Row:
    """Say of how many draws a claim was true, and at each size the windows until alerts opened."""
    after = claim.finding.after
    in_time = [0 < n <= after for n in opened[0]]
    numbers = [f"{claim.finding.size:g}", str(after), f"{sum(in_time)} of {len(in_time)}"]
    for draws in opened:
        some = sorted(n for n in draws if n)
        spread = f"{some[0]} to {some[-1]}, " if some else ""
        numbers.append(f"{spread}never {draws.count(0)}" if 0 in draws else spread[:-2])
    share = sum(in_time) / len(in_time)
    return Row(claim.name, tuple(numbers), Goal(share, SURE, is_least=True))


if __name__ == "__main__":
    sys.exit(main())
