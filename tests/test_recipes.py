"""The recipes of docs/architecture.md, done with toys in a copy of the package.

A recipe says how many files change. Each toy changes so many, all of which the recipe names, and
works from end to end; nothing else had to be touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from mlmon_dagster.spec.monitors import DISTANCES
from tests.test_architecture import ARCHITECTURE, PACKAGE, ROOT


class Toy(NamedTuple):
    """What a recipe adds.

    Attributes:
        recipe: Which paragraph of the page it follows.
        files: New modules, and lines of existing ones with what stands after them.
        tried: A program that uses it, in an empty folder.
        printed: What that prints.
    """

    recipe: str
    files: Mapping[str, str | Mapping[str, str]]
    tried: str
    printed: str


# What the programs of several toys begin with.
DECLARED = """
import datetime as dt
from pathlib import Path
from mlmon_dagster.project import project_from_environment
from mlmon_dagster.spec import spec_from_mapping
from mlmon_dagster.store import open_store
def declare(predictions={"path": "landing/*"}, **more):
    return spec_from_mapping({
        "model": "toy", "task": "regression", "owners": ["team:x"],
        "time": {"start": "2024-01-01"},
        "source": {"predictions": predictions},
        "columns": {"prediction_id": "id", "event_time": "at", "prediction": "guess"},
        "features": {"age": {"type": "numeric"}},
        **more,
    })
now = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)
"""

DISTANCE = Toy(
    "A drift distance",
    {
        "metrics/drift/distances.py": {
            '@of_bins("kl", "KL divergence")\n': (
                '@of_bins("bhattacharyya", "Bhattacharyya")\n'
                "def bhattacharyya(current: ArrayLike, baseline: ArrayLike) -> Floats:\n"
                "    p, q = smoothed_shares(current), smoothed_shares(baseline)\n"
                "    return -np.log(np.sqrt(p * q).sum(axis=-1))\n\n\n"
            )
        },
    },
    """
import numpy as np
from mlmon_dagster.metrics.drift.columns import columns_drift
from mlmon_dagster.metrics.drift.references import DriftBaseline
from mlmon_dagster.monitors.wording import NAMES
from mlmon_dagster.spec.monitors import DISTANCES, DriftMonitor
from tests.metrics.samples import categorical_binning, count
[method] = DISTANCES.keys() - KNOWN
assert DriftMonitor(method=method).method == method
values = np.array([[0] * 900 + [1] * 100, [0] * 100 + [1] * 900])
binning = categorical_binning(values)
then, now = count(binning, values[:1]), count(binning, values[1:])
known = DriftBaseline({"c": then}, seed=1, min_rows=30)
frame = columns_drift({"c": now}, known, further=[method])
[value] = frame.loc[frame["metric"] == method, "value"]
print(NAMES[method], round(value, 1))
""".replace("KNOWN", repr(set(DISTANCES))),
    "Bhattacharyya 0.5",
)

FORMAT = Toy(
    "A format of landing files",
    {
        "ingest/formats/read_pairs.py": '''"""Read lines of name=value;name=value."""

import pyarrow as pa

from mlmon_dagster.ingest.raw import RawFile, check_header, rows_of

ENDINGS = (".pairs",)


def read_pairs(path, place, wanted, options):
    """Read a file of pairs."""
    rows = [
        dict(cell.split("=", 1) for cell in line.split(";"))
        for line in path.read_text().splitlines()
    ]
    present = tuple(dict.fromkeys(name for row in rows for name in row))
    check_header(place, present, wanted)
    names = [c.source for c in wanted if c.source in present]
    arrays = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    yield RawFile(
        arrays, len(rows), present, rows_of, lines_of=lambda rows: [(row + 1,) for row in rows]
    )
''',
    },
    DECLARED
    + """
from mlmon_dagster.ingest import ingest_new, readers
Path("landing").mkdir()
Path("landing/a.pairs").write_text(
    "id=a;at=2024-01-02T00:00:00Z;guess=1.5;age=3\\n"
    "id=b;at=2024-01-02T01:00:00Z;guess=2.5;age=none\\n"
)
Path("landing/a.pairs.done").touch()
report = ingest_new(open_store(Path("store")), declare(), Path("."), readers(), now=now)
print(*(f"{f.status} {f.n_new} {f.n_bad} {f.message}".strip() for f in report.files))
""",
    "done 1 1",
)

SOURCE = Toy(
    "A kind of source",
    {
        "ingest/sources/echo.py": '''"""A source that says one event, once."""

from mlmon_dagster.ingest.sources.polling import Polled, poll, stage_lines


def poll_source(store, spec, stream, source, around, now):
    """Stage the event."""

    def read(position, folder):
        if position:
            return Polled(position, ())
        return Polled({"said": 1}, [stage_lines(folder, [source.echo.encode()], "1")])

    return poll(store, spec, stream, source.label, "echo", "echo", read, now)


def check_source(spec, stream, source, around):
    """Say that it is there."""
    return source.label
''',
        "spec/sources.py": {
            "class KafkaSource(PolledSource):\n": (
                'class EchoSource(PolledSource):\n    """One event."""\n\n    kind = "echo"\n'
                "    in_place: ClassVar[bool] = False\n"
                '    echo: str\n\n    @property\n    def label(self):\n        """A name."""\n'
                '        return "echo"\n\n    @property\n    def format(self):\n'
                '        """JSON Lines."""\n        return "jsonl"\n\n\n'
            ),
            '    "DeltaSource": ("delta",),\n': '    "EchoSource": ("echo",),\n',
            '    | Annotated[DeltaSource, Tag("DeltaSource")]\n': (
                '    | Annotated[EchoSource, Tag("EchoSource")]\n'
            ),
        },
    },
    DECLARED
    + """
from mlmon_dagster.ingest import ingest_new, readers
spec = declare({"echo": '{"id": "a", "at": "2024-01-02T00:00:00Z", "guess": 1, "age": 3}'})
store = open_store(Path("store"))
for _ in range(2):
    report = ingest_new(store, spec, Path("."), readers(), now=now)
    print(*(f"{f.status} {f.n_new} {f.n_bad}".strip() for f in report.files), end=".")
""",
    "done 1 0..",
)

RECEIVER = Toy(
    "A receiver",
    {
        "alerts/receivers/pager.py": '''"""Write every message into a file."""

from pathlib import Path

from mlmon_dagster.alerts.receivers.base import NotPosted, Posted


def connect(around):
    """Return the receiver."""
    return PagerReceiver()


class PagerReceiver:
    """Takes messages."""

    def send(self, delivery):
        """Append the text."""
        with Path(delivery.channel).open("a") as file:
            file.write(delivery.payload["plain"])
        return Posted()

    def look_up(self, delivery, since):
        """Say that nobody knows."""
        return NotPosted("no file says what was sent")

    def retract(self, delivery, posted):
        """Leave it."""
        return NotPosted("who reads the file sees both")
''',
        "spec/alerting.py": {
            "class EmailRoute(Place):\n": (
                'class PagerRoute(Place):\n    """A file."""\n\n    file: str\n\n'
                "    @property\n    def address(self):\n"
                '        """The file."""\n        return self.file\n\n\n'
            ),
            "    email: EmailRoute | None = None\n": "    pager: PagerRoute | None = None\n",
        },
    },
    DECLARED
    + """
from mlmon_dagster.alerts.dispatching import send_test
from mlmon_dagster.pipeline.receivers import receivers
spec = declare(alerts={"pager": {"file": "paged.txt"}})
project = project_from_environment(Path("."), environ={})
report = send_test(project.store, spec, now, receivers(project, [spec]))
print(report.n_sent, "this is a test" in Path("paged.txt").read_text())
""",
    "1 True",
)

ENGINE = Toy(
    "An engine",
    {
        "engines/backwards.py": '''"""Work in this process, the last part first."""

ADDRESSES = {"backwards": "backwards://host:1"}


class Engine:
    """This process."""

    name = "backwards"

    def __init__(self, address):
        """Keep the address."""
        self.address = address

    def map(self, work, parts):
        """Do the work on every part."""
        return map(work, reversed(parts))
''',
        "spec/declaration.py": {'EngineName = Literal["local", ': '"backwards", '},
    },
    DECLARED
    + """
from mlmon_dagster.engines.chosen import engine_for
spec = declare(compute={"engine": "backwards"})
project = project_from_environment(Path("."), environ={"MLMON_ENGINE": "backwards://a:1"})
engine = engine_for(project, spec, 10**6)
print(engine.name, engine.address, *engine.map(str, [1, 2]))
""",
    "backwards backwards://a:1 2 1",
)

FAMILY = Toy(
    "A monitor family",
    {
        "spec/monitors.py": {
            "class Monitors(Declared):\n": (
                'class CrowdingMonitor(Monitor):\n    """Too many."""\n\n    above: int = 9\n\n\n'
            ),
            "    versions: VersionsMonitor = VersionsMonitor()\n": (
                "    crowding: CrowdingMonitor = CrowdingMonitor()\n"
            ),
            "    for family in (\n": (
                '        DeclaredFamily("crowding", "crowding", "Too many came.", "System",\n'
                '                       5, {"": "Send fewer."}, ("profiles",),\n'
                '                       description="How many came."),\n'
            ),
        },
        "families/crowding.py": '''"""Family crowding: more predictions than anybody can use."""

from mlmon_dagster.families.family import Family, measure_profiles
from mlmon_dagster.monitors.evidence import OK, result_row
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import SERVICE


def judge(evidence):
    """Fail windows of more rows than the limit."""
    monitor = evidence.spec.monitors.crowding
    return [
        result_row(
            evidence,
            window,
            monitor,
            metric="n",
            status=monitor.severity if window["n"] > monitor.above else OK,
            message=f"{window['n']} came, the limit is {monitor.above}.",
            value=float(window["n"]),
            threshold=f"above {monitor.above}",
        )
        for window in evidence.windows
    ]


FAMILY = Family(
    FAMILIES["crowding"],
    judge,
    lambda spec: "Fails above a number.",
    measure=measure_profiles(SERVICE, lambda spec: "nothing"),
)
''',
    },
    """
import io
from pathlib import Path
from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.receivers.base import ConsoleReceiver
from mlmon_dagster.spec import load_model
from tests.defs.small_model import DAYS, land_days, land_validation, make_project, write_declaration
from tests.pipeline.looking import look
write_declaration(Path("."))
path = Path("models/churn.yaml")
said = "monitors:\\n  crowding: {above: 100, windows: 1 of 1}\\n"
path.write_text(path.read_text().replace("monitors:\\n", said))
project, spec = make_project(Path(".")), load_model(path)
land_validation(Path("."))
look(project, spec, "baseline")
land_days(Path("."), DAYS[0])
look(project, spec, "day")
text = io.StringIO()
console = ConsoleReceiver(text, hint="")
dispatch(project.store, [spec], project.now(), {"console": console, "slack": console})
print(*(line for line in text.getvalue().splitlines() if "limit is 100" in line))
""",
    "ERROR churn: 150 came, the limit is 100",
)


TOYS = (DISTANCE, FORMAT, SOURCE, RECEIVER, ENGINE, FAMILY)
# The libraries of others are imported once, the changed package by each toy's own process.
FORKING = """
import json, os, sys, traceback
import duckdb, pandas, scipy.stats
for copy, empty, said, program in json.loads(sys.argv[1]):
    if (child := os.fork()) == 0:
        os.chdir(empty)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 1)
        sys.path.insert(0, copy)
        try:
            exec(program, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the program of each toy prints, with a copy of the package that the toy is added to."""
    asked = []
    for toy in TOYS:
        folder = tmp_path_factory.mktemp("toy")
        (folder / "empty").mkdir()
        places = (_changed(toy, folder), folder / "empty", folder / "said")
        asked.append((*map(str, places), toy.tried))
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, json.dumps(asked)],
        env=_unmeasured(os.environ) | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    return {
        toy.recipe: Path(said).read_text().strip()
        for toy, (_, _, said, _) in zip(TOYS, asked, strict=True)
    }


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.recipe)
def test_a_recipe_names_the_files_that_change(toy: Toy, tmp_path: Path) -> None:
    said = _paragraph(toy.recipe)
    n_files = re.search(r"\((\d+) files?\)", said)
    for name in toy.files:
        assert f"`{name}`" in said or f"`{name.rpartition('/')[0]}/`" in said, name

    assert n_files is not None
    assert len(toy.files) == int(n_files[1])
    _changed(toy, tmp_path)  # where it says


@pytest.mark.proof
@pytest.mark.xdist_group("recipes")
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.recipe)
def test_a_recipe_is_all_that_it_takes(toy: Toy, printed: dict[str, str]) -> None:
    assert printed[toy.recipe] == toy.printed


def _paragraph(recipe: str) -> str:
    return ARCHITECTURE.partition(f"**{recipe}.**")[2].partition("\n\n")[0]


def _changed(toy: Toy, folder: Path) -> Path:
    """Add the toy to a copy of the package; return the folder that the copy is in."""
    copy = folder / "changed" / "mlmon_dagster"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.parquet"))
    for name, change in toy.files.items():
        path = copy / name
        if isinstance(change, str):
            assert not path.exists(), name
            path.write_text(change)
            continue
        text = path.read_text()
        for place, added in change.items():
            assert text.count(place) == 1, (name, place)
            text = text.replace(place, _with(place, added))
        path.write_text(text)
    return copy.parent


def _unmeasured(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a copy of the package does not count as covered or not."""
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}


def _with(place: str, added: str) -> str:
    """Put what is added before a definition, after anything else."""
    is_definition = place.startswith(("@", "def ", "class ", "    if "))
    return added + place if is_definition else place + added
