"""Every command line that help, the README or a page shows is run, on a project with a story.

Pages tell of several models; here there is one, so names, days and columns are put in place of
theirs. A page also mentions commands without their arguments, which is no line to run: what is run
of those is the example of their help.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlmon_dagster.cli import cli
from tests.cli.conftest import Command
from tests.cli.test_every_command import names_of
from tests.defs.small_model import DAYS, MODEL, NOW, customers
from tests.test_readme import commands

pytestmark = [pytest.mark.proof, pytest.mark.slow]
AT = ("--now", NOW.isoformat())
# Run until they are stopped, or make a year of another project: tests of their own run them.
LASTING = {"alerts listen", "collect", "demo", "dev", "serve"}
# What pages name, and what stands for it; in this order, whole words.
STANDS_FOR = {
    "flight_delay|checkout|loan|assistant|MODEL": MODEL,
    "--from --to": f"--from {DAYS[1]} --to {DAYS[2]}",
    "2013-12-01T00:00:00Z": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
    r"(2013|2026)-\d\d-\d\d|DAY": str(DAYS[2]),
    "temp,dest": "age,region",
    "device,hour|origin": "region",
    "JFK|LGA": "north",
    "temp|hour": "age",
    "mean_outcome/revenue": "roc_auc",
    "version:3": "baseline",
    r"FILE\.\.\.": f"landing/{MODEL}/predictions/validation.parquet",
    "FILE": "ids.txt",
    "FOLDER": "erasures",
    "ID": "p0301-0",
}
LATER = ("alerts unsilence", "model", "erase", "restore")  # in this order, what others need before
# What this project has not, as a command says; the tests of that command have a project that has.
LACKS = re.compile(
    "is in both production and (?:shadow|training)|is of version '4'|declare columns.outcomes|"
    "no objectives|column status|only what fires is acknowledged|None of these was refused|"
    "has no records of a model .* as of|has no answer in column|without ground truth is in|"
    "that takes JSON Lines|to_label.csv' does not exist"
)
ELSEWHERE = ("init", "restore")  # need a project that has nothing yet


def shown_lines() -> Iterator[str]:
    """Yield every line once: first those of help, then those of pages."""
    found: dict[str, bool] = {}
    for name in names_of(cli):
        node: click.Command = cli
        for word in name.split():
            assert isinstance(node, click.Group)
            child = node.get_command(click.Context(node), word)
            assert child is not None
            node = child
        found |= dict.fromkeys(re.findall(r"^  mlmon (.*)$", node.epilog or "", re.MULTILINE), True)
    for _, line in commands("mlmon"):
        found[re.sub(r"--(now|project) \S+ ", "", line.removeprefix("mlmon "))] = True
    yield from sorted(found, key=lambda line: [line.startswith(word) for word in LATER][::-1])


def words_of(line: str, known: dict[str, str], folder: Path) -> list[str]:
    """Return a line's words as a shell hands them over, with what is in the project."""
    line = re.split(r"\s{3,}| \| | > ", line)[0]
    for pattern, stands in {**STANDS_FOR, **known}.items():
        line = re.sub(rf"(?<![\w-])(?:{pattern})(?![\w-])", stands, line)
    words = []
    for word in shlex.split(line):
        there = sorted(map(str, folder.glob(word))) if "*" in word and "/" in word else []
        words += there or [word]
    return words


def test_every_line_of_help_the_readme_and_the_pages_runs(
    folder: Path, mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("USER", "me")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody says yes
    here = ("--project", folder, *AT)
    (folder / "erasures").mkdir()
    (folder / "ids.txt").write_text("\n".join(customers(DAYS[0])[0]["id"][:2]))
    mlmon(*here, "alerts", "deliver")
    alert = json.loads(mlmon(*here, "alerts", "list", "--format", "json").out.splitlines()[0])
    token = mlmon(*here, "collect", "token", "create", "--model", MODEL).out.split("_")[1]
    refused = next((folder / ".mlmon" / "store" / "quarantine" / MODEL).iterdir())
    known = {
        "3fa2c1|2510990b|b73afae1|ALERT": alert["fingerprint"],
        "3fa0c1|HASH": refused.name[:12],
        "78a3af2e6b2b|3f9a0c12be47": token,
    }
    groups = {name.rpartition(" ")[0] for name in names_of(cli)}
    done, wrong = set(), []
    for line in shown_lines():
        words = words_of(line, known, folder)
        if line.partition(" -")[0] in LASTING | groups or tuple(words) in done:
            continue
        done.add(tuple(words))
        if words[0] in ELSEWHERE:
            words = ["--project", str(tmp_path / f"project-{len(done)}"), *words]
            (Path(words[1]) / "models").mkdir(parents=True)
        ended = mlmon(*here, *words)
        is_mention = "Missing argument" in ended.err
        if ended.code not in (0, 1) and not is_mention and not LACKS.search(ended.err):
            wrong.append(f"mlmon {line}\n{ended.err[-500:]}")
    assert wrong == []
