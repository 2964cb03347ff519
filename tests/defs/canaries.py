"""A processed project with secrets and personal values put in everywhere, and all it gave away."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.defs.assets import OVERVIEW_KEY
from mlmon_dagster.defs.delivery import dispatch_alerts
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.defs.sensors import MAINTENANCE_KEY
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.spec.steps import assets_of, windowed_of
from tests.alerts.fake_slack import fake_slack
from tests.alerts.fake_smtp import fake_smtp
from tests.alerts.fake_webhook import fake_webhook
from tests.defs.small_model import MODEL, YAML, customers, drop, landing, windows_of_days

FIRST = dt.date(2024, 3, 1)
DAYS = tuple(FIRST + dt.timedelta(days=i) for i in range(3))
NOW = dt.datetime(2024, 3, 5, 16, tzinfo=dt.UTC)
PARTS = ("USER", "PASSWORD", "PATH", "QUERY", "FRAGMENT")  # of an address
SECRETS = {
    name: f"SECRET{name}SECRET"
    for name in (
        "TOKEN", "SMTP", "HOOKURL", "HOOKQUERY", "HOOKKEY", "S3", "BEATPATH", "BEATQUERY",
        *(f"{place}{part}" for place in ("SLACK", "MAIL", "BEAT", "HOOK", "DB") for part in PARTS),
    )
}  # fmt: skip
PERSONAL = {
    name: f"CANARY{name}CANARY"
    for name in (
        "ID", "TRACE", "EMAIL", "NAME", "NEWNAME", "CITY", "NEWCITY", "NOTE", "CELL", "UNDECLARED",
        "LINE", "LABEL", "TIME", "HEADER",
    )
}  # fmt: skip
DECLARED = {name: f"SHOWN{name}SHOWN" for name in ("REGION", "FILE")}
# Numbers of one person each, in the baseline and after it; no other column has such digits.
FIRST_WEIGHT, NEW_WEIGHT = 71.364912, 83.917254
FEATURES = """\
  weight:  {type: numeric, pii: true}
  region:  {type: categorical}
  email:   {type: text, pii: true}
  name:    {type: categorical, pii: true}
  city:    {type: categorical, pii: true}
  note:    {type: text}
"""


def declare(folder: Path) -> ModelSpec:
    text = YAML.format(model=MODEL, start=FIRST, zone="UTC")
    text = text.replace("  region:  {type: categorical}\n", FEATURES)
    text = text.replace("/*.parquet", "/*")
    text = text.replace("dataset: dataset,", "dataset: dataset, trace_id: trace,")
    text = text.replace(
        'mention: "@here"}',
        'mention: "@here"}, email: {to: [a@example.com]}, '
        "webhook: {url_env: HOOK_URL, secret_env: HOOK_KEY}, digest: daily",
    )
    path = folder / "models" / f"{MODEL}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return load_model(path)


def personal(day: dt.date, dataset: str = "production") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a day's events with a canary in every column that can hold one."""
    predictions, actuals = customers(day, dataset, 100, age=40 if dataset != "production" else 70)
    is_new = dataset == "production"
    for frame in (predictions, actuals):
        frame["id"] = PERSONAL["ID"] + frame["id"]
    predictions["trace"] = [f"{PERSONAL['TRACE']}{i}" for i in range(len(predictions))]
    predictions["email"] = [f"{PERSONAL['EMAIL']}{i}@example.com" for i in range(len(predictions))]
    predictions["name"] = PERSONAL["NEWNAME" if is_new else "NAME"]
    weights = np.linspace(60.0, 70.0, len(predictions))
    weights[-1] = NEW_WEIGHT if is_new else FIRST_WEIGHT
    predictions["weight"] = weights
    predictions["city"] = PERSONAL["NEWCITY" if is_new else "CITY"]
    predictions["note"] = PERSONAL["NOTE"]
    predictions["region"] = DECLARED["REGION"]
    if is_new:  # a part is as old as ever, so that the rest explains what is told
        predictions.loc[60:, ["region", "age"]] = ["north", 40.0]
    predictions["undeclared"] = PERSONAL["UNDECLARED"]
    if day == DAYS[-1]:  # in one region alone, which is named
        predictions.loc[predictions["region"] != "north", "balance"] = np.nan
    return predictions, actuals


def land(folder: Path) -> None:
    first = dt.date(2024, 2, 1)
    days = [personal(first + dt.timedelta(days=i), "validation") for i in range(4)]
    frames = dict(zip(("predictions", "actuals"), zip(*days, strict=True), strict=True))
    for stream, parts in frames.items():
        drop(pd.concat(parts), landing(folder, stream) / "validation.parquet")
    for day in DAYS[:-1]:
        for stream, frame in zip(frames, personal(day), strict=True):
            drop(frame, landing(folder, stream) / f"{day}.parquet")
    land_broken(folder)


def land_broken(folder: Path) -> None:
    """Land files in which something is wrong with a row, a line, or all of it."""
    predictions, actuals = personal(DAYS[-1])
    actuals = actuals.assign(left=actuals["left"].astype(object))
    predictions = predictions.assign(age=predictions["age"].astype(object))
    predictions.loc[0, "age"] = PERSONAL["CELL"]
    predictions["at"] = predictions["at"].astype(str).astype(object)
    predictions.loc[1, "at"] = PERSONAL["TIME"]
    actuals.loc[0, "left"] = PERSONAL["LABEL"]
    place = landing(folder, "predictions")
    predictions.to_csv(place / f"{DAYS[-1]}.csv", index=False)
    actuals.to_csv(landing(folder, "actuals") / f"{DAYS[-1]}.csv", index=False)
    line = json.dumps({"id": PERSONAL["ID"], "note": PERSONAL["LINE"]})
    (place / f"{DECLARED['FILE']}.jsonl").write_text(f"{line}\n{line[:-9]}\n")
    (place / "garbage.parquet").write_text(PERSONAL["LINE"])
    (place / "ragged.csv").write_text(f"id,at,score\n{PERSONAL['LINE']},1,2,3,4,5\n")
    headerless = ",".join([PERSONAL["HEADER"], "2024-03-01", PERSONAL["HEADER"], "0.5"])
    (place / "headerless.csv").write_text(f"{headerless}\n{headerless}\n")
    (place / "columns.csv").write_text(f"id,at\n{PERSONAL['LINE']},2024-03-01T00:00:00Z\n")


def sinks(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield everything below the project that is neither a row of the store nor a landing file."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_rows = parts[0] == "landing" or parts[:2] == (".mlmon", "work")
        is_rows |= parts[:2] == (".mlmon", "store") and not path.name.startswith("state.db")
        if path.is_file() and not is_rows:
            yield str(path.relative_to(folder)), path.read_bytes()
            if path.suffix == ".db":
                yield f"{path.name} unpacked", _unpacked(path)


def _unpacked(path: Path) -> bytes:
    """Return the compressed values of a SQLite database, such as Dagster's snapshots."""
    found = []
    with closing(sqlite3.connect(path)) as conn:
        tables = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in conn.execute(f'SELECT * FROM "{table}"'):
                packed = [v for v in row if isinstance(v, bytes) and v[:1] == b"x"]
                found += [zlib.decompress(value) for value in packed]
    return b"\n".join(found)


def numbers_kept(project: Project, spec: ModelSpec) -> Iterator[tuple[str, bytes]]:
    """Yield profiles and baselines, which hold numbers of all columns, and names of open ones."""
    for kind in ("profiles", "baseline_profiles"):
        rows = project.store.table(kind, spec.model).read().to_pylist()
        assert {"name", "weight"} <= {row["column_name"] for row in rows}
        yield kind, repr([row for row in rows if row["column_name"] in ("name", "weight")]).encode()
    folder = project.folder / ".mlmon" / "store" / "baselines" / spec.model
    files = list(folder.glob("*.json"))
    assert files
    for path in files:
        kept = json.loads(path.read_text())
        own = [bins for bins in kept["binnings"] if bins["column"] in ("name", "weight")]
        assert len(own) == 2
        yield path.name, json.dumps(own).encode()


def guesses(name: str) -> list[str]:
    """Return digests of a value that need no key."""
    texts = (name, f"{MODEL}:{name}")
    makers = (hashlib.md5, hashlib.sha1, hashlib.sha256)
    return [make(text.encode()).hexdigest()[:32] for text in texts for make in makers]


def run_everything(project: Project, spec: ModelSpec) -> None:
    with open_instance(project) as instance:
        launcher = Launcher(project, [spec], instance)
        others = [a.name for a in assets_of(spec) if not a.is_windowed]
        first = [name for name in others if name in ("event_log", "baseline")]
        later = [name for name in others if name not in first]
        reports = [launcher.materialize(spec, first)]
        reports.append(launcher.materialize(spec, windowed_of(spec), windows_of_days(spec, DAYS)))
        keys = [OVERVIEW_KEY, MAINTENANCE_KEY]
        reports.append(launcher.materialize(spec, later, keys=keys))
        assert [report.errors for report in reports] == [[]] * 3
        for hours in (0, 24):
            now = NOW + dt.timedelta(hours=hours)
            delivered = dispatch_alerts(project, [spec], instance, now)
            assert delivered.delivery.n_dead == 0, delivered.text()


@dataclass(frozen=True)
class Told:
    """The project, and everything that leaves the rows.

    Attributes:
        found: Places and their contents.
        n_pictures: Sent to Slack.
    """

    folder: Path
    found: tuple[tuple[str, bytes], ...]
    n_pictures: int

    def hits(self) -> set[tuple[str, str]]:
        """Return places with a canary that they must not have."""
        return {(p, name) for p, content in self.found for name in canaries_in(content)}


def canaries_in(content: bytes) -> list[str]:
    """Return which secrets, values of a person, and digests of them that anybody can make."""
    names = [name for name, canary in (SECRETS | PERSONAL).items() if canary.encode() in content]
    numbers = [repr(FIRST_WEIGHT), repr(NEW_WEIGHT)]
    others = numbers + [
        digest for name in ("NAME", "NEWNAME") for digest in guesses(PERSONAL[name])
    ]
    return names + [text for text in others if text.encode() in content]


@cache
def told(base: Path) -> Told:
    """Return the project of this process, in which everything ran and all was told once."""
    folder = base / "canaries"
    spec = declare(folder)
    land(folder)
    with (
        fake_slack() as slack,
        fake_smtp() as smtp,
        fake_webhook() as hook,
        pytest.MonkeyPatch.context() as patch,
        _printed(base / "canaries.printed") as printed,
    ):
        slack.token = SECRETS["TOKEN"]
        secret_path = f"{SECRETS['HOOKURL']}?token={SECRETS['HOOKQUERY']}"
        patch.setenv("HOOK_URL", f"{hook.url}/{secret_path}")
        patch.setenv("HOOK_KEY", SECRETS["HOOKKEY"])
        patch.setenv("MLMON_SLACK_TOKEN", slack.token)
        patch.setenv("MLMON_SLACK_API_URL", slack.url)
        patch.setenv("MLMON_SMTP_URL", f"smtp://127.0.0.1:{smtp.port}/{SECRETS['SMTP']}")
        patch.setenv("MLMON_MAIL_FROM", "mlmon@example.com")
        project = Project(
            folder,
            str(folder / ".mlmon" / "store"),
            now=lambda: NOW,
            heartbeat_url=f"http://127.0.0.1:1/{SECRETS['BEATPATH']}?k={SECRETS['BEATQUERY']}",
            storage_options={"aws_secret_access_key": SECRETS["S3"]},
        )
        run_everything(project, spec)
        kept = list(numbers_kept(project, spec))
        project.store.close()
        bodies = [json.dumps([m.shown, m.body]) for m in slack.messages]
        bodies += [f"{f.name} {f.title} {f.alt}" for f in slack.files]
        mails = [part for mail in smtp.mails for part in mail.walk() if not part.is_multipart()]
        found: list[tuple[str, bytes]] = [
            *sinks(folder),
            ("slack", "\n".join(bodies).encode()),
            ("mail", b"\n".join(bytes(part.get_payload(decode=True)) for part in mails)),
            ("webhook", b"\n".join(body for _, body in hook.requests)),
            ("repr", repr(project).encode()),
            *kept,
        ]
        n_pictures = len(slack.files)
    found.append(("printed", printed.read_bytes()))
    return Told(folder, tuple(found), n_pictures)


@contextmanager
def _printed(path: Path) -> Iterator[Path]:
    """Keep in a file what is printed meanwhile, by native code too."""
    kept = [os.dup(fd) for fd in (1, 2)]
    with path.open("wb") as file:
        try:
            for fd in (1, 2):
                os.dup2(file.fileno(), fd)
            yield path
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, old in zip((1, 2), kept, strict=True):
                os.dup2(old, fd)
                os.close(old)
