"""Every kind of broken file is refused by name, with its reason, and hurts no other file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest import IngestReport, render_report, replay_file
from mlmon_dagster.ingest.report import FILE_REASONS, FileReport
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.tables.kept_rows import locate_folder
from tests.ingest.landing import (
    NOW,
    PREDICTIONS,
    World,
    credit_spec,
    csv_bytes,
    events,
    ingest,
    jsonl_bytes,
    land,
    parquet_bytes,
)

GOOD = events(12)
CSV = csv_bytes(events(6, first=100))
JSONL = jsonl_bytes(events(6, first=100))
PARQUET = parquet_bytes(events(6, first=100))


def _with_text(column: str, text: str) -> Callable[[], bytes]:
    return lambda: csv_bytes(events(20, **{column: [text] * 20}))


def _parquet_column(name: str, values: pa.Array) -> bytes:
    table = pa.Table.from_pandas(events(len(values)))
    return parquet_bytes(table.set_column(table.column_names.index(name), name, values))


def _twice(first: str, second: str) -> bytes:
    values = [pa.array(["a"]), pa.array([0.5]), pa.array([0.5])]
    return parquet_bytes(pa.Table.from_arrays(values, ["id", first, second]))


def _flipped() -> bytes:
    content = bytearray(parquet_bytes(events(400)))
    content[300] ^= 0x10
    return bytes(content)


# name, content, reason, what the message must say besides the file's name
CASES: list[tuple[str, bytes, str, list[str]]] = [
    ("cut.parquet", PARQUET[:-9], "truncated", ["footer", "write it again"]),
    ("head.parquet", PARQUET[:200], "truncated", ["footer"]),
    ("junk.parquet", b"\x00\x01garbage" * 40, "unreadable", ["PAR1", "Write the file again"]),
    ("junk2.parquet", b"PAR1" + b"garbage" * 40 + b"PAR1", "unreadable", ["damaged Parquet"]),
    ("flip.parquet", _flipped(), "unreadable", ["damaged Parquet"]),
    ("pickle.parquet", b"\x80\x04\x95cposix\nsystem\n.", "unreadable", ["PAR1"]),
    ("empty.parquet", b"", "empty_file", ["0 bytes"]),
    ("empty.csv", b"", "empty_file", ["0 bytes", "delete it"]),
    ("empty.csv.gz", gzip.compress(b""), "empty_file", ["decompressed"]),
    ("cut.csv.gz", gzip.compress(CSV)[:-20], "truncated", ["gzip", "rename"]),
    ("tail.csv.gz", gzip.compress(CSV) + b"junk", "unreadable", ["gzip"]),
    ("cut.csv", CSV[:-9], "cut_line", ["line 7", "line end"]),
    ("number.csv", CSV.rstrip(b"\n"), "cut_line", ["line 7"]),
    ("quote.csv", b'"' + CSV, "malformed_line", ["line 1", "header", "closing quote"]),
    ("head.csv", b'"id"2' + CSV[2:], "malformed_line", ["line 1", "cell 1", "closing quote"]),
    ("ragged.csv", CSV + b"one,two\n" * 11, "too_many_bad", ["11 of 17", "malformed_line"]),
    ("latin.csv", CSV.replace(b"north", b"n\xf6rd"), "not_utf8", ["line 2", "UTF-8"]),
    ("utf16.csv", CSV.decode().encode("utf-16"), "not_utf8", ["UTF-16"]),
    ("semi.csv", CSV.replace(b",", b";"), "missing_column", ["separated by ';'", "commas"]),
    ("typo.csv", CSV.replace(b"score", b"scroe"), "missing_column", ["'score'", "'scroe'"]),
    ("case.csv", CSV.replace(b"score", b"SCORE"), "missing_column", ["Did you mean 'SCORE'"]),
    ("noid.parquet", parquet_bytes(events(3).drop(columns="id")), "missing_column", ["'id'"]),
    (
        "nofeature.parquet",
        parquet_bytes(events(3).drop(columns="region")),
        "missing_column",
        ["'region'", "Add the column"],
    ),
    ("twice.csv", CSV.replace(b"version", b"score"), "duplicate_column", ["twice", "own name"]),
    ("twice.parquet", _twice("score", "score"), "duplicate_column", ["'score'"]),
    ("collide.parquet", _twice("score", "Score"), "duplicate_column", ["other case", "'Score'"]),
    ("collide.csv", CSV.replace(b"version", b"Score"), "duplicate_column", ["other case"]),
    ("cut.jsonl", JSONL[:-30], "cut_line", ["line 6", "cut off"]),
    ("bad.jsonl", JSONL + b"{'a': 1}\n", "malformed_json", ["line 7", "JSON object"]),
    ("list.jsonl", JSONL + b"[1, 2]\n", "malformed_json", ["line 7", "list"]),
    ("deep.jsonl", JSONL + b"[" * 100_000 + b"\n", "malformed_json", ["line 7"]),
    ("twice.jsonl", b'{"id": "a", "id": "b"}\n', "duplicate_column", ["line 1", "twice"]),
    ("latin.jsonl", JSONL.replace(b"north", b"n\xf6rd"), "not_utf8", ["line 1", "UTF-8"]),
    ("nokey.jsonl", b'{"id": "a"}\n', "missing_column", ["'score'"]),
    (
        "floatid.parquet",
        _parquet_column("id", pa.array([1.0, 2.0])),
        "wrong_column_type",
        ["'id' is double", "text or an integer"],
    ),
    (
        "epoch.parquet",
        _parquet_column("at", pa.array([1706774400, 1706774401])),
        "wrong_column_type",
        ["'at' is int64", "ISO 8601"],
    ),
    (
        "nested.parquet",
        _parquet_column("score", pa.array([[0.5], [0.5]])),
        "wrong_column_type",
        ["'score'", "a number"],
    ),
    (
        "time.parquet",
        _parquet_column("region", pa.array([0, 1], pa.timestamp("us", "UTC"))),
        "wrong_column_type",
        ["'region'", "text"],
    ),
    ("words.csv", _with_text("score", "high")(), "too_many_bad", ["20 of 20", "wrong_type"]),
    ("naive.csv", _with_text("at", "2024-02-01 08:00")(), "too_many_bad", ["naive_time in 'at'"]),
    ("epoch.csv", _with_text("at", "1706774400")(), "too_many_bad", ["wrong_type in 'at'"]),
    ("what.xlsx", b"PK\x03\x04", "unknown_format", [".parquet", "'format'"]),
]


@dataclass(frozen=True)
class Landed:
    """What one ingest made of every broken file at once, and of a good one among them."""

    store: Store
    project: Path
    report: IngestReport
    by_name: dict[str, FileReport]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landed]:
    folder = tmp_path_factory.mktemp("bad_files")
    store = open_store(folder / "store")
    for name, content, _, _ in CASES:
        land(folder, f"{PREDICTIONS}/{name}", content)
    land(folder, f"{PREDICTIONS}/good.parquet", GOOD)
    report = ingest(store, credit_spec(), folder)
    yield Landed(store, folder, report, {Path(file.path).name: file for file in report.files})
    store.close()


@pytest.mark.parametrize(
    ("name", "content", "reason", "said"), CASES, ids=[case[0] for case in CASES]
)
def test_broken_file_is_quarantined_with_reason_place_and_next_step(
    landed: Landed, name: str, content: bytes, reason: str, said: list[str]
) -> None:
    broken = landed.by_name[name]

    assert (broken.status, broken.reason) == ("quarantined", reason), broken.message
    for text in [f"{PREDICTIONS}/{name}", FILE_REASONS[reason], *said]:
        assert text in broken.message
    assert f"[{reason}] {broken.message}" in render_report(landed.report)
    copies = locate_folder(landed.store, "credit").path.glob(f"{broken.sha256}.*")
    assert {copy.read_bytes() for copy in copies} == {content}
    assert (landed.project / PREDICTIONS / name).read_bytes() == content, "landing is not ours"


ROW = "anna,anna,2024-02-01T00:00:00Z,0.25,anna@example.com\n"
HEADERLESS = {
    "headerless.csv": ROW * 2,
    "semicolons.csv": ROW.replace(",", ";") * 2,
    "keys.jsonl": '{"anna@example.com": 1, "anna": 2}\n',
    # A header in which somebody's value stands where a name belongs.
    "mixed.csv": "id,at,anna@example.com,31\n",
}


def test_a_row_that_stands_where_a_header_belongs_is_never_quoted(world: World) -> None:
    for name, content in HEADERLESS.items():
        world.land(f"{PREDICTIONS}/{name}", content.encode())

    report = world.ingest()

    with world.store.state.connect() as conn:
        kept = repr(conn.execute(sa.text("SELECT * FROM ingest_file")).all())
    assert "anna" not in render_report(report) + kept
    by_name = {Path(file.path).name: file for file in report.files}
    assert {file.reason for file in report.files} == {"missing_column"}
    message = by_name["headerless.csv"].message
    assert "columns 'id', 'at', 'dataset', 'version'" in message
    assert "among the 5 of the file, which seems to have no header" in message
    assert "separated by ';'" in by_name["semicolons.csv"].message
    assert "Present: 'id', 'at' and 2 that are no plain names" in by_name["mixed.csv"].message


def test_good_file_among_broken_ones_is_ingested_whole(landed: Landed) -> None:
    good = landed.by_name["good.parquet"]

    assert (good.status, good.rows_in, good.n_new) == ("done", 12, 12)
    assert landed.store.event_log(credit_spec()).rows("predictions").num_rows == 12


def test_broken_files_are_not_looked_at_again(landed: Landed) -> None:
    assert ingest(landed.store, credit_spec(), landed.project).files == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("header.csv", CSV.split(b"\n")[0] + b"\n"),
        ("none.parquet", parquet_bytes(events(12).head(0))),
        ("blank.jsonl", b"\n\n"),
    ],
)
def test_file_without_rows_is_done_with_a_warning(world: World, name: str, content: bytes) -> None:
    world.land(f"{PREDICTIONS}/{name}", content)

    report = world.ingest()

    (file,) = report.files
    assert (file.status, file.reason, file.rows_in) == ("done", "no_rows", 0)
    assert "no rows" in file.warnings[0]
    assert report.windows == []


def test_limits_are_checked_before_parsing(world: World) -> None:
    spec = credit_spec(source__predictions__max_bytes=5_000, source__predictions__max_rows=15)
    world.land(f"{PREDICTIONS}/bytes.csv", csv_bytes(events(100)))
    bomb = gzip.compress(b"0" * 1_000_000)
    world.land(f"{PREDICTIONS}/bomb.csv.gz", bomb)
    many = pa.table({name: pa.nulls(10_000) for name in events(1).columns})
    world.land(f"{PREDICTIONS}/rows.parquet", parquet_bytes(many))
    world.land(f"{PREDICTIONS}/lines.jsonl", jsonl_bytes(events(16)))
    world.land(f"{PREDICTIONS}/fine.csv", csv_bytes(events(3)))

    report = world.ingest(spec)

    found = {Path(f.path).name: (f.reason, f.message) for f in report.of("quarantined")}
    assert (
        found["bytes.csv"][0] == found["bomb.csv.gz"][0] == found["lines.jsonl"][0] == "too_large"
    )
    assert "10,000 rows" in found["rows.parquet"][1]
    assert "max_bytes = 5,000" in found["bytes.csv"][1]
    assert "decompressed" in found["bomb.csv.gz"][1]
    assert "max_rows = 15" in found["lines.jsonl"][1]
    assert report.total("n_new") == 3


def test_unsafe_column_names_are_shown_harmless_and_not_kept(world: World) -> None:
    names = ['x"; DROP TABLE ingest_file; --', "a\nb", "\x1b[31mred", "<!channel>", "n" * 5_000]
    frame = events(6)
    for name in names:
        frame[name] = 1
    world.land(f"{PREDICTIONS}/unsafe.parquet", frame)

    report = world.ingest()

    (file,) = report.files
    assert (file.status, file.n_new) == ("done", 6)
    text = render_report(report)
    assert "\x1b" not in text
    assert "a\\nb" in text
    assert max(map(len, text.splitlines())) < 1_000
    kept = world.store.event_log(credit_spec()).rows("predictions").column_names
    assert not set(names) & set(kept)


def test_file_that_breaks_the_program_is_quarantined_after_three_attempts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlmon_dagster.ingest import cycle

    parse = cycle.parse_file

    def broken(staged: object, *rest: object) -> object:
        if staged.name.endswith("poison.csv"):  # type: ignore[attr-defined]
            raise ZeroDivisionError("cannot read 'anna@example.com'")
        return parse(staged, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cycle, "parse_file", broken)
    spec = credit_spec()
    world.land(f"{PREDICTIONS}/poison.csv", csv_bytes(events(3, first=50)))
    world.land(f"{PREDICTIONS}/good.csv", csv_bytes(events(3)))

    first, second, third = (world.ingest(spec, run_id=f"run{i}") for i in range(3))

    assert first.total("n_new") == 3
    assert [f.status for f in first.of("failed")] == ["failed"]
    assert [f.status for f in second.files] == ["failed"]
    (file,) = third.files
    assert (file.status, file.reason) == ("quarantined", "failed")
    assert "3 attempts" in file.message
    assert "ZeroDivisionError at cycle:" in file.message
    with world.store.state.connect() as conn:
        kept = repr(conn.execute(sa.text("SELECT * FROM ingest_file")).all())
    assert "anna" not in "".join(map(render_report, (first, second, third))) + kept


def test_refused_content_under_another_name_is_refused_by_that_name(world: World) -> None:
    world.land(f"{PREDICTIONS}/cut.parquet", PARQUET[:-9])
    world.ingest()
    world.land(f"{PREDICTIONS}/again.parquet", PARQUET[:-9])

    (file,) = world.ingest().files

    assert (file.status, file.reason) == ("quarantined", "truncated")
    assert f"{PREDICTIONS}/again.parquet: the Parquet footer is missing" in file.message
    assert len(world.files()) == 1


def test_file_renamed_to_what_it_is_gets_another_chance(world: World) -> None:
    path = world.land(f"{PREDICTIONS}/really.parquet", CSV)
    assert world.ingest().files[0].status == "quarantined"
    path.rename(path.with_suffix(".csv"))

    (file,) = world.ingest().files

    assert (file.status, file.n_new) == ("done", 6)


def test_replayed_file_is_ingested_once_its_cause_is_removed(world: World) -> None:
    path = world.land(f"{PREDICTIONS}/words.csv", csv_bytes(events(20, age=["old"] * 20)))
    refused = world.ingest().files[0]
    assert refused.reason == "too_many_bad"
    path.unlink()
    mended = credit_spec(features__age={"type": "categorical"})

    replay_file(world.store, mended, refused.sha256[:12], now=NOW)
    (file,) = world.ingest(mended).files

    assert (file.status, file.n_new, file.n_bad) == ("done", 20, 0)
    assert world.letters(mended) == []


def test_replay_refuses_a_hash_that_names_no_file(store: Store) -> None:
    with pytest.raises(ConfigError, match="0 files of credit"):
        replay_file(store, credit_spec(), "abc", now=NOW)
