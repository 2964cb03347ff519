"""Who may push: everybody on this machine until there is a token, then its bearers only.

Tokens are kept as hashes; they are scoped, expire and can be revoked.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlmon_dagster.collect import admission
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store import Store
from tests.push.collecting import PREDICTIONS, Running, row, running
from tests.push.worlds import NOW

HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def _hear_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "FRESH_SECONDS", 0.0)


def status_with(collector: Running, token: str) -> int:
    """Return the status of a push with a token."""
    return collector.post(row(), authorization=f"Bearer {token}").status


def test_an_address_of_others_is_refused_until_there_is_a_token(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="mlmon collect token create"):
        admission.Access(store.state, "0.0.0.0", lambda: NOW)
    admission.create_token(store.state, "*", now=NOW, expires_at=NOW)
    with pytest.raises(ConfigError, match="no token"):
        admission.Access(store.state, "::", lambda: NOW)
    admission.create_token(store.state, "loan", now=NOW)
    with running(store, tmp_path, host="0.0.0.0") as collector:
        assert collector.post(row()).status == 401
        for token in admission.load_tokens(store.state):
            admission.revoke_token(store.state, token.id, NOW)
        assert collector.post(row()).status == 401  # never open to others


def test_with_a_token_every_request_needs_one_of_its_model(collector: Running) -> None:
    assert collector.post(row(0)).status == 202
    engine = collector.store.state
    ours = admission.create_token(engine, "loan", now=NOW)
    any_model = admission.create_token(engine, "*", now=NOW, expires_at=NOW + HOUR)
    other = admission.create_token(engine, "churn", now=NOW)
    expired = admission.create_token(engine, "loan", now=NOW, expires_at=NOW)

    nobody = collector.post(row())
    assert nobody.status == 401
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    found = [status_with(collector, t) for t in (ours, any_model, other, expired, "x", "")]
    assert found == [202, 202, 403, 401, 401, 401]
    assert collector.post(row(), authorization=f"Basic {ours}").status == 401
    # Of a model that there is not, a token of another one learns nothing.
    unknown = "/v1/models/none/predictions"
    assert collector.post(row(), unknown, authorization=f"Bearer {ours}").status == 403
    assert collector.post(row(), unknown, authorization=f"Bearer {any_model}").status == 404

    admission.revoke_token(engine, ours.split("_")[1], NOW)
    assert status_with(collector, ours) == 401


def test_once_there_was_a_token_the_server_stays_closed(store: Store, tmp_path: Path) -> None:
    token = admission.create_token(store.state, "*", now=NOW)
    with running(store, tmp_path) as collector:
        assert status_with(collector, token) == 202
        admission.revoke_token(store.state, token.split("_")[1], NOW)
        assert collector.post(row()).status == 401
        assert status_with(collector, token) == 401
    with running(store, tmp_path) as restarted:
        assert restarted.post(row()).status == 401


def test_a_page_in_a_browser_cannot_push(collector: Running) -> None:
    # A simple request of a form needs no permission of the server, but is no JSON.
    assert collector.post(row(), content_type="text/plain").status == 415
    # A name that leads to this machine is not this machine's name.
    assert collector.post(row(), host="evil.example").status == 403
    assert collector.post(row(), host=f"localhost:{collector.port}").status == 202


def test_the_description_names_models_only_to_those_who_may_push_to_them(
    collector: Running,
) -> None:
    pages = [collector.request("GET", path) for path in ("/openapi.json", "/docs")]
    assert all(page.status == 200 and b"/v1/models/loan/" in page.body for page in pages)
    document = pages[0].json
    assert document["openapi"] == "3.1.0"
    schema = document["components"]["schemas"]["loan.predictions"]
    assert set(schema["properties"]) == {"id", "at", "score", "age", "region"}
    assert "age" not in schema["required"]
    text = pages[1].body.decode()
    assert "default-src 'none'" in pages[1].headers["content-security-policy"]
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text

    token = admission.create_token(collector.store.state, "loan", now=NOW)
    for path in ("/openapi.json", "/docs"):
        assert b"loan" not in collector.request("GET", path).body
        shown = collector.request("GET", path, authorization=f"Bearer {token}")
        assert b"/v1/models/loan/" in shown.body
    for path in ("/healthz", "/readyz"):
        assert collector.request("GET", path).status == 200
    assert PREDICTIONS in text


def test_only_the_whole_token_is_found_and_it_is_stored_nowhere(any_store: Store) -> None:
    engine = any_store.state
    token = admission.create_token(engine, "loan", now=NOW)
    admission.create_token(engine, "*", now=NOW + 24 * HOUR)
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
    admission.create_token(engine, "*", now=NOW, expires_at=NOW + 24 * HOUR, note="batch job")
    (token,) = admission.load_tokens(engine)
    assert token.opens("any")
    assert [token.state(NOW + 24 * HOUR * i) for i in (0, 1)] == ["active", "expired"]

    assert admission.revoke_token(engine, token.id, NOW)
    assert not admission.revoke_token(engine, token.id, NOW)
    assert not admission.revoke_token(engine, "unknown", NOW)
    assert admission.load_tokens(engine)[0].state(NOW) == "revoked"
