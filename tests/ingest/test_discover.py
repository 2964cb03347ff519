"""Only complete, regular files below the project folder are read, whatever lies beside them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest import render_report, stray_files, told_of
from mlmon_dagster.ingest.landing import (
    Listing,
    StillChangingError,
    find_staged,
    list_landing,
    stage,
)
from mlmon_dagster.spec.sources import FileSource
from tests.ingest.landing import (
    PREDICTIONS,
    World,
    credit_spec,
    csv_bytes,
    events,
    land,
    truths,
)

SOURCE = FileSource(path=f"{PREDICTIONS}/*", settle="0s")  # type: ignore[arg-type]


def _list(project: Path, source: FileSource = SOURCE) -> Listing:
    return list_landing(project, source, "predictions", {})


def _names(listing: Listing) -> list[str]:
    return [Path(candidate.name).name for candidate in listing.ready]


def test_unfinished_hidden_and_marker_names_are_left_out(project: Path) -> None:
    for name in (".x.csv", "_x.csv", "x.csv.tmp", "x.csv.part", "x.csv.done", "_SUCCESS", "x.csv",
                 ".git/x.csv", "day=1/x.csv"):  # fmt: skip
        land(project, f"{PREDICTIONS}/{name}", b"a")
    deep = SOURCE.model_copy(update={"path": f"{PREDICTIONS}/**/*.csv"})

    assert [c.name for c in _list(project).ready] == [f"{PREDICTIONS}/x.csv"]
    assert {Path(c.name).parent.name for c in _list(project, deep).ready} == {
        "predictions",
        "day=1",
    }


def test_links_pipes_and_folders_are_skipped_with_a_word(project: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.csv"
    outside.write_bytes(b"secret")
    folder = project / PREDICTIONS
    (folder / "sub").mkdir(parents=True)
    (folder / "link.csv").symlink_to(outside)
    os.mkfifo(folder / "pipe.csv")

    listing = _list(project)

    assert listing.ready == ()
    skipped = {Path(name).name: why for name, why in listing.skipped}
    assert "symbolic link" in skipped["link.csv"]
    assert skipped["pipe.csv"] == skipped["sub"] == "it is not a regular file"


def test_linked_folder_that_leads_outside_is_not_followed(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.csv").write_bytes(b"secret")
    (project / "landing").mkdir()
    (project / PREDICTIONS).symlink_to(elsewhere)

    listing = _list(project)

    assert listing.ready == ()
    assert listing.skipped == ((f"{PREDICTIONS}/x.csv", "it lies outside the project folder"),)


@pytest.mark.parametrize("path", ["../*.csv", "/etc/../*", "landing/../../*"])
def test_glob_that_leaves_the_project_is_refused(project: Path, path: str) -> None:
    source = SOURCE.model_construct(**{**SOURCE.model_dump(), "path": path})

    with pytest.raises(ConfigError, match="leaves its folder"):
        _list(project, source)


def test_of_an_absolute_glob_nothing_outside_its_folder_is_read(
    project: Path, tmp_path: Path
) -> None:
    lake, elsewhere = tmp_path / "lake", tmp_path / "elsewhere"
    for path in (lake / "a" / "1.csv", lake / "2.csv", elsewhere / "3.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a\n")
    (lake / "b").symlink_to(elsewhere)
    (lake / "4.csv").symlink_to(elsewhere / "3.csv")
    source = SOURCE.model_copy(update={"path": f"{lake}/**/*.csv"})

    listing = _list(project, source)

    found = sorted(one.name for one in (*listing.ready, *listing.waiting))
    assert found == [f"{lake}/2.csv", f"{lake}/a/1.csv"]
    assert [name for name, _ in listing.skipped] == [f"{lake}/4.csv"]


def test_pipe_put_in_a_files_place_does_not_hang(project: Path, tmp_path: Path) -> None:
    path = land(project, f"{PREDICTIONS}/x.csv", b"a\n")
    (candidate,) = _list(project).ready
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(StillChangingError):
        stage(candidate, tmp_path / "staging", 100)


def test_link_put_in_a_files_place_is_not_followed(project: Path, tmp_path: Path) -> None:
    path = land(project, f"{PREDICTIONS}/x.csv", b"a\n")
    (candidate,) = _list(project).ready
    path.unlink()
    path.symlink_to("/etc/passwd")

    with pytest.raises(StillChangingError):
        stage(candidate, tmp_path / "staging", 10**6)
    assert list((tmp_path / "staging").iterdir()) == []


def test_file_that_changed_since_the_listing_waits(project: Path, tmp_path: Path) -> None:
    path = land(project, f"{PREDICTIONS}/x.csv", b"a\n")
    (candidate,) = _list(project).ready
    path.write_bytes(b"a\nb\n")

    with pytest.raises(StillChangingError, match="changed while it was read"):
        stage(candidate, tmp_path / "staging", 100)


def test_damaged_copy_is_not_taken_for_the_file(project: Path, tmp_path: Path) -> None:
    land(project, f"{PREDICTIONS}/x.csv", b"a\n")
    staged = stage(_list(project).ready[0], tmp_path / "staging", 100)
    assert find_staged(tmp_path / "staging", staged.sha256) == staged.path
    assert staged.path is not None
    staged.path.write_bytes(b"b\n")

    assert find_staged(tmp_path / "staging", staged.sha256) is None


def test_fresh_file_waits_until_it_has_settled(world: World) -> None:
    spec = credit_spec(source__predictions__settle="1h")
    path = world.land(f"{PREDICTIONS}/x.csv", events(3))
    os.utime(path)

    waiting = world.ingest(spec)
    os.utime(path, (time.time() - 3700,) * 2)
    done = world.ingest(spec)

    assert (waiting.n_waiting, waiting.files[0].status) == (1, "waiting")
    assert "may not be complete" in waiting.files[0].message
    assert done.total("n_new") == 3


@pytest.mark.parametrize("marker", ["x.csv.done", "_SUCCESS"])
def test_marker_beside_a_fresh_file_lets_it_in(world: World, marker: str) -> None:
    spec = credit_spec(source__predictions__settle="1h")
    path = world.land(f"{PREDICTIONS}/x.csv", events(3))
    os.utime(path)
    world.land(f"{PREDICTIONS}/{marker}", b"")
    assert world.ingest(spec).n_waiting == 1, "the marker is older than the file"
    os.utime(world.project / PREDICTIONS / marker)

    assert world.ingest(spec).total("n_new") == 3


def test_cut_line_may_still_be_completed_for_a_while(world: World) -> None:
    spec = credit_spec(source__predictions__settle="1h")
    content = csv_bytes(events(3))
    path = world.land(f"{PREDICTIONS}/x.csv", content[:-5])
    os.utime(path, (time.time() - 2 * 3600,) * 2)
    waiting = world.ingest(spec)
    path.write_bytes(content)
    os.utime(path, (time.time() - 2 * 3600,) * 2)
    done = world.ingest(spec)

    assert (waiting.files[0].status, waiting.files[0].reason) == ("waiting", "cut_line")
    assert done.total("n_new") == 3


def test_a_last_row_without_a_line_end_is_taken_if_the_file_is_said_to_be_complete(
    world: World,
) -> None:
    content = csv_bytes(events(3)).rstrip(b"\n")
    world.land(f"{PREDICTIONS}/x.csv", content)
    world.land(f"{PREDICTIONS}/x.csv.done", b"")
    world.land(f"{PREDICTIONS}/y.csv", csv_bytes(events(3, first=10)).rstrip(b"\n"))

    marked, other = sorted(world.ingest().files, key=lambda f: f.path)

    assert (marked.status, marked.n_new) == ("done", 3)
    assert (other.status, other.reason) == ("quarantined", "cut_line")


def test_names_of_any_kind_are_read(world: World) -> None:
    names = ["a b[1]*?.csv", "Zoë.csv", "new\nline.csv", "'; DROP TABLE x; --.csv", "-rf.csv"]
    names += ["red\x1b[31m.csv", "txt\u202evsc.csv"]
    for number, name in enumerate(names):
        world.land(f"{PREDICTIONS}/{name}", events(2, first=10 * number))
    odd = os.fsdecode(b"bad\xff.csv")
    (world.project / PREDICTIONS / odd).write_bytes(csv_bytes(events(2, first=90)))

    report = world.ingest()

    assert report.total("n_new") == 16
    assert world.ingest().files == ()
    # Neither a terminal nor a line of a log takes harm from them.
    shown = {file.path.rpartition("/")[2] for file in report.files}
    assert "".join(shown).isprintable()
    assert {"Zoë.csv", r"new\nline.csv", r"bad\xff.csv", r"red\x1b[31m.csv"} <= shown
    assert all(line.isprintable() for line in render_report(report).splitlines())


def test_oldest_files_come_first_up_to_the_limit(world: World) -> None:
    for number, name in enumerate("cab"):
        path = world.land(f"{PREDICTIONS}/{name}.csv", events(2, first=10 * number))
        os.utime(path, (1_700_000_000 + number,) * 2)

    report = world.ingest(max_files=2)

    assert {Path(f.path).name for f in report.files} == {"a.csv", "c.csv"}
    assert report.n_left == 1


def test_files_beside_the_landing_files_that_no_source_matches_are_found(world: World) -> None:
    spec = credit_spec(
        source__predictions__path="landing/credit/predictions/*.csv",
        source__actuals__path="landing/credit/predictions/*/truth.jsonl",
    )
    world.land("landing/credit/predictions/a.csv", events(2))
    world.land("landing/credit/predictions/b.parquet", events(2))
    world.land("landing/credit/predictions/2024/truth.jsonl", truths(2))
    world.land("landing/credit/predictions/2024/deep.csv", events(2))
    world.land("landing/credit/up.jsonl", events(2))
    world.land("landing/credit/readme.txt", b"x")
    world.land("landing/credit/predictions/_x.parquet", b"x")
    world.land("two_up.csv", b"x")

    found = stray_files(world.store, world.project, [spec], [spec])

    assert found == [
        "landing/credit/predictions/2024/deep.csv",
        "landing/credit/predictions/b.parquet",
        "landing/credit/up.jsonl",
    ]
    assert "3 files are not read" in told_of(found, [spec])
    world.ingest(spec)
    moved = credit_spec(
        source__predictions__path="landing/credit/predictions/*.parquet",
        source__actuals__path="landing/credit/predictions/*/truth.jsonl",
    )
    assert stray_files(world.store, world.project, [moved], [moved])[1:] == [
        "landing/credit/up.jsonl"
    ]
    other = credit_spec(model="other", source__predictions__path="landing/credit/**/*")
    assert stray_files(world.store, world.project, [spec], [spec, other]) == []


def test_a_glob_in_the_project_folder_itself_has_no_strays(world: World) -> None:
    spec = credit_spec(source__predictions__path="*.csv", source__actuals__path="a.csv")
    world.land("b.parquet", b"x")

    assert stray_files(world.store, world.project, [spec], [spec]) == []
