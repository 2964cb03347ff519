"""Drawn histories of a table or a topic, what a model took from it, and what it was told.

What must be there follows from the history: every row that stood in the source when it was looked
at, once. A row that came and went in between may be missing if a notice says that rows were lost.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from mlmon_dagster.ingest import IngestReport
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store import sources as reading
from mlmon_dagster.store.state import writing
from tests.conftest import new_database
from tests.ingest import test_delta_source as delta
from tests.ingest import test_kafka_source as kafka
from tests.ingest.landing import ingest
from tests.ingest.sql_world import Sources, poll, sql_spec

STEPS = (
    "source.staged", "source.noted", "ingest.staged", "ingest.before_append",
    "ingest.after_append", "ingest.after_manifest",
)  # fmt: skip
# So that a few rows are many ranges, some of them known by hashes and some not.
SMALL = {
    "LEAST_ROWS": 4, "MOST_RANGES": 12, "MOST_MARKS": 12, "MOST_COUNTED": 30, "MOST_AGAIN": 10,
}  # fmt: skip
N_STEPS = 20
SETTLED = 7  # looks without news, in which each small range gets its turn


class Killed(Exception):
    """The program ends here."""


@dataclass
class Found:
    """What is left of a history.

    Attributes:
        seed: What was drawn.
        n_rows: Rows that were written.
        n_kills: Looks that were killed.
        silent: Ids that are missing without a word.
        told: Ids that are missing, with a word.
        twice: Ids of which one version is stored more than once.
        strange: Ids that are stored though nobody wrote them, or with values of no look.
        unseen: Ids of which a version stood there and is not stored.
    """

    seed: int = 0
    n_rows: int = 0
    n_kills: int = 0
    silent: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def __add__(self, other: Found) -> Found:
        return Found(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    @property
    def wrong(self) -> list[str]:
        """What must not be."""
        return [*self.silent, *self.twice, *self.strange, *self.unseen]


class World(Protocol):
    """A source with a history.

    Attributes:
        spec: The model that reads it.
        written: Every id that was written, with each of its scores.
        shows_updates: Whether the source can tell that a row was updated.
        read: Ids that were there at the last look.
    """

    spec: ModelSpec
    written: dict[str, list[float]]
    shows_updates: bool
    read: set[str]

    def step(self, rng: random.Random) -> None:
        """Let something happen."""
        ...

    def visible(self) -> dict[str, set[float]]:
        """Return the ids that a look would find, with their scores."""
        ...

    def look(self, store: Store, project: Path) -> IngestReport:
        """Ingest."""
        ...

    def finish(self) -> None:
        """End what is still open."""
        ...


def live_through(
    world: World, store: Store, project: Path, rng: random.Random, n_steps: int
) -> Found:
    """Let a history happen, look now and then, and compare what was taken with what there was."""
    found, words = Found(), Counter[str]()
    must: dict[str, set[float]] = {}
    is_dirty = False

    def look() -> bool:
        """Return whether nothing was taken in."""
        nonlocal is_dirty
        for _ in range(2 if is_dirty else 1):  # the first one only settles what was on its way
            seen = world.visible()
            report = world.look(store, project)
            words.update("lost" for file in report.files if " lost" in file.message)
            words.update(file.message for file in report.files if file.status == "failed")
        world.read = set(seen)
        if any("next looks" in file.message for file in report.files):
            seen = {}  # what changed all over a table takes turns, and says so
        for id_, scores in seen.items():
            must.setdefault(id_, set()).update(scores)
        is_dirty = False
        return not report.of("done", "failed")

    look()
    for _ in range(n_steps):
        for _ in range(rng.randint(0, 3)):
            world.step(rng)
        chance = rng.random()
        if chance < 0.6:
            look()
        elif chance < 0.75:
            lived = _die(world, store, project, rng.choice(STEPS))
            found.n_kills += lived is None
            if lived is not None:
                words.update("lost" for file in lived.files if " lost" in file.message)
            is_dirty = True
        elif chance < 0.8:
            shutil.rmtree(store.folder / "staging", ignore_errors=True)
    world.finish()
    is_dirty = True
    n_quiet = 0
    while n_quiet < SETTLED:
        n_quiet = n_quiet + 1 if look() else 0

    rows = store.event_log(world.spec).rows("predictions")
    stored = Counter(
        zip(rows["prediction_id"].to_pylist(), rows["score"].to_pylist(), strict=True)
    )  # fmt: skip
    ids = {id_ for id_, _ in stored}
    found.n_rows = len(world.written)
    found.twice = [id_ for (id_, _), n in stored.items() if n > 1]
    found.strange = [id_ for id_, score in stored if score not in world.written.get(id_, ())]
    missing = set(world.written) - ids
    found.silent = sorted(missing & set(must))
    gone = sorted(missing - set(must))
    (found.told if words["lost"] else found.silent).extend(gone)
    if world.shows_updates:
        found.unseen = [
            id_
            for id_, scores in must.items()
            if id_ in ids and any((id_, score) not in stored for score in scores)
        ]
    found.strange += [text for text in words if text != "lost"]
    return found


def _die(world: World, store: Store, project: Path, step: str) -> IngestReport | None:
    """Look and die at a step; return the report of a look that did not come by it."""

    def die(reached: str) -> None:
        if reached == step:
            raise Killed

    writing.on_reached = die
    try:
        return world.look(store, project)
    except Killed:
        return None
    finally:
        writing.on_reached = None


FAR_TIMES = ("2062-01-01 00:00:00", "2999-12-31 23:59:59", "9999-01-01 00:00:00")


class Table:
    """A table of a database that is read by id, by the time of the last change, or by transaction.

    What is emptied or replaced holds a row that was read: else there is nothing to see it by.
    """

    COLUMNS = (
        "n bigint, changed {time}, id text, at text, score {number}, decision int, age {number}, "
        "region text"
    )

    def __init__(self, sources: Sources, name: str, kind: str, rng: random.Random) -> None:
        self.sources, self.name, self.kind = sources, name, kind
        column = {"id": "n", "time": "changed", "xmin": "xmin"}[kind]
        cursor = {"column": column, "kind": kind}
        self.spec = sql_spec(cursor, name, batch_rows=rng.choice([3, 100]))
        self.is_postgres = sources.engine.dialect.name == "postgresql"
        self.shows_updates = self.is_postgres or kind == "time"
        self.written: dict[str, list[float]] = {}
        self.read: set[str] = set()
        self.rows: list[dict[str, Any]] = []
        self.open: list[tuple[sa.Connection, list[dict[str, Any]]]] = []
        self.next, self.minute, self.n_replaced = 1, 0, 0
        self._create()

    def _create(self) -> None:
        time = "timestamptz" if self.is_postgres else "text"
        number = "float8" if self.is_postgres else "real"
        self.sources.create(self.COLUMNS.format(time=time, number=number), self.name)

    def visible(self) -> dict[str, set[float]]:
        if self.kind == "xmin" and self.open:  # an open transaction delays what came after it
            return {}
        found: dict[str, set[float]] = {}
        for row in self.rows:
            found.setdefault(row["id"], set()).add(row["score"])
        return found

    def look(self, store: Store, project: Path) -> IngestReport:
        return poll(store, self.spec, project, self.sources.url)

    def finish(self) -> None:
        while self.open:
            self._commit()

    def step(self, rng: random.Random) -> None:
        possible: list[Callable[[random.Random], None]] = [
            self._append, self._append, self._append, self._late, self._gap, self._far,
            self._null, self._update, self._delete, self._rewind, self._repeat, self._tie,
        ]  # fmt: skip
        if self.is_postgres:
            possible += [self._begin, self._begin, lambda _: self._commit()]
        rng.choice(possible)(rng)

    def _time(self, minute: int) -> str:
        return f"2024-02-{1 + minute // 1440:02d} {minute // 60 % 24:02d}:{minute % 60:02d}:00"

    def _new(self, n: int | None, changed: str | None) -> dict[str, Any]:
        id_ = f"r{len(self.written)}"
        self.written[id_] = [0.5]
        return {"n": n, "changed": changed, "id": id_, "score": 0.5}

    def _insert(self, rows: list[dict[str, Any]], conn: sa.Connection | None = None) -> None:
        statement = sa.text(
            f"INSERT INTO {self.name} VALUES "
            "(:n, :changed, :id, '2024-02-01T08:00:00Z', :score, 1, 30, 'north')"
        )
        if conn is not None:
            conn.execute(statement, rows)
            return
        with self.sources.engine.begin() as opened:
            opened.execute(statement, rows)
        self.rows += rows

    def _grown(self, k: int) -> list[dict[str, Any]]:
        rows = []
        for _ in range(k):
            self.minute += 1
            rows.append(self._new(self.next, self._time(self.minute)))
            self.next += 1
        return rows

    def _append(self, rng: random.Random) -> None:
        self._insert(self._grown(rng.randint(1, 9)))

    def _late(self, rng: random.Random) -> None:
        n, minute = rng.randint(-5, self.next), rng.randint(0, self.minute)
        self._insert([self._new(n, self._time(minute))])

    def _gap(self, rng: random.Random) -> None:
        self.next += rng.choice([10, 1_000, 10**6])
        self.minute += rng.choice([1, 60])

    def _far(self, rng: random.Random) -> None:
        times = (*FAR_TIMES, "12024-02-01", "infinity") if self.is_postgres else FAR_TIMES
        self._insert([self._new(rng.choice([10**9, 10**15, 2**63 - 1]), rng.choice(times))])

    def _null(self, _rng: random.Random) -> None:
        self._insert([self._new(None, None)])

    def _tie(self, rng: random.Random) -> None:
        last = self.next - 1, self._time(self.minute)
        self._insert([self._new(*last) for _ in range(rng.randint(1, 8))])

    def _repeat(self, rng: random.Random) -> None:
        if self.rows:
            self._insert([dict(rng.choice(self.rows))])

    def _update(self, rng: random.Random) -> None:
        if not self.rows:
            return
        id_ = rng.choice(self.rows)["id"]
        self.minute += 1
        score, changed = self.written[id_][-1] + 0.001, self._time(self.minute)
        self.written[id_].append(score)
        self.sources.run(
            f"UPDATE {self.name} SET score = {score!r}, changed = '{changed}' WHERE id = '{id_}'"
        )
        for row in self.rows:
            if row["id"] == id_:
                row.update(score=score, changed=changed)

    def _delete(self, rng: random.Random) -> None:
        known = sorted(self.read & {row["id"] for row in self.rows})
        gone = rng.sample(known, min(len(known), rng.randint(1, 4)))
        for id_ in gone:
            self.sources.run(f"DELETE FROM {self.name} WHERE id = '{id_}'")
        self.rows = [row for row in self.rows if row["id"] not in gone]

    def _rewind(self, rng: random.Random) -> None:
        self.finish()
        if not self.read & {row["id"] for row in self.rows}:
            return
        if rng.random() < 0.3:
            self.n_replaced += 1
            self.sources.run(f"ALTER TABLE {self.name} RENAME TO {self.name}_{self.n_replaced}")
            self._create()
        else:
            empty = "TRUNCATE" if self.is_postgres else "DELETE FROM"
            self.sources.run(f"{empty} {self.name}")
        kept = self.rows if rng.random() < 0.2 else []
        self.rows, self.next = [], 1
        self.minute = rng.choice([0, self.minute])
        if kept:  # loaded again, as from a dump
            self._insert(kept)
        if rng.random() < 0.7:
            self._append(rng)

    def _begin(self, rng: random.Random) -> None:
        if len(self.open) < 3:
            conn = self.sources.begin()
            rows = self._grown(rng.randint(1, 3))
            self._insert(rows, conn)
            self.open.append((conn, rows))

    def _commit(self) -> None:
        if self.open:
            conn, rows = self.open.pop()
            conn.commit()
            conn.close()
            self.rows += rows


class Lake:
    """A Delta table."""

    def __init__(self, project: Path, rng: random.Random) -> None:
        self.place = project / delta.PLACE
        self.spec = delta.delta_spec(batch_rows=rng.choice([3, 100]))
        self.shows_updates = True
        self.written: dict[str, list[float]] = {}
        self.read: set[str] = set()
        self.rows: dict[str, float] = {}
        self.versions: dict[int, dict[str, float]] = {}
        self.copy: tuple[Path, int, dict[int, dict[str, float]]] | None = None
        self.version_read = -1
        self._append(rng)

    def visible(self) -> dict[str, set[float]]:
        return {id_: {score} for id_, score in self.rows.items()}

    def look(self, store: Store, project: Path) -> IngestReport:
        report = ingest(store, self.spec, project)
        self.version_read = max(self.versions)
        return report

    def finish(self) -> None:
        pass

    def step(self, rng: random.Random) -> None:
        possible: list[Callable[[random.Random], None]] = [
            self._append, self._append, self._append, self._append, self._overwrite, self._update,
            self._delete, self._optimize, self._vacuum, self._restore, self._add_column,
            self._save, self._save, self._put_back, self._replace, self._forget,
        ]  # fmt: skip
        rng.choice(possible)(rng)

    def _write(self, rng: random.Random, **options: Any) -> None:
        n = rng.randint(1, 6)
        first = len(self.written)
        ids = [f"r{i}" for i in range(first, first + n)]
        self.written |= {id_: [0.5] for id_ in ids}
        rows = delta.rows_of(ids)
        if options.get("schema_mode"):
            rows = rows.append_column(f"extra{rng.randint(0, 9)}", rows["unused"])
        self.place.mkdir(parents=True, exist_ok=True)
        write_deltalake(self.place, rows, **options)
        kept = {} if options.get("mode") == "overwrite" else self.rows
        self._note({**kept, **dict.fromkeys(ids, 0.5)})

    def _note(self, rows: dict[str, float]) -> None:
        self.rows = rows
        self.versions[DeltaTable(self.place).version()] = rows

    def _append(self, rng: random.Random) -> None:
        self._write(rng, mode="append", schema_mode="merge" if self.rows else None)

    def _add_column(self, rng: random.Random) -> None:
        self._write(rng, mode="append", schema_mode="merge")

    def _overwrite(self, rng: random.Random) -> None:
        self._write(rng, mode="overwrite", schema_mode="overwrite")

    def _update(self, rng: random.Random) -> None:
        if self.rows:
            id_ = rng.choice(sorted(self.rows))
            score = self.written[id_][-1] + 0.001
            self.written[id_].append(score)
            DeltaTable(self.place).update({"score": repr(score)}, predicate=f"id = '{id_}'")
            self._note({**self.rows, id_: score})

    def _delete(self, rng: random.Random) -> None:
        if self.rows:
            id_ = rng.choice(sorted(self.rows))
            DeltaTable(self.place).delete(f"id = '{id_}'")
            self._note({k: v for k, v in self.rows.items() if k != id_})

    def _optimize(self, _rng: random.Random) -> None:
        DeltaTable(self.place).optimize.compact()
        self._note(self.rows)

    def _vacuum(self, _rng: random.Random) -> None:
        DeltaTable(self.place).vacuum(0, dry_run=False, enforce_retention_duration=False)
        self._note(self.rows)
        self.versions = {v: rows for v, rows in self.versions.items() if rows is self.rows}

    def _restore(self, rng: random.Random) -> None:
        version = rng.choice(sorted(self.versions))
        try:
            DeltaTable(self.place).restore(version)
        except DeltaError:  # its log or files are gone
            return
        self._note(self.versions[version])

    def _save(self, _rng: random.Random) -> None:
        place = self.place.with_name("copy")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.place, place)
        self.copy = place, max(self.versions), dict(self.versions)

    def _put_back(self, rng: random.Random) -> None:
        # At the version that was read, or before it is read, nothing shows that more had come.
        if self.copy is None or self.copy[1] >= self.version_read:
            return
        place, _, self.versions = self.copy[0], self.copy[1], dict(self.copy[2])
        shutil.rmtree(self.place)
        shutil.copytree(place, self.place)
        self.rows = self.versions[max(self.versions)]
        for _ in range(rng.randint(0, 4)):
            self._append(rng)

    def _replace(self, rng: random.Random) -> None:
        if self.version_read < 0:
            return
        shutil.rmtree(self.place)
        self.rows, self.versions, self.copy = {}, {}, None
        for _ in range(rng.randint(1, 4)):
            self._append(rng)

    def _forget(self, rng: random.Random) -> None:
        DeltaTable(self.place).create_checkpoint()
        newest = max(self.versions)
        for version in range(newest if rng.random() < 0.7 else newest - 1):
            (self.place / "_delta_log" / f"{version:020d}.json").unlink(missing_ok=True)


class Topic:
    """A topic of a cluster in this process."""

    def __init__(self, rng: random.Random) -> None:
        self.spec = kafka.kafka_spec(batch_rows=rng.choice([3, 100]))
        self.shows_updates = False
        self.written: dict[str, list[float]] = {}
        self.read: set[str] = set()
        self._make()
        self._send(rng)

    def _make(self) -> None:
        self.cluster = kafka.make_cluster()
        asked = {"bootstrap.servers": self.cluster.servers, "group.id": "asked"}
        self.asked = Consumer(asked)
        self.messages: dict[int, list[str | None]] = {0: [], 1: [], 2: [], 3: []}

    def visible(self) -> dict[str, set[float]]:
        kept = set[str | None]()
        for partition, ids in self.messages.items():
            if ids:
                place = TopicPartition("scores", partition)
                oldest, _ = self.asked.get_watermark_offsets(place, timeout=10)
                kept |= {*ids[oldest:]}
        return {id_: {0.5} for id_ in kept if id_ is not None}

    def look(self, store: Store, project: Path) -> IngestReport:
        return self.cluster.poll(store, project, self.spec)

    def finish(self) -> None:
        pass

    def step(self, rng: random.Random) -> None:
        possible: list[Callable[[random.Random], None]] = [
            self._send, self._send, self._send, self._send, self._repeat, self._tombstone,
            self._renew,
        ]  # fmt: skip
        if rng.random() < 0.05:
            possible = [self._flood]
        rng.choice(possible)(rng)

    def _send(self, rng: random.Random, **changed: Any) -> None:
        partition = rng.randint(0, 3)
        for _ in range(rng.randint(1, 6)):
            id_ = f"r{len(self.written)}"
            self.written[id_] = [0.5]
            self.cluster.send(id_, partition=partition, **changed)
            self.messages[partition].append(id_)

    def _repeat(self, rng: random.Random) -> None:
        partition = rng.randint(0, 3)
        sent = [id_ for ids in self.messages.values() for id_ in ids if id_ is not None]
        if sent:
            id_ = rng.choice(sent)
            self.cluster.send(id_, partition=partition)
            self.messages[partition].append(id_)

    def _tombstone(self, rng: random.Random) -> None:
        partition = rng.randint(0, 3)
        self.cluster.raw(None, partition)
        assert self.cluster.producer.flush(10) == 0
        self.messages[partition].append(None)

    def _flood(self, rng: random.Random) -> None:
        """Send more than the cluster keeps of a partition."""
        for _ in range(3):
            self._send(rng, unused="x" * 900_000)

    def _renew(self, rng: random.Random) -> None:
        if self.read and rng.random() < 0.3:
            self._make()
            for _ in range(rng.randint(1, 4)):  # a topic without a message is made by the first one
                self._send(rng)


KINDS = (
    "SQLite, id", "SQLite, time", "PostgreSQL, id", "PostgreSQL, time", "PostgreSQL, xmin",
    "Delta", "topic",
)  # fmt: skip


@contextmanager
def _small_ranges() -> Iterator[None]:
    """Let a few rows be many ranges."""
    before = {name: getattr(reading, name) for name in SMALL}
    try:
        for name, value in SMALL.items():
            setattr(reading, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(reading, name, value)


def live(folder: Path, template: Path, kind: str, seed: int, url: str, n_steps: int) -> Found:
    """Live through one drawn history.

    Args:
        folder: Where to; a new one.
        template: A store that holds nothing.
        kind: Of `KINDS`.
        seed: What is drawn.
        url: Of an empty database of PostgreSQL, for tables there.
        n_steps: So many times something happens, and a look or a kill may follow.
    """
    rng = random.Random(f"{kind} {seed}")
    project = folder / "project"
    project.mkdir(parents=True)
    shutil.copytree(template, folder / "store")
    store = open_store(folder / "store")
    sources = None
    world: World
    if kind == "Delta":
        world = Lake(project, rng)
    elif kind == "topic":
        world = Topic(rng)
    else:
        place, _, column = kind.partition(", ")
        (folder / "source.db").touch()
        sources = Sources(url if place == "PostgreSQL" else f"sqlite:///{folder / 'source.db'}")
        world = Table(sources, f"scores_{seed}", column, rng)
    with _small_ranges() if rng.random() < 0.8 else nullcontext():
        found = live_through(world, store, project, rng, n_steps)
    found.seed = seed
    store.close()
    if sources is not None:
        sources.engine.dispose()
    return found


def live_part(
    folder: Path, template: Path, server: str, each: list[tuple[str, int]]
) -> list[tuple[str, Found]]:
    """Live through some histories, each in a database of its own; return what each left."""
    found = []
    for kind, seed in each:
        with new_database(server) if "PostgreSQL" in kind else nullcontext("") as url:
            one = live(folder / f"{kind} {seed}", template, kind, seed, url, N_STEPS)
        shutil.rmtree(folder / f"{kind} {seed}")
        found.append((kind, one))
        if one.wrong:
            sys.stderr.write(f"{kind}: {one}\n")
    return found
