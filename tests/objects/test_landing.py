"""Landing files in a bucket are taken in as files of a folder are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest import IngestReport, replay_file
from mlmon_dagster.ingest.landing import (
    Listing,
    StillChangingError,
    list_landing,
    name_matches,
    stage,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import FileSource
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.tables.kept_rows import locate_folder
from mlmon_dagster.store.upkeep.integrity import repair_model
from tests.ingest.landing import (
    NOW,
    credit_spec,
    csv_bytes,
    events,
    files_of,
    ingest,
    land,
    log_content,
    parquet_bytes,
    truths,
)
from tests.objects.server import S3Server


@pytest.fixture
def spec(bucket: str) -> ModelSpec:
    """The credit model, whose files land in the bucket."""
    return credit_spec(
        source__predictions={"path": f"s3://{bucket}/landing/predictions/**/*"},
        source__actuals={"path": f"s3://{bucket}/landing/actuals/*.parquet"},
    )


def _ingest(store: Store, spec: ModelSpec) -> IngestReport:
    return ingest(store, spec, Path("/nonexistent"))


def on_another_machine(store: Store, folder: Path) -> Store:
    """Open the store where the bucket and the state database are the same, not the disk."""
    url = store.state.url.render_as_string(hide_password=False)
    return open_store(
        str(store.root), url, storage_options=store.storage_options, folder=folder / "other"
    )


def _put(s3: S3Server, bucket: str, name: str, content: bytes) -> None:
    s3.put(bucket, f"landing/{name}", content)


def _list(s3: S3Server, path: str, **options: object) -> Listing:
    source = FileSource.model_validate({"path": path, **options})
    return list_landing(Path(), source, "predictions", {}, s3.options)


def test_objects_make_the_same_log_as_the_same_files_in_a_folder(
    remote: Store, store: Store, spec: ModelSpec, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    for number in range(3):
        frame = events(5, first=5 * number)
        _put(s3, bucket, f"predictions/hour={number}/a.parquet", parquet_bytes(frame))
        land(tmp_path, f"landing/predictions/{number}.parquet", frame)
    _put(s3, bucket, "actuals/a.parquet", parquet_bytes(truths(15)))
    land(tmp_path, "landing/actuals/a.parquet", truths(15))

    report = _ingest(remote, spec)
    ingest(store, credit_spec(), tmp_path)

    assert {file.status for file in report.files} == {"done"}, report.files
    assert log_content(remote, spec, provenance=False) == log_content(
        store, credit_spec(), provenance=False
    )
    shas = {row["sha256"] for row in files_of(remote, spec)}
    assert shas == {row["sha256"] for row in files_of(store, credit_spec())}
    assert not list((remote.folder / "staging").rglob("*.parquet"))
    assert _ingest(remote, spec).files == (), "known objects are not read again"


def test_object_replaced_by_another_of_equal_size_at_once_is_read_again(
    remote: Store, spec: ModelSpec, s3: S3Server, bucket: str
) -> None:
    first, second = csv_bytes(events(3)), csv_bytes(events(3)).replace(b"\np", b"\nq")
    _put(s3, bucket, "predictions/a.csv", first)
    assert _ingest(remote, spec).files[0].n_new == 3
    _put(s3, bucket, "predictions/a.csv", second)

    assert [(f.status, f.n_new) for f in _ingest(remote, spec).files] == [("done", 3)]
    assert remote.event_log(spec).rows("predictions").num_rows == 6


def test_unfinished_hidden_and_foreign_names_are_left_out(s3: S3Server, bucket: str) -> None:
    for name in (
        "x.csv", "x.csv.tmp", "_SUCCESS", "_x.csv", ".x.csv", "day=1/x.csv", "_temporary/0/x.csv",
        "x.csv.part", "x.json",
    ):  # fmt: skip
        _put(s3, bucket, name, b"a")

    found = _list(s3, f"s3://{bucket}/landing/**/*.csv")

    names = [c.name.removeprefix(f"s3://{bucket}/landing/") for c in found.ready]
    assert sorted(names) == ["day=1/x.csv", "x.csv"]
    assert found.waiting == ()


def test_names_with_unusual_characters_are_read(
    remote: Store, spec: ModelSpec, s3: S3Server, bucket: str
) -> None:
    _put(s3, bucket, "predictions/a b%ä+#=.csv", csv_bytes(events(2)))

    assert [(f.status, f.n_new) for f in _ingest(remote, spec).files] == [("done", 2)]
    assert "predictions/a b%ä+#=.csv" in files_of(remote, spec)[0]["path"]


def test_objects_settle_only_if_that_is_declared(s3: S3Server, bucket: str) -> None:
    _put(s3, bucket, "x.csv", b"a")
    path = f"s3://{bucket}/landing/*.csv"

    assert len(_list(s3, path).ready) == 1
    assert len(_list(s3, path, settle="1h").waiting) == 1


def test_object_changed_after_the_listing_is_looked_at_again_later(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    _put(s3, bucket, "x.csv", b"a")
    _put(s3, bucket, "y.csv", b"a")
    changed, gone = _list(s3, f"s3://{bucket}/landing/*.csv").ready
    _put(s3, bucket, "x.csv", b"b")
    s3.delete(bucket, "landing/y.csv")

    for candidate in (changed, gone):
        with pytest.raises(StillChangingError, match=r"changed|vanished"):
            stage(candidate, tmp_path, 100)


def test_object_above_the_limit_is_hashed_and_not_kept(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    _put(s3, bucket, "x.csv", b"abc")
    (candidate,) = _list(s3, f"s3://{bucket}/landing/*.csv").ready

    staged = stage(candidate, tmp_path, max_bytes=2)

    assert staged.path is None
    assert staged.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert not list(tmp_path.iterdir())


def test_refused_object_is_kept_in_the_bucket_and_can_be_replayed_by_another_machine(
    remote: Store, spec: ModelSpec, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    content = csv_bytes(events(2).drop(columns="score"))
    _put(s3, bucket, "predictions/bad.csv", content)
    (refused,) = _ingest(remote, spec).files
    assert refused.status == "quarantined"
    s3.delete(bucket, "landing/predictions/bad.csv")
    kept = locate_folder(remote, spec.model)
    assert kept.below() == [f"{refused.sha256}.csv"]

    other = on_another_machine(remote, tmp_path)
    columns = {k: v for k, v in spec.columns.model_dump().items() if v and k != "score"}
    corrected = spec.model_copy(update={"columns": type(spec.columns)(**columns)})
    replay_file(other, corrected, refused.sha256[:8], now=NOW)

    assert [(f.status, f.n_new) for f in _ingest(other, corrected).files] == [("done", 2)]
    assert kept.below() == []
    other.close()


def test_refused_rows_are_kept_in_the_bucket_and_read_again_by_another_machine(
    remote: Store, spec: ModelSpec, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    _put(s3, bucket, "predictions/a.csv", csv_bytes(events(4, age=["1", "old", "3", "old"])))
    assert [(f.n_new, f.n_bad) for f in _ingest(remote, spec).files] == [(2, 2)]
    s3.delete(bucket, "landing/predictions/a.csv")
    assert len(locate_folder(remote, spec.model).below()) == 1
    other = on_another_machine(remote, tmp_path)
    mended = credit_spec(
        source__predictions={**spec.source.predictions.model_dump(exclude_unset=True),
                             "null_tokens": ["old"]},
        source__actuals=spec.source.actuals.model_dump(exclude_unset=True),
    )  # fmt: skip

    assert [(f.is_again, f.n_new) for f in _ingest(other, mended).files] == [(True, 2)]
    assert locate_folder(remote, spec.model).below() == []
    other.close()


def test_store_lost_on_disk_loses_no_event(
    remote: Store, spec: ModelSpec, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    """A machine dies with its state database; a new one finds the events in the bucket.

    It says that the database knows nothing of them, and takes them over when it is told to.
    """
    _put(s3, bucket, "predictions/a.csv", csv_bytes(events(4)))
    _ingest(remote, spec)
    other = open_store(str(remote.root), storage_options=s3.options, folder=tmp_path / "new")

    with pytest.raises(StoreError, match="run mlmon store repair credit"):
        _ingest(other, spec)
    repair_model(other, spec, Path("/nonexistent"), NOW)
    _ingest(other, spec)

    assert other.event_log(spec).rows("predictions").num_rows == 4
    assert manifest.load_files_frame(other.state, spec.model)["status"].tolist() == ["done"]
    other.close()


@pytest.mark.parametrize("path", ["ftp://b/x", "s3://b", "s3://b*/x", "s3://b/../x", "s3://b//x"])
def test_urls_that_are_no_globs_are_refused(path: str, s3: S3Server) -> None:
    with pytest.raises(ConfigError):
        list_landing(Path(), FileSource(path=path), "predictions", {}, s3.options)


@given(
    key=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4),
    pattern=st.lists(st.just("**") | st.text("ab*?", min_size=1, max_size=3), max_size=3),
    last=st.text("ab*?", min_size=1, max_size=3),
)
def test_globs_mean_the_same_as_in_a_folder(
    key: list[str], pattern: list[str], last: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = [*(part for part in pattern if "**" not in part or part == "**"), last]
    if "**" in last:
        return
    folder = tmp_path_factory.mktemp("globs")
    path = folder.joinpath(*key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")

    assert name_matches("/".join(key), "/".join(whole)) == (path in folder.glob("/".join(whole)))
