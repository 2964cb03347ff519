"""Mixtures of older and newer tables, state database and landing folder, and what becomes of them.

A tiny model lives through some days, on each of which files come and on some of which somebody is
erased. After each day the store, the database and the landing folder are copied. A mixture puts
copies of different days together, as restoring one of them alone does.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlmon_dagster.commands import doctor
from mlmon_dagster.commands.run import run_model
from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.ingest.landing import hash_landed
from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.pipeline.run import compute
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.store.moments import find_difference
from mlmon_dagster.store.upkeep.integrity import repair_model
from mlmon_dagster.tables.asked import ALWAYS
from tests.proof import world

DAYS = 5
ERASED_ON = {1: "a1", 3: "a7"}  # the first day is 0
SPEC = world.make_spec()
TABLES = (
    "event_log/tiny/predictions",
    "event_log/tiny/actuals",
    "inference_records/tiny",
    "profiles/tiny",
)
Databases = Callable[[str], AbstractContextManager[str]]  # copies one, gives the copy's URL


@dataclass(frozen=True)
class Mixture:
    """Of which day each part is.

    Attributes:
        store: Of the tables and the files beside them.
        database: None if it was lost.
        landing: Of the landing folder.
        table: One table that is of another day than the store; empty for none.
        table_of: That day.
    """

    store: int
    database: int | None
    landing: int
    table: str = ""
    table_of: int = 0


@dataclass
class Lived:
    """The days of a model, and what its store has to say at their end.

    Attributes:
        folder: With a folder for each day.
        urls: Of PostgreSQL databases, one for each day; none for SQLite.
        events: What happened on all days.
    """

    folder: Path
    urls: dict[int, str] = field(default_factory=dict)
    events: list[world.Event] = field(default_factory=list)

    def day(self, number: int) -> Path:
        return self.folder / f"day{number}"

    def versions(self, number: int, table: str) -> int:
        return len(list((self.day(number) / "store" / table / "_delta_log").glob("*.json")))


@dataclass
class Found:
    """What became of some mixtures.

    Attributes:
        n: Mixtures.
        n_noticed: Of them, those that run, doctor and the daemon noticed, with the command.
        n_back: Erased ids that were in the log or the records at the end.
        n_lost: Mixtures of which files had to be put back into the landing folder.
        different: Mixtures after which the store did not hold what it has to.
    """

    n: int = 0
    n_noticed: int = 0
    n_back: int = 0
    n_lost: int = 0
    different: list[str] = field(default_factory=list)


@contextmanager
def live(folder: Path, rng: random.Random, copy: Databases | None = None) -> Iterator[Lived]:
    """Live through the days; the databases of PostgreSQL are there while the block runs."""
    lived = Lived(folder)
    current, project = folder / "current", folder / "current" / "project"
    # Of the template only its landing files are wanted, which the baseline comes from.
    shutil.copytree(world.make_template(folder / "template").parent / "project", project)
    with ExitStack() as databases:
        url = databases.enter_context(copy("template1")) if copy else ""
        for day in range(DAYS):
            events = _events(rng, day)
            lived.events += events
            world.land(project, f"day{day}", events)
            store = open_store(current / "store", url or None)
            run(store, project)
            if id_ := ERASED_ON.get(day):
                lived.events.append(world.Erased(id_))
                erase(store, SPEC, [id_], now=world.NOW)
                run(store, project)
            store.close()
            shutil.copytree(current, lived.day(day))
            if copy:
                lived.urls[day] = databases.enter_context(copy(_name(url)))
        yield lived


def _name(url: str) -> str:
    return str(sa.make_url(url).database)


def _events(rng: random.Random, day: int) -> list[world.Event]:
    ids = [f"a{n}" for n in range(2 + 6 * (day + 1))]
    new = ids[-6 if day else 0 :]
    last = min(1 + day, 3)  # later days bring windows that earlier ones do not know
    predicted = [world.Predicted(id_, rng.randint(1, last), rng.randint(0, 3)) for id_ in new]
    again = [world.Predicted(rng.choice(ids), rng.randint(1, last), rng.randint(0, 3))]
    known = [world.Known(id_, day * 3, rng.randint(0, 1)) for id_ in rng.sample(ids, 5)]
    return [*predicted, *again, *known]


def run(store: Store, project: Path) -> None:
    """Do what ``mlmon run`` does: take in what is new, compute what the planner asks for."""
    report = ingest_new(store, SPEC, project, readers(), now=world.NOW)
    failed = [f.message for f in report.files if f.status in ("failed", "quarantined")]
    assert not failed, failed
    work = world.work_on(store, SPEC, project)
    fit_baseline(work)
    asked = plan(work.project, SPEC, world.NOW)
    wanted = {window for request in asked for window in request.windows}
    mine = tuple(window for window in work.windows if window in wanted)
    if mine:
        compute(replace(work, windows=mine), ("inference_store", "profiles", "performance"))


def draw(rng: random.Random, lived: Lived) -> Mixture:
    """Draw of which day each part is, the store of another one than the database."""
    landing, last = rng.randrange(DAYS), DAYS - 1
    kind = rng.choices(("whole", "table", "lost"), (7, 2, 1))[0]
    if kind == "lost":
        return Mixture(rng.randrange(DAYS), None, landing)
    if kind == "table":
        older = [
            (table, day)
            for table in TABLES
            for day in range(last)
            if lived.versions(day, table) < lived.versions(last, table)
        ]
        return Mixture(last, last, landing, *rng.choice(older))
    store, database = rng.sample(range(DAYS), 2)
    return Mixture(store, database, landing)


@contextmanager
def mixed(lived: Lived, mixture: Mixture, home: Path, copy: Databases | None) -> Iterator[Store]:
    """Put the parts together in a folder, and open the store; the project is beside it."""
    of_store = lived.day(mixture.store)
    shutil.copytree(of_store / "store", home / "store", ignore=shutil.ignore_patterns("state.db*"))
    if mixture.table:
        shutil.rmtree(home / "store" / mixture.table)
        older = lived.day(mixture.table_of) / "store" / mixture.table
        shutil.copytree(older, home / "store" / mixture.table)
    # Nobody restores what lies beside the store, which is of today.
    shutil.copytree(lived.day(DAYS - 1) / "store.erasures", home / "store.erasures")
    shutil.copytree(lived.day(mixture.landing) / "project", home / "project")
    if copy is None:
        if mixture.database is not None:
            for part in (lived.day(mixture.database) / "store").glob("state.db*"):
                shutil.copy(part, home / "store" / part.name)
        url = nullcontext("")
    else:
        is_there = mixture.database is not None
        url = copy(_name(lived.urls[mixture.database or 0]) if is_there else "template1")
    with url as address:
        store = open_store(home / "store", address or None)
        yield store
        store.close()


def is_noticed(store: Store, project: Path) -> bool:
    """Tell whether run, doctor and the daemon notice it and name the command."""
    work = world.work_on(store, SPEC, project)
    (project / "models").mkdir(exist_ok=True)
    (project / "models" / "tiny.yaml").write_text(json.dumps(world.SPEC_MAPPING))
    named = f"mlmon store repair {SPEC.model}"
    said: list[str] = []
    for look in (lambda: run_model(work.project, SPEC, ALWAYS), lambda: ingest(work)):
        try:
            look()
            said.append("")
        except StoreError as error:
            said.append(str(error))
    finding = doctor._moments(work.project)
    return not finding.is_fine and all(named in text for text in (*said, finding.found))


def try_mixture(
    lived: Lived, mixture: Mixture, home: Path, found: Found, copy: Databases | None = None
) -> None:
    """Mix, look whether it is noticed, do what the sentence says, and compare."""
    found.n += 1
    with mixed(lived, mixture, home, copy) as store:
        project = home / "project"
        found.n_noticed += is_noticed(store, project)
        if mixture.database is None:
            # As the sentence says: the key of the lists is lost, the erasures are repeated below.
            with pytest.raises(StoreError, match="nor the key of its ids"):
                _repair(store, project)
            for lists in (home / "store.erasures", home / "store" / "erasures"):
                shutil.rmtree(lists, ignore_errors=True)
        lost = _repair(store, project)
        for part in (lived.day(DAYS - 1) / "project" / "landing").rglob("*.jsonl"):
            # What was lost is put back, and the days go on.
            target = project / part.relative_to(lived.day(DAYS - 1) / "project")
            if not target.exists():
                shutil.copy2(part, target)
        if lost:
            found.n_lost += 1
            assert not _repair(store, project), mixture
        run(store, project)
        if mixture.database is None:
            erase(store, SPEC, list(ERASED_ON.values()), now=world.NOW)
            run(store, project)
        expected = world.expected(lived.events)
        seen = world.stored(store, SPEC)
        gone = set(ERASED_ON.values())
        ids = store.event_log(SPEC).rows("predictions")["prediction_id"].to_pylist()
        ids += store.event_log(SPEC).rows("actuals")["prediction_id"].to_pylist()
        found.n_back += len(gone & ({*ids} | seen["records"].keys()))
        parts = [name for name in expected if seen[name] != expected[name]]
        if parts or find_difference(store, SPEC.model):
            found.different.append(f"{mixture}: {parts}")


def _repair(store: Store, project: Path) -> Sequence[str]:
    def landed() -> set[str]:
        return hash_landed(project, [source for _, source in SPEC.source])

    return repair_model(store, SPEC, project, world.NOW, landed=landed).lost


def try_mixtures(folder: Path, n: int, seed: int, copy: Databases | None = None) -> Found:
    """Draw mixtures and try them; `Found` says what became of them."""
    rng, found = random.Random(seed), Found()
    with live(folder / "lived", rng, copy) as lived:
        for number in range(n):
            home = folder / f"mix{number}"
            try_mixture(lived, draw(rng, lived), home, found, copy)
            shutil.rmtree(home)
    return found
