"""Every command, walked from the command line's own tree, beside secrets and personal values.

A new command fails here until it is given arguments, or left out with a reason. The spec that
`mlmon init` proposes is not looked through: it quotes the commonest values of the columns that it
does not take for personal, for the person who reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.cli import cli
from tests.cli.conftest import Command
from tests.defs.canaries import DAYS, NOW, PARTS, SECRETS, canaries_in, sinks, told
from tests.defs.small_model import MODEL, write_declaration

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("canaries")]

LEFT_OUT = {
    "alerts listen": "waits for clicks until it is stopped; tests/alerts/test_slack_buttons.py",
    "collect": "serves until it is stopped; what it logs is looked through in tests/push",
    "dev": "starts Dagster and runs until it is stopped",
    "demo": "makes a project and a model of its own, in minutes",
    "rows": "shows rows by their ids, since that is asked for; what is masked: tests/cli/test_rows",
    "serve": "serves until it is stopped; what its pages show is looked through in tests/serve",
    "store head": "shows rows, since that is asked for",
    "store sql": "shows rows, since that is asked for",
}
# In this order: later ones take the model apart.
WORDS = """
validate
doctor --deep
ingest
ingest churn --retry
ingest churn --replay REFUSED
run churn PERIOD
report churn
trace churn PERIOD
compare churn PERIOD
skew churn PERIOD
effect churn PERIOD --of actual
budget churn PERIOD
backtest churn PERIOD
expectations churn --export PAGE
labels draw churn --output LABELS
labels take churn ANSWERS
metrics churn
metrics churn --format json
drill churn --windows 4 --faults unseen,shift,unit,stuck,one_slice
drill churn --windows 4 --faults nulls,volume --format json
watchdog
init LANDED --model other --output OUT
schema
status
status churn
model history churn
model reopen churn PERIOD --author me
model close churn PERIOD --author me
model rebuild-history churn
model rebuild churn --dry-run --author me
baseline promote churn PERIOD --author me
baseline list churn
event add churn sale PERIOD --every year --author me
event list churn
event remove churn sale
baseline undo churn --author me
alerts list
alerts list --format json
alerts show ALERT
alerts history
alerts ack ALERT --author me
alerts silence --model churn --for 1h --author me
alerts silences --all
alerts unsilence 1 --author me
alerts deliver
alerts requeue --all
alerts digest
alerts digest --print
alerts test
collect token create --model churn
collect token list
collect token revoke TOKEN
store describe
store maintain
store repair churn --dry-run
store repair churn
erase churn --ids-file IDS --dry-run
erase churn --ids-file IDS --yes --author me
erase churn --ids-file IDS --prove
erase churn --list
backup BACKUP
restore BACKUP --verify
--project EMPTY restore BACKUP
model remove churn --yes --author me
"""
LINES = WORDS.strip().splitlines()
PERIOD = ("--from", "2024-03-03", "--to", "2024-03-03")
# Commands that say that something needs attention: files of the project are broken, nobody
# listens for messages, there is no other version or source of features to compare with, no
# objective is declared, and nothing is left to label.
ATTENTION = {
    "doctor --deep",
    "ingest churn --retry",
    "ingest churn --replay REFUSED",
    "alerts test",
    "compare churn PERIOD",
    "skew churn PERIOD",
    "budget churn PERIOD",
    "labels draw churn --output LABELS",
}
WITHOUT_DATABASE = {"validate": 0, "schema": 0, "doctor --deep": 1}  # and their exit codes


def names_of(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the commands of a tree that can be run."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    if command.invoke_without_command:
        yield " ".join(path)
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from names_of(found, (*path, name))


def test_no_command_is_forgotten() -> None:
    names = set(names_of(cli))
    longest_first = sorted(names, key=len, reverse=True)
    lines = [line.removeprefix("--project EMPTY ") for line in LINES]
    given = {next(n for n in longest_first if f"{line} ".startswith(f"{n} ")) for line in lines}

    assert names == given | set(LEFT_OUT)
    assert not given & set(LEFT_OUT)


@pytest.fixture
def secret_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set addresses that nobody listens on, with a secret wherever one may be in them."""

    def address(scheme: str, name: str) -> str:
        user, password, path, query, fragment = (SECRETS[f"{name}{part}"] for part in PARTS)
        # The others are refused with a user in them: tests/cli/test_addresses.py.
        at = f"{user}:{password}@" if scheme == "smtp" else ""
        return f"{scheme}://{at}127.0.0.1:1/{path}?k={query}#{fragment}"

    monkeypatch.setenv("MLMON_NOW", NOW.isoformat())
    monkeypatch.setenv("MLMON_SLACK_TOKEN", SECRETS["TOKEN"])
    monkeypatch.setenv("MLMON_SLACK_API_URL", address("http", "SLACK"))
    monkeypatch.setenv("MLMON_SMTP_URL", address("smtp", "MAIL"))
    monkeypatch.setenv("MLMON_MAIL_FROM", "mlmon@example.com")
    monkeypatch.setenv("MLMON_HEARTBEAT_URL", address("http", "BEAT"))
    monkeypatch.setenv("HOOK_URL", address("http", "HOOK"))
    monkeypatch.setenv("HOOK_KEY", SECRETS["HOOKKEY"])
    monkeypatch.setenv("MLMON_S3_SECRET_ACCESS_KEY", SECRETS["S3"])


@pytest.mark.proof
@pytest.mark.usefixtures("secret_addresses")
def test_no_command_prints_a_secret_or_a_value_of_a_person(
    mlmon: Command,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = told(tmp_path_factory.getbasetemp()).folder
    landed = folder / "landing" / MODEL / "predictions"
    (tmp_path / "empty" / "models").mkdir(parents=True)
    ids = pq.read_table(landed / f"{DAYS[0]}.parquet")["id"].to_pylist()[-2:]
    (tmp_path / "ids").write_text("\n".join(ids))
    (tmp_path / "answers").write_text(f"id,left\n{ids[0]},1\n")
    refused = max((folder / ".mlmon" / "store" / "quarantine" / MODEL).glob("*.csv"))
    words: dict[str, list[object]] = {
        "PERIOD": list(PERIOD),
        "LANDED": [landed / "validation.parquet"],
        "REFUSED": [refused.name[:12]],
        **{
            w: [tmp_path / w.lower()]
            for w in ["IDS", "OUT", "PAGE", "BACKUP", "EMPTY", "LABELS", "ANSWERS"]
        },
    }
    hits, ends = [], {}
    for line in LINES:
        if "ALERT" in line:
            listed = mlmon("--project", folder, "alerts", "list", "--format", "json").out
            words["ALERT"] = [json.loads(listed.splitlines()[0])["fingerprint"]]
        given = [part for word in line.split() for part in words.get(word, [word])]
        ended = mlmon("--project", folder, *given)
        ends[line] = ended.code
        if "create" in line:
            words["TOKEN"] = [ended.out.split("_")[1]]
        hits += [(line, name) for name in canaries_in((ended.out + ended.err).encode())]
    hits += [(place, name) for place, text in sinks(folder) for name in canaries_in(text)]

    assert hits == []
    assert {line for line, code in ends.items() if code} == ATTENTION


def test_no_command_prints_a_secret_of_a_database_that_is_down(
    mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_declaration(tmp_path)
    password, query = SECRETS["DBPASSWORD"], SECRETS["DBQUERY"]
    url = f"postgresql://me:{password}@127.0.0.1:1/state?password={query}&connect_timeout=1"
    monkeypatch.setenv("MLMON_DB_URL", url)
    words: dict[str, tuple[object, ...]] = {"PERIOD": PERIOD}
    for word in ("IDS", "BACKUP"):
        (tmp_path / word.lower()).write_text("x")
        words[word] = (tmp_path / word.lower(),)
    lines = [line for line in LINES if not line.startswith("--project")]
    hits, ends = [], {}
    for line in lines:
        ended = mlmon("--project", tmp_path, *(p for w in line.split() for p in words.get(w, (w,))))
        ends[line] = ended.code
        hits += [(line, name) for name in canaries_in((ended.out + ended.err).encode())]

    assert hits == []
    assert {line: code for line, code in ends.items() if code != 2} == WITHOUT_DATABASE
