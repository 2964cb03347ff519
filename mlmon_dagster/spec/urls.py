"""Addresses that may hold secrets: shown without them, and refused where they are not clear.

A URL carries secrets in its user information, in its query, and, of webhooks, in its path. What
cannot be read for certain is not shown at all: a slash or an @ in a password that is not
percent-encoded moves the password into the part that looks like a host or a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus

from mlmon_dagster.spec.names import OBJECT_SCHEMES

HIDDEN = "…"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]*)(?::\d{0,5})?")
_PATH = re.compile(r"[\w./~=*\[\]{} -]*")
_PLAIN_VALUE = re.compile(r"[\w./-]+")
_PLAIN_KEYS = ("host", "port", "sslmode")  # of a query: where a database is, and how to reach it
_PLAIN_KEY = re.compile(r"[a-z_]+")
_SECRET_PATHS = ("http", "https", "smtp", "smtps")
_SECRET_KEYS = re.compile(r"pass|pwd|token|secret|key|sig|auth|cred|code", re.IGNORECASE)
_LEAST = 3  # characters of a secret that is worth looking for,
_LEAST_PART = 6  # and of a part of it or of a path, which may be a plain word
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def shown_url(url: str) -> str:
    """Write a URL for a message: scheme, host, port and, where it holds no secret, the path.

    User information and queries are left out, and so are the paths of web and mail addresses. Of
    a URL that is not clear only the scheme is left.

    Example:
        >>> shown_url("postgresql://me:secret@db:5432/mlmon?sslmode=require&password=x")
        'postgresql://db:5432/mlmon?sslmode=require'
        >>> shown_url("postgresql://me:sec/ret@db:5432/mlmon")
        'postgresql://…'
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return HIDDEN
    authority, path, query = _parts(rest)
    is_file = scheme.startswith("sqlite") and not authority
    if url_problem(url) or ("@" in path + query and not is_file):
        return f"{scheme}://{HIDDEN}"
    host = authority.rpartition("@")[2]
    if scheme.lower() in _SECRET_PATHS:
        return f"{scheme}://{host}" + (f"/{HIDDEN}" if path.strip("/") or query else "")
    if not _PATH.fullmatch(path.replace("@", "") if is_file else path):
        path = f"/{HIDDEN}"
    kept = "&".join(
        f"{key}={value}"
        for key, value in _pairs(query)
        if key in _PLAIN_KEYS and _PLAIN_VALUE.fullmatch(value)
    )
    return f"{scheme}://{host}{path}" + (f"?{kept}" if kept else "")


def url_problem(url: str) -> str | None:
    """Say why a URL is not clear, without repeating any of it; None if it is."""
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return "it has no scheme, such as postgresql:// or https://"
    if not url.isprintable():
        return "it holds a character that cannot be printed"
    authority, path, query = _parts(rest)
    host = authority.rpartition("@")[2]
    # An @ further on means that what stands before it was meant to be a password; a web address
    # and an object's name may have one.
    is_late = "@" in path + query and (not _may_hold_at(scheme) or ":" in authority)
    if (authority and is_late) or authority.count("@") > 1:
        return (
            "it is not clear where its password ends: write the characters @ : / ? # % of user, "
            "password and query percent-encoded (%40 %3A %2F %3F %23 %25)"
        )
    if not all(_HOST.fullmatch(one) for one in host.split(",")):
        return "its host and port are not like db.example.com:5432"
    return None


def secret_keys(url: str) -> list[str]:
    """Return the keys of a URL's query that are named like secrets."""
    return [
        key for key, _ in _pairs(_parts(url.partition("://")[2])[2]) if _SECRET_KEYS.search(key)
    ]


def holds_credentials(url: str) -> bool:
    """Say whether a URL of object storage holds more than bucket and prefix, or is not clear."""
    scheme, _, rest = url.partition("://")
    authority, _, query = _parts(rest)
    user, at, _ = authority.rpartition("@")
    is_container = scheme == "abfss" and ":" not in user  # container@account
    return bool(query or (at and not is_container) or url_problem(url))


def _may_hold_at(scheme: str) -> bool:
    return scheme.lower() in ("http", "https", *OBJECT_SCHEMES)


def has_user(url: str) -> bool:
    """Say whether a URL holds a user or a password."""
    return "@" in _parts(url.partition("://")[2])[0]


def without_secrets(text: str, *urls: str | None) -> str:
    """Take secrets out of a text that somebody else wrote, such as the message of a driver.

    Args:
        text: What is to be shown.
        urls: Addresses whose user information, query values and, of the web, path must not be in
            it; other URLs in the text lose their user information and query, too.
    """
    known = {secret for url in urls if url for secret in _secrets(url)}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _IN_TEXT.sub(lambda found: _cleaned(found[0]), text)


def _cleaned(url: str) -> str:
    return shown_url(url) if has_user(url) or "?" in url or url_problem(url) else url


def _secrets(url: str) -> Iterator[str]:
    scheme, _, rest = url.partition("://")
    _, path, query = _parts(rest)
    found = [url]
    # Up to the last @: what an unclear URL's password may be.
    before, at, after = rest.rpartition("@")
    if at:
        user, _, password = before.partition(":")
        found += [before, password or user]
        if url_problem(url):
            found += [before, after]
    for key, value in _pairs(query):
        if key not in _PLAIN_KEYS:
            found.append(value or key)
        if not _PLAIN_KEY.fullmatch(key):
            found.append(key)  # rather the rest of a value that holds a bare & or ;
    found.append(query.partition("#")[2])
    if scheme.lower() in _SECRET_PATHS:
        found += [part for part in path.split("/") if len(part) >= _LEAST_PART]
    for secret in found:
        for text in {secret, unquote(secret), unquote_plus(secret)}:
            if len(text) >= _LEAST:
                yield text
            # A driver may quote a part of it, or spell it otherwise.
            if secret is not url:
                yield from re.findall(rf"\w{{{_LEAST_PART},}}", text)


def _parts(rest: str) -> tuple[str, str, str]:
    """Return authority, path and what follows it of the part after the scheme."""
    found = re.fullmatch(r"([^/?#]*)([^?#]*)(.*)", rest, re.DOTALL)
    assert found is not None  # it matches any text
    return found[1], found[2], found[3]


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"[?&#;]", query):
        key, _, value = part.partition("=")
        if part:
            yield key, value
