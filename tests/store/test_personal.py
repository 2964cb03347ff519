"""The key of personal values: one for each model, the same for every process."""

from __future__ import annotations

from mlmon_dagster.store import Store
from mlmon_dagster.store.state import erased_ids


def test_the_key_is_made_once_and_is_not_the_one_of_erased_ids(any_store: Store) -> None:
    engine = any_store.state
    key = erased_ids.personal_key(engine, "loan")

    assert len(key) == 64
    assert erased_ids.personal_key(engine, "loan") == key
    assert erased_ids.personal_key(engine, "churn") != key
    with engine.begin() as conn:
        assert erased_ids.ensure_salt(conn, "loan") not in key


def test_the_engine_and_python_make_the_same_digest(store: Store) -> None:
    key = erased_ids.personal_key(store.state, "loan")
    for value in ("anna", "", "Zoë'; --", "x" * 5_000):
        text = "'" + value.replace("'", "''") + "'"
        (row,) = store.query(f"SELECT {erased_ids.digest_personal_sql(key, text)} AS d").to_pylist()
        assert row["d"] == erased_ids.digest_personal(key, value)
