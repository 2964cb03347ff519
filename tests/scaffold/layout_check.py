"""What ``mlmon init`` makes of a made-up data set, held against what a person would say of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlmon_dagster import cli
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store.state import metric_log
from tests.defs.small_model import make_project
from tests.pipeline.looking import look
from tests.scaffold.layouts import DataSet

NOW = "2026-05-01T00:00:00Z"
MOST_LINES = 2  # that a person types
PERFORMANCE = {
    "binary_classification": "accuracy", "multiclass_classification": "accuracy",
    "regression": "mae", "ranking": "ndcg",
}  # fmt: skip
# Commands whose words are read once all is computed; the first ones may find something.
TOLD: tuple[tuple[object, ...], ...] = (
    ("doctor",), ("alerts", "deliver"), ("alerts", "list"), ("metrics", "shop"),
    ("trace", "shop"), ("report", "shop"),
)  # fmt: skip
_MAY_FIND = ("doctor", "trace")
_ONE_COLUMN = ("event_time", "score", "scores", "prediction", "actual", "actual_time", "group",
               "rank", "dataset")  # fmt: skip
# What no person should read.
_RAW = re.compile(
    r"Traceback|\b[A-Z]\w+(?:Error|Exception|Warning)\b|pyarrow\.|numpy\.|<class|object at 0x|"
    r"internal error"
)


@dataclass
class Found:
    """What came of a data set.

    Attributes:
        wrong: Lines of the spec that a person has to type, each as it should be.
        raw: Lines of the output that speak of our code.
        computed: Windows with a number of performance, with the wrong lines put right.
        failed: The command that did not end well, and its output; "" for none.
    """

    name: str
    wrong: dict[str, object] = field(default_factory=dict)
    raw: list[str] = field(default_factory=list)
    computed: int = 0
    failed: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it computes with at most so many lines, and nothing raw was said."""
        few = len(self.wrong) <= MOST_LINES
        return few and self.computed > 0 and not self.raw and not self.failed


def command(*arguments: object) -> tuple[int, str]:
    """Run ``mlmon`` in this process, and return its exit code and what it said."""
    said = io.StringIO()
    before, sys.argv = sys.argv, ["mlmon", *map(str, arguments)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            cli.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return int(str(code)), said.getvalue()


def wrong_lines(made: DataSet, spec: ModelSpec) -> dict[str, object]:
    """Return the keys of a spec that a person would have to type, with what they should be."""
    wrong: dict[str, object] = {}
    if spec.task != made.task:
        wrong["task"] = made.task
    columns = spec.columns
    expected = made.roles.get("prediction_id", [made.roles.get("group"), made.roles.get("rank")])
    found: Any = columns.prediction_id
    if {*(found if isinstance(found, tuple) else [found])} != {
        *(expected if isinstance(expected, list) else [expected])
    }:
        wrong["columns.prediction_id"] = expected
    for role in _ONE_COLUMN:
        if getattr(columns, role) != made.roles.get(role):
            wrong[f"columns.{role}"] = made.roles.get(role)
    given = {feature.from_ or name for name, feature in spec.features.items()}
    wrong |= {f"features.{name}": None for name in sorted(given & made.never)}
    wrong |= {f"features.{name}": {} for name in sorted(made.features - given)}
    says = {word.lower() for word in spec.labels.positive} if spec.labels else set()
    if made.positive and made.positive not in says:
        wrong["labels"] = made.positive
    return wrong


def checked(made: DataSet, folder: Path, *, computes: bool = True) -> Found:
    """Write a data set, let ``init`` read it, and compute what its spec says.

    Args:
        made: The data set.
        folder: An empty one.
        computes: Whether to take the files in and compute.
    """
    found = Found(made.name)
    files = made.write(folder)
    path = folder / "models" / "shop.yaml"
    if not _ended(found, folder, ("init", *files, "--model", "shop"), ("validate",)):
        return found
    found.wrong = wrong_lines(made, load_model(path))
    if not computes:
        return found
    _typed(path, found.wrong)
    if not _ended(found, folder, ("validate",), ("ingest", "shop")):
        return found
    project = make_project(folder, lambda: dt.datetime(2026, 5, 1, tzinfo=dt.UTC))
    look(project, load_model(path), "first")
    metric = PERFORMANCE[made.task]
    if "score" in made.roles and "prediction" not in made.roles:
        metric = "roc_auc"
    values = metric_log.newest(project.store.state, "shop", metric=metric)["value"]
    project.store.close()
    found.computed = int(values.notna().sum())
    _ended(found, folder, *TOLD)
    return found


def _ended(found: Found, folder: Path, *commands: tuple[object, ...]) -> bool:
    """Run commands, note what they said that nobody should read, and say whether all ended well."""
    for words in commands:
        code, said = command("--project", folder, "--now", NOW, *words)
        found.raw += [line for line in said.splitlines() if _RAW.search(line)]
        if code and words[0] not in _MAY_FIND:
            found.failed = f"mlmon {words[0]}: {said.strip()[-1500:]}"
            return False
    return True


def _typed(path: Path, wrong: dict[str, object]) -> None:
    """Put wrong lines right, as far as a line says all of it."""
    spec = yaml.safe_load(path.read_text())
    for key, value in wrong.items():
        *above, last = key.split(".", 1)
        place = spec[above[0]] if above else spec
        if value is None or value == {}:
            place.pop(last, None)
        else:
            place[last] = value
    if "actual" in spec["columns"]:
        spec["source"].setdefault("actuals", spec["source"]["predictions"])
    path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
