from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.profiles import baseline_in_force
from mlmon_dagster.spec import parse_predicate, predicate_columns
from mlmon_dagster.tables.rows import HIDDEN, Rows, rows_of, slice_predicate, split_values
from tests.report.worlds import World, build, declare
from tests.spec.predicate_truth import to_callable

pytestmark = pytest.mark.xdist_group("report")  # they share a world

# What a slice value can hold to confuse SQL, the predicate language or the joining of values.
AWKWARD = ("O'Hare", "D,L", "back\\slash", None, "'; DROP TABLE x --", 'a"b')
ALL_ROWS = 10_000


def rows_behind(
    world: World, slice_: tuple[str, str] = ("all", "all"), limit: int = ALL_ROWS
) -> Rows:
    picked = slice_predicate(world.spec, *slice_)
    return rows_of(world.store, world.spec, world.windows, picked, limit=limit)


def ids_of(found: Rows) -> list[str]:
    ids: list[str] = found.table.column("prediction_id").to_pylist()
    return ids


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = build(tmp_path_factory.mktemp("awkward"), AWKWARD)
    yield made
    made.store.close()


def test_every_slice_of_the_profiles_is_found_again_in_the_rows(awkward: World) -> None:
    stats = baseline_in_force(awkward.store, awkward.spec).profiles(dataset="production")[
        "prediction"
    ]
    sizes = stats.cells.assign(n=stats.n).groupby(["slice_key", "slice_value"])["n"].sum()

    assert len(sizes) >= 1 + 5 + 10
    for (key, value), n in sizes.items():
        found = rows_behind(awkward, (key, value))
        assert (found.n, len(set(ids_of(found)))) == (n, n)


def test_the_predicate_picks_the_same_rows_when_read_again(awkward: World) -> None:
    rows = awkward.side("production").astype(object)
    rows = rows.where(rows.notna(), None)
    written = 0
    for value in (*AWKWARD, "<null>"):
        if value is None:
            continue
        name = value.replace("\\", "\\\\").replace(",", "\\,")
        found = rows_behind(awkward, ("region", name))
        if found.predicate is None:
            assert value == "back\\slash"
            continue
        written += 1
        predicate = parse_predicate(found.predicate, predicate_columns(awkward.spec))
        picked = rows[[to_callable(predicate)(row) for row in rows.to_dict("records")]]
        assert set(picked["prediction_id"]) == set(ids_of(found))
    assert written == 5


def test_wrong_decisions_come_first_then_large_errors(world: World) -> None:
    found = rows_behind(world, ("region", "north"))
    rows = world.rows.set_index("prediction_id").loc[ids_of(found)]
    known = rows["actual"] >= 0
    wrong = known & (rows["prediction"] != rows["actual"])
    error = (rows["score"] - rows["actual"]).abs().where(known, -1.0)

    assert list(wrong) == sorted(wrong, reverse=True)
    for part in (error[wrong], error[~wrong]):
        assert part.is_monotonic_decreasing


def test_only_so_many_ids_are_returned_as_asked_for(world: World) -> None:
    found = rows_of(world.store, world.spec, world.windows[:1], limit=3)
    day = world.side("production")

    assert len(ids_of(found)) == 3
    assert found.n == (day["window_start"] == world.windows[0].start).sum()
    assert found.predicate == ""
    assert ids_of(rows_behind(world, limit=-1)) == []
    none = rows_of(world.store, world.spec, [])
    assert (none.n, none.table.num_rows, none.predicate) == (0, 0, "")


def test_personal_values_are_hidden_unless_they_are_named(world: World) -> None:
    hidden = rows_of(world.store, world.spec, world.windows, limit=9)
    shown = rows_of(world.store, world.spec, world.windows, limit=9, shown=["email"])

    assert hidden.hidden == ("email",)
    assert set(hidden.table.column("email").to_pylist()) <= {HIDDEN, None}
    assert shown.hidden == ()
    assert not {HIDDEN} & set(shown.table.column("email").to_pylist())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("email", "x", "no slice 'email'"),
        ("region,member", "south", "needs 2 values"),
        ("region", "a,b", "needs 1 values"),
    ],
)
def test_slices_that_are_not_declared_are_refused(key: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        slice_predicate(declare(), key, value)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_values_are_taken_apart_as_they_were_joined(values: list[str]) -> None:
    joined = ",".join(v.replace("\\", "\\\\").replace(",", "\\,") for v in values)

    assert split_values(joined) == values
