"""Tokens: kept as hashes, scoped, expiring, revocable."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from mlmon_dagster.collect import admission
from mlmon_dagster.store import Store
from tests.push.worlds import NOW

DAY = dt.timedelta(days=1)


def test_only_the_whole_token_is_found_and_it_is_stored_nowhere(any_store: Store) -> None:
    engine = any_store.state
    token = admission.create_token(engine, "loan", now=NOW)
    admission.create_token(engine, "*", now=NOW + DAY)
    known = admission.load_tokens(engine)

    found = admission.find_token(known, token)
    assert found is not None
    assert found.opens("loan")
    assert not found.opens("churn")
    token_id, secret = token.split("_", 2)[1:]
    wrong_ones = (
        "",
        token[:-1],
        f"{token}x",
        f"mlmon_{token_id}_",
        f"x_{token_id}_{secret}",
        f"mlmon__{secret}",
        f"mlmon_{known[1].id}_{secret}",
        "mlmon_é_\udcff",
    )
    for wrong in wrong_ones:
        assert admission.find_token(known, wrong) is None, wrong
    with engine.connect() as conn:
        stored = repr(conn.execute(sa.text("SELECT * FROM collect_token")).all())
    assert secret not in stored


def test_a_token_expires_and_can_be_revoked_once(any_store: Store) -> None:
    engine = any_store.state
    admission.create_token(engine, "*", now=NOW, expires_at=NOW + DAY, note="batch job")
    (token,) = admission.load_tokens(engine)
    assert token.opens("any")
    assert [token.state(NOW + DAY * i) for i in (0, 1)] == ["active", "expired"]

    assert admission.revoke_token(engine, token.id, NOW)
    assert not admission.revoke_token(engine, token.id, NOW)
    assert not admission.revoke_token(engine, "unknown", NOW)
    assert admission.load_tokens(engine)[0].state(NOW) == "revoked"
