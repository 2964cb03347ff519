"""What was refused keeps its bytes, and is read again once the spec that refused it changed."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from mlmon_dagster.ingest import render_report, replay_file
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import open_store
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.store.erasure.places import find_places, find_traces
from mlmon_dagster.store.tables import kept_rows
from mlmon_dagster.store.upkeep.maintenance import delete_by_age
from tests import crash_steps, forked
from tests.ingest.landing import (
    ACTUALS,
    NOW,
    PREDICTIONS,
    World,
    credit_spec,
    csv_bytes,
    events,
    everything,
    files_of,
    ingest,
    jsonl_bytes,
    land,
    letters_of,
    log_content,
    parquet_bytes,
    record_content,
    truths,
)
from tests.ingest.test_exactly_once import ingest_until

COUNTERS = ("n_new", "n_duplicate", "n_conflict", "n_bad")
OLD = 'old,\n"'  # an age that is no number, until it is declared to stand for none


def _spec(mended: bool = False, **source: Any) -> ModelSpec:
    nulls = {"null_tokens": [OLD]} if mended else {}
    found = {"max_bad_rate": 0.3, **nulls, **source}
    return credit_spec(**{f"source__predictions__{name}": v for name, v in found.items()})


def _csv_spec(mended: bool = False, **source: Any) -> ModelSpec:
    return _spec(mended, multiline=True, **source)


def _frame(n: int = 200, every: int = 7) -> pd.DataFrame:
    """Return events of which each seventh has an age that is no number, over two lines."""
    ages = [OLD if i % every == 0 else str(i) for i in range(n)]
    return events(n, age=ages)


def _headless(frame: pd.DataFrame) -> bytes:
    return csv_bytes(frame).split(b"\n", 1)[1]


def _views(frame: pd.DataFrame) -> bytes:
    """Write Parquet whose texts are views, as Polars does."""
    table = pa.Table.from_pandas(frame)
    views = [pa.string_view() if pa.types.is_large_string(t) else t for t in table.schema.types]
    assert pa.string_view() in views
    return parquet_bytes(table.cast(pa.schema(list(zip(table.column_names, views, strict=True)))))


def _kserve(frame: pd.DataFrame) -> bytes:
    """Write requests of two rows each, all requests first, then all responses."""
    rows = [json.loads(line) for line in jsonl_bytes(frame).splitlines()]
    requests, responses = [], []
    for start in range(0, len(rows), 2):
        pair = rows[start : start + 2]
        inputs = [
            {"name": name, "shape": [len(pair)], "datatype": "BYTES",
             "data": [row[name] for row in pair]}
            for name in ("age", "region", "member", "dataset", "version")
        ]  # fmt: skip
        outputs = [
            {"name": name, "shape": [len(pair)], "datatype": "FP64",
             "data": [row[name] for row in pair]}
            for name in ("score", "decision")
        ]  # fmt: skip
        request = {"type": "org.kubeflow.serving.inference.request", "id": f"r{start}",
                   "time": pair[0]["at"], "data": {"inputs": inputs}}  # fmt: skip
        response = {"type": "org.kubeflow.serving.inference.response", "id": f"r{start}",
                    "time": pair[0]["at"], "data": {"outputs": outputs}}  # fmt: skip
        requests.append(json.dumps(request))
        responses.append(json.dumps(response))
    return ("\n".join(requests + responses) + "\n").encode()


def _kserve_spec(mended: bool) -> ModelSpec:
    columns = {
        "prediction_id": "id", "event_time": "time", "score": "outputs.score",
        "prediction": "outputs.decision", "actual": "defaulted", "actual_time": "known_at",
        "dataset": "inputs.dataset",
    }  # fmt: skip
    return _spec(mended, format="kserve").model_copy(
        update={"columns": type(credit_spec().columns).model_validate(columns)}
    )


HEADER = tuple(events(1).columns)
FORMATS: dict[str, tuple[str, Callable[[pd.DataFrame], bytes], Callable[[bool], ModelSpec]]] = {
    "csv": ("a.csv", csv_bytes, _csv_spec),
    "headerless csv": ("a.csv", _headless, lambda m: _csv_spec(m, header=list(HEADER))),
    "gzipped csv": ("a.csv.gz", lambda f: gzip.compress(csv_bytes(f)), _csv_spec),
    "json lines": ("a.jsonl", jsonl_bytes, _spec),
    "parquet": ("a.parquet", parquet_bytes, _spec),
    "parquet of views": ("a.parquet", _views, _spec),
    "kserve": ("a.json", _kserve, _kserve_spec),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_refused_rows_of_any_format_are_taken_in_once_the_spec_is_mended(
    tmp_path: Path, kind: str
) -> None:
    name, written, spec_of = FORMATS[kind]
    content, project = written(_frame()), tmp_path / "project"
    land(project, f"{PREDICTIONS}/{name}", content)
    store, clean = open_store(tmp_path / "store"), open_store(tmp_path / "clean")
    before = ingest(store, spec_of(False), project)
    assert [(f.status, f.rows_in, f.n_bad) for f in before.files] == [("done", 200, 29)]
    shutil.rmtree(project / "landing")

    after = ingest(store, spec_of(True), project)

    (file,) = after.files
    assert (file.is_again, file.rows_in, file.n_new, file.n_bad) == (True, 29, 29, 0)
    assert "since the spec changed" in render_report(after).splitlines()[1]
    land(project, f"{PREDICTIONS}/{name}", content)
    ingest(clean, spec_of(True), project)
    assert log_content(store, spec_of(True), provenance=False) == log_content(
        clean, spec_of(True), provenance=False
    )
    numbers = store.event_log(spec_of(True)).rows("predictions", ["row_number"])
    assert sorted(numbers["row_number"].to_pylist()) == list(range(200))
    assert record_content(store, spec_of(True)) == record_content(clean, spec_of(True))
    (row,) = files_of(store, spec_of(True))
    assert [row[c] for c in ("rows_in", *COUNTERS)] == ["200", "200", "0", "0", "0"]
    assert letters_of(store, spec_of(True)) == []
    assert [f.status for f in ingest(store, spec_of(True), project).files] == ["duplicate"]
    assert kept_rows.locate_folder(store, "credit").below() == []
    store.close()
    clean.close()


def test_small_file_of_bad_rows_alone_is_not_lost(world: World) -> None:
    world.land(f"{PREDICTIONS}/a.csv", events(6, age=[OLD] * 6))
    strict, mended = credit_spec(source__predictions__multiline=True), _csv_spec(mended=True)
    report = world.ingest(strict)
    assert report.has_refusals
    world.land(f"{PREDICTIONS}/b.csv", events(6, age=[OLD] * 6))

    (again,) = world.ingest(strict).files
    assert "6 of its rows were refused and are kept" in again.message
    (file,) = [f for f in world.ingest(mended).files if f.is_again]

    assert (file.n_new, file.n_bad) == (6, 0)
    assert not world.ingest(mended).has_refusals


def test_rows_that_stay_bad_stay_kept_and_keep_their_places(world: World) -> None:
    spec = _spec()
    frame = _frame(60)
    frame["score"] = frame["score"].astype(object)
    frame.loc[14, "score"] = "high"
    world.land(f"{PREDICTIONS}/a.jsonl", jsonl_bytes(frame))
    world.ingest(spec)

    report = world.ingest(_spec(mended=True))

    (file,) = report.files
    assert (file.rows_in, file.n_new, file.n_bad) == (9, 8, 1)
    assert report.has_refusals
    assert "a.jsonl, line 15, column 'score'" in file.bad_rows[0]
    (letter,) = world.letters(spec)
    assert (letter["row_number"], letter["reason"]) == ("14", "wrong_type")
    other = _spec(mended=True, null_tokens=["none"])
    (row,) = world.files(spec)
    assert [row[c] for c in ("rows_in", *COUNTERS)] == ["60", "59", "0", "0", "1"]
    assert world.ingest(_spec(mended=True)).files == ()
    (last,) = world.ingest(other).files  # read differently, and refused once more
    assert (last.n_new, last.n_bad) == (0, 1)


def test_rows_taken_in_meanwhile_are_duplicates(world: World) -> None:
    world.land(f"{PREDICTIONS}/a.csv", _frame(60))
    world.ingest(_csv_spec())
    sound = _frame(60)
    sound["age"] = [str(i) for i in range(60)]
    world.land(f"{PREDICTIONS}/mended.csv", sound)
    world.ingest(_csv_spec())

    (file,) = world.ingest(_csv_spec(mended=True)).files

    assert (file.n_new, file.n_duplicate, file.n_conflict) == (0, 0, 9)
    assert log_content(world.store, _csv_spec(), provenance=False)


def test_whole_files_are_read_again_by_themselves_too(world: World) -> None:
    path = world.land(f"{PREDICTIONS}/a.csv", events(20).rename(columns={"score": "p"}))
    world.land(f"{ACTUALS}/a.csv", truths(12, defaulted=["x"] * 12))
    report = world.ingest()
    assert [f.reason for f in report.files] == ["missing_column", "too_many_bad"]
    path.unlink()

    assert world.ingest().files == ()
    (file,) = world.ingest(credit_spec(columns__score="p")).files

    assert (file.path, file.n_new) == (f"{PREDICTIONS}/a.csv", 20)
    assert len(kept_rows.locate_folder(world.store, "credit").below()) == 1


def test_what_the_clock_refused_is_read_again_by_itself_at_longer_and_longer_intervals(
    world: World,
) -> None:
    late = [pd.Timestamp("2024-03-01T18:00:00Z")] * 3
    world.land(f"{PREDICTIONS}/a.csv", events(3, at=late))
    new = [
        [file.n_new for file in world.ingest(now=NOW + dt.timedelta(hours=hours)).files]
        for hours in (0, 0.5, 1, 1.5, 2, 3.5, 4, 7.5, 8)
    ]  # fmt: skip

    assert new == [[0], [], [0], [], [0], [], [0], [], [3]]


def test_retry_reads_again_at_once_what_the_clock_refused(world: World) -> None:
    late = [pd.Timestamp("2024-03-01T12:40:00Z")] * 3
    world.land(f"{PREDICTIONS}/a.csv", events(3, at=late))
    spec, later = credit_spec(time__skew_tolerance="5m"), NOW + dt.timedelta(minutes=45)
    world.ingest(spec)
    assert world.ingest(spec, now=later).files == ()

    (file,) = world.ingest(spec, now=later, retry=True).files

    assert (file.n_new, file.n_bad) == (3, 0)


def test_a_file_refused_twice_came_when_it_came_first(world: World) -> None:
    """The window that reports it is the last complete one before it came."""
    world.land(f"{PREDICTIONS}/cut.csv", b"id,ti")
    world.ingest()
    (first,) = world.files()
    world.ingest(now=NOW + dt.timedelta(days=40), retry=True)
    (again,) = world.files()

    assert (first["status"], again["status"]) == ("quarantined", "quarantined")
    assert again["finished_at"] > first["finished_at"]
    assert again["first_seen"] == first["first_seen"]
    world.ingest(now=NOW + dt.timedelta(days=41))
    assert world.files() == [again]  # and is not read at every look


def test_replay_takes_the_refused_rows_of_one_file(world: World) -> None:
    file = world.take_in(events(3, score=[7.0] * 3))
    replay_file(world.store, credit_spec(), file.sha256[:12], now=NOW)

    (again,) = world.ingest().files

    assert (again.is_again, again.n_bad) == (True, 3)


def test_rows_that_the_mended_spec_cannot_read_at_all_stay_kept(world: World) -> None:
    world.land(f"{PREDICTIONS}/a.csv", events(3, score=[7.0] * 3))
    world.ingest()
    worse = credit_spec(features__colour={"type": "categorical"})

    report = world.ingest(worse)

    assert report.has_refusals
    (file,) = report.files
    assert (file.status, file.reason) == ("failed", "missing_column")
    assert "stay as they are" in file.message
    assert world.ingest(worse).files == ()
    (row,) = world.files(worse)
    assert (row["status"], row["n_bad"]) == ("done", "3")
    assert world.ingest().files[0].n_bad == 3


def test_no_value_and_no_guessable_hash_of_a_refused_row_leaves_its_bytes(tmp_path: Path) -> None:
    frame = events(3, age=["CANARY-age"] * 3, id=["CANARY-1", "CANARY-2", "CANARY-3"])
    found = []
    for name in ("one", "two"):
        store, project = open_store(tmp_path / name), tmp_path / f"project-{name}"
        land(project, f"{PREDICTIONS}/a.csv", frame)
        report = ingest(store, credit_spec(), project)
        assert "CANARY" not in render_report(report)
        assert {Path(t).parts[0] for t in find_traces(store, ["CANARY"]).traces} == {"quarantine"}
        found.append({letter["row_hash"] for letter in letters_of(store, credit_spec(), True)})
        store.close()

    assert len(found[0]) == 3
    assert found[0].isdisjoint(found[1])


ERASED = ("csv", "json lines", "parquet", "kserve")


@pytest.mark.parametrize("kind", ERASED)
def test_erasure_takes_single_rows_out_and_leaves_the_others(world: World, kind: str) -> None:
    name, written, spec_of = FORMATS[kind]
    world.land(f"{PREDICTIONS}/{name}", written(_frame()))
    world.ingest(spec_of(False))
    gone = "r154-0" if kind == "kserve" else "p154"
    assert find_places(world.store, spec_of(False), [gone]).rows["refused_rows"] == 1

    erase(world.store, spec_of(False), [gone], now=NOW)

    # Of a request of several rows, the line goes with all of them; only one of these was refused.
    assert find_traces(world.store, [gone]).traces == ()
    in_quarantine = [t for t in find_traces(world.store, ["r154", "p154"]).traces if t[:2] == "qu"]
    assert in_quarantine == []
    (file,) = [f for f in world.ingest(spec_of(True)).files if f.is_again]
    assert (file.rows_in, file.n_new, file.n_bad) == (28, 28, 0)


def test_erasure_finds_ids_that_no_spec_could_read(world: World) -> None:
    frame = events(4, score=[7.0] * 4, id=["a-1", "a-11", "b", None])
    frame["customer"] = ["x", "y", "z", "a-1"]
    world.land(f"{PREDICTIONS}/a.csv", frame)
    world.ingest()

    erase(world.store, credit_spec(), ["a-1"], now=NOW)

    [place] = kept_rows.list_places(world.store, "credit")
    kept = kept_rows.read_rows(place)
    assert kept is not None
    assert kept.rows["row"].to_pylist() == [1, 2]


def test_landing_files_of_refused_rows_are_named_before_an_erasure(world: World) -> None:
    world.land(f"{PREDICTIONS}/whole.csv", events(20, score=[7.0] * 20))
    world.land(f"{PREDICTIONS}/row.csv", events(2, id=["a-1", "a-2"], score=[7.0, 0.5]))
    world.ingest()

    found = find_places(world.store, credit_spec(), ["p3", "a-1"])

    assert (len(found.copies), found.rows["refused_rows"]) == (1, 1)
    assert found.landing == (f"{PREDICTIONS}/row.csv", f"{PREDICTIONS}/whole.csv")


def test_erased_rows_are_not_kept_and_are_no_fault(world: World) -> None:
    erase(world.store, credit_spec(), ["p1"], now=NOW)
    world.land(f"{PREDICTIONS}/a.csv", events(3))

    report = world.ingest()

    assert (report.files[0].n_bad, report.has_refusals) == (1, False)
    assert kept_rows.locate_folder(world.store, "credit").below() == []
    assert world.ingest(retry=True).files == ()


@pytest.mark.parametrize("how", ["by the window", "by age", "not yet"])
def test_retention_lets_refused_rows_go_with_the_rows(world: World, how: str) -> None:
    days = {"by the window": "20d", "by age": "20d", "not yet": "60d"}
    spec = credit_spec(retention={"production": days[how]}, actuals={"closed_after": "10d"})
    world.land(f"{PREDICTIONS}/a.csv", events(3, score=[7.0] * 3))
    world.land(f"{PREDICTIONS}/newer.csv", events(3, first=50, day="2024-02-29"))
    world.ingest(spec)
    now = NOW + pd.Timedelta(days=30 if how == "by age" else 0).to_pytimedelta()

    delete_by_age(world.store, spec, now, dry_run=False)

    assert len(kept_rows.list_places(world.store, "credit")) == (how == "not yet")
    report = world.ingest(spec, retry=True)
    assert len(report.files) == (how == "not yet")


def _refuse_all(root: Path) -> None:
    """Let a spec refuse a whole file, and rows of two others."""
    project = root / "project"
    spec = credit_spec(features__age={"type": "numeric", "nullable": True},
                       columns__score="p")  # fmt: skip
    land(project, f"{PREDICTIONS}/whole.csv", events(20))
    store = open_store(root / "store")
    ingest(store, spec, project)
    land(project, f"{PREDICTIONS}/a.csv", events(9, first=40, score=[7.0] + [0.5] * 8))
    land(project, f"{ACTUALS}/a.csv", truths(5, known_at=[pd.NaT] + [NOW] * 4))
    late = credit_spec(time__start="2024-02-15", columns__score="score")
    ingest(store, late, project)
    store.close()


STEPS = [s for s in crash_steps.STEPS if s.startswith(("ingest.", "append."))]


def _settled(root: Path) -> dict[str, Any]:
    store = open_store(root / "store")
    ingest(store, credit_spec(), root / "project")
    found = everything(store, credit_spec())
    found["revisions"] = sorted(found["revisions"])  # how often they rose depends on the batches
    store.close()
    return found


@pytest.mark.proof
@pytest.mark.parametrize("step", STEPS)
def test_reading_again_killed_at_any_step_and_repeated_equals_an_undisturbed_one(
    tmp_path: Path, step: str
) -> None:
    _refuse_all(tmp_path)
    shutil.copytree(tmp_path, clean := tmp_path.with_name(f"{tmp_path.name}-clean"))
    assert forked.ended(ingest_until, tmp_path, step) == -9

    assert _settled(tmp_path) == _settled(clean)


def test_csv_rows_of_any_shape_are_cut_out_as_they_were_written(world: World) -> None:
    out = io.StringIO()
    frame = events(5, score=[7.0, 0.5, 7.0, 0.5, 7.0], region=['"a"\r\n', "b\n\nb", "c", "d", "\n"])
    frame["at"] = [t.isoformat() for t in frame["at"]]
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerows([list(frame.columns), *frame.values.tolist()])
    text = out.getvalue().replace('\r\n"p3', '\r\n\r\n\r\n"p3')
    world.land(f"{PREDICTIONS}/a.csv", b"\xef\xbb\xbf" + text.encode())

    world.ingest(credit_spec(source__predictions__multiline=True))

    [place] = kept_rows.list_places(world.store, "credit")
    kept = kept_rows.read_rows(place)
    assert kept is not None
    target = world.project / "cut.csv"
    kept.write_as_landed(target)
    rows = list(csv.reader(target.read_bytes().decode("utf-8-sig").splitlines(keepends=True)))
    assert [row[0] for row in rows if row] == ["id", "p0", "p2", "p4"]
    assert [row[9] for row in rows if row][1:] == ['"a"\r\n', "c", "\n"]
