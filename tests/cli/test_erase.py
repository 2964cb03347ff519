"""``mlmon erase`` shows, asks, removes and proves; ``mlmon metrics --as-of`` looks back."""

from pathlib import Path

from tests.cli.conftest import Command


def ids_of(folder: Path, n: int) -> list[str]:
    from mlmon_dagster.spec import load_models
    from mlmon_dagster.store import open_store

    (spec,) = load_models(folder / "models")
    store = open_store(folder / ".mlmon" / "store")
    found = store.inference_records(spec).read(datasets=["production"], limit=n)
    store.close()
    return [str(id_) for id_ in found.column("prediction_id").to_pylist()]


def test_erase_shows_asks_removes_and_proves(folder: Path, mlmon: Command) -> None:
    (one,) = ids_of(folder, 1)
    model = next((folder / "models").glob("*.yaml")).stem
    before = mlmon("--project", folder, "metrics", model)
    dry = mlmon("--project", folder, "erase", model, "--prediction-id", one, "--dry-run")
    assert (dry.code, "1  inference records" in dry.out, "left as they are" in dry.out) == (
        0,
        True,
        True,
    )
    assert mlmon("--project", folder, "erase", model, "--prediction-id", one, "--prove").code == 1
    done = mlmon(
        "--project", folder, "erase", model, "--prediction-id", one, "--yes", "--author", "dpo"
    )
    assert (done.code, "receipt" in done.out) == (0, True)
    proof = mlmon("--project", folder, "erase", model, "--prediction-id", one, "--prove")
    assert (proof.code, " 0 with a trace" in proof.out) == (0, True), proof.out
    listed = mlmon("--project", folder, "erase", model, "--list")
    assert "dpo  1 ids by prediction_id in all" in listed.out
    assert one not in listed.out
    assert before.code == 0


def test_erase_by_a_predicate_is_never_sql(folder: Path, mlmon: Command) -> None:
    model = next((folder / "models").glob("*.yaml")).stem
    wrong = mlmon("--project", folder, "erase", model, "--where", "1=1; DROP TABLE x", "--yes")
    assert wrong.code == 2
    none = mlmon("--project", folder, "erase", model, "--where", "score > 7", "--yes")
    assert (none.code, "nothing to erase" in none.out) == (0, True)


def test_metrics_as_of_before_anything_are_none(folder: Path, mlmon: Command) -> None:
    model = next((folder / "models").glob("*.yaml")).stem
    assert (
        "no such metrics"
        in mlmon("--project", folder, "metrics", model, "--as-of", "2001-01-01").err
    )
    now = mlmon(
        "--project", folder, "metrics", model, "--format", "csv", "--as-of", "2100-01-01T00:00:00Z"
    )
    assert now.out == mlmon("--project", folder, "metrics", model, "--format", "csv").out
