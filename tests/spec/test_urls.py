"""Addresses in messages: nothing secret of them is shown, wherever in them it stands."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.names import (
    holds_credentials,
    secret_keys,
    shown_url,
    url_problem,
    without_secrets,
)
from mlmon_dagster.store.places.objects import place_of
from mlmon_dagster.store.sources import parse_source_url
from mlmon_dagster.store.state.database import normalise_url

CANARY = "Qx7canary"
PLACES = (
    "{scheme}://me:{secret}@host:5432/name",
    "{scheme}://{secret}@host/name",
    "{scheme}://me:x@host/name?sslmode=require&password={secret}",
    "{scheme}:///name?host=/tmp&password={secret}",
    "{scheme}://host:5432/name?password={secret}&host=h",
    "{scheme}://host/name#{secret}",
)
JUNK = st.text(st.sampled_from("aZ09 @:/?#%&=;,[]\\'\"<>\n\u202eé"), max_size=6)
SCHEMES = st.sampled_from(["postgresql", "postgresql+psycopg2", "mysql", "https", "smtp", "s3"])


@given(JUNK, JUNK, st.sampled_from(PLACES), st.booleans(), SCHEMES)
def test_no_part_of_a_secret_is_shown_encoded_or_not(
    before: str, after: str, place: str, is_encoded: bool, scheme: str
) -> None:
    secret = f"{before}{CANARY}{after}"
    url = place.format(scheme=scheme, secret=quote(secret, safe="") if is_encoded else secret)

    assert CANARY not in shown_url(url)
    assert CANARY not in str(url_problem(url))
    assert CANARY not in without_secrets(f"driver: no {url!r}; no {secret}; no {url}.", url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@db:5432/mlmon", "postgresql://db:5432/mlmon"),
        ("postgresql://me:p%2Fw@[::1]:5432/m", "postgresql://[::1]:5432/m"),
        ("postgresql:///m?host=/tmp/pg&user=me&password=pw", "postgresql:///m?host=/tmp/pg"),
        ("postgresql://me:p/w@db/mlmon", "postgresql://…"),
        ("postgresql://me:p@w/x@db/mlmon", "postgresql://…"),
        ("postgresql://db:port/mlmon", "postgresql://…"),
        ("sqlite:////srv/a@b/state.db", "sqlite:////srv/a@b/state.db"),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/…"),
        ("https://hc.example.com?token=x", "https://hc.example.com/…"),
        ("smtp://me:pw@mail:587", "smtp://mail:587"),
        ("s3://bucket/landing/dt=*/x.parquet", "s3://bucket/landing/dt=*/x.parquet"),
        ("no address, pw", "…"),
    ],
)
def test_what_is_no_secret_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:pa/pw@db/m",
        "postgresql://me:pw@db:port/m",
        "postgresql://db:1/m?a=p@pw",
        "pw",
        "postgresql://me:p@pw@db/m",
    ],
)
def test_a_database_url_that_is_not_clear_is_refused_in_one_sentence(url: str) -> None:
    for parse in (normalise_url, lambda text: parse_source_url(text, "SOURCE_URL")):
        with pytest.raises(ConfigError) as caught:
            parse(url)
        assert "pw" not in str(caught.value).replace("postgresql://user:password@host", "")
        assert caught.value.__cause__ is None


def test_other_texts_lose_their_secrets_and_keep_their_words() -> None:
    said = 'no host "db"; see https://docs.example.com/setup and https://me:pw1@x.example.com/y'

    assert without_secrets(said) == (
        'no host "db"; see https://docs.example.com/setup and https://x.example.com/…'
    )
    assert without_secrets("user me, password abc123", "postgresql://me:abc123@db/m") == (
        "user me, password …"
    )


def test_the_place_of_the_store_holds_no_credentials() -> None:
    for url in ("s3://key:pw1@bucket/x", "s3://bucket/x?sig=pw1", "s3://key:p/w1@bucket/x"):
        assert holds_credentials(url)
        with pytest.raises(ConfigError, match="credentials") as caught:
            place_of(url)
        assert "w1" not in str(caught.value)
    for url in ("s3://bucket/a@b/c", "abfss://container@account.dfs.core.windows.net/x"):
        assert not holds_credentials(url)
        assert place_of(url).url == url
    assert secret_keys("https://h/x?api-version=1&access_token=a&Sig=b") == ["access_token", "Sig"]
