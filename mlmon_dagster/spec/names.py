"""Which names and addresses a spec may use, and what to say about the others.

Addresses may hold secrets: they are shown without, and refused where they are not clear. A URL
carries secrets in its user information, in its query, and, of webhooks, in its path. What cannot
be read for certain is not shown at all: a slash or an @ in a password that is not percent-encoded
moves the password into the part that looks like a host or a path.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

FieldPath = tuple[str | int, ...]  # of a key in a spec
Found = Iterator[tuple[FieldPath, str]]  # where something is wrong, and what
ALL = "all"  # instead of one slice, version or dataset
TABLE = ":table"  # instead of one column
ROWS = ":rows"  # the profiled column of hashes of whole rows
OUTPUTS = ("score", "prediction", "actual")  # columns that features and the model make
NO_VERDICT: Final = "no_verdict"  # instead of the metric of an alert that a family cannot judge
# Families of monitors; `spec/monitors.py` says what each is.
SCHEMA: Final = "schema"
FRESHNESS: Final = "freshness"
QUALITY: Final = "quality"
DRIFT: Final = "drift"
PERFORMANCE: Final = "performance"
ESTIMATED_PERFORMANCE: Final = "estimated_performance"
SERVICE: Final = "service"
BUSINESS: Final = "business"
VERSIONS: Final = "versions"
CUSTOM: Final = "custom"
# What the store calls its own columns; a feature of that name would overwrite them.
RESERVED_COLUMNS = frozenset(
    {
        ALL, "prediction_id", "dataset", "event_time", "model_version", "prediction", "score",
        "latency_ms", "status", "trace_id", "tags", "window_start", "window_end", "window_date",
        "nonfinite", "row_hash", "file_sha", "row_number", "ingested_at", "actual", "actual_time",
        "deleted", "n_prediction_rows", "n_spans", "base_value", "explainer",
    }
)  # fmt: skip
# Names of asset groups that are not models'.
RESERVED_MODELS = frozenset({"mlmon", "default", ALL})
_MODEL = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FEATURE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# Dagster's own rule for e-mail owners.
_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}\b")
_TEAM = re.compile(r"team:[A-Za-z0-9._-]{1,100}")
# Files beside the zones, and folders that hold every zone once more.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory", "posix", "right"})
OBJECT_SCHEMES = ("s3", "gs", "abfss")  # object storage that is read and written
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


def model_problem(name: str) -> str | None:
    """Say why a text cannot name a model, or None if it can."""
    if not _MODEL.fullmatch(name):
        return (
            f"{_cut(name)} cannot name a model: use lower-case letters, digits and _, starting "
            f"with a letter, at most 63{_slug_hint(name.lower(), 'model')}"
        )
    if name in RESERVED_MODELS:
        return f"'{name}' is taken by the tool itself; choose another name, such as {name}_model"
    return None


def feature_problem(name: str) -> str | None:
    """Say why a text cannot name a feature, or None if it can."""
    if not _FEATURE.fullmatch(name):
        return (
            f"{_cut(name)} cannot name a feature: use letters, digits and _, not starting with a "
            f"digit, at most 63{_slug_hint(name, 'feature')}"
        )
    if name.lower() in RESERVED_COLUMNS:
        return f"'{name}' is a column of the store itself; rename the feature, such as {name}_value"
    return None


def column_problem(name: str) -> str | None:
    """Say why a text cannot name a column of a landing file, or None if it can."""
    if not 1 <= len(name.encode(errors="replace")) <= 255:
        return "a column name has 1 to 255 bytes"
    if name != name.strip():
        return f"{_cut(name)} starts or ends with a space; rename the column in the files"
    if not name.isprintable():
        return f"{_cut(name)} holds characters that cannot be printed; rename the column"
    if any(quote in name for quote in "'\"`"):
        return f"{_cut(name)} holds a quote; rename the column in the files"
    return None


def owner_problem(owner: str) -> str | None:
    """Say why a text cannot be an owner, or None if it can."""
    if _EMAIL.fullmatch(owner) or _TEAM.fullmatch(owner):
        return None
    hint = f"; did you mean team:{owner}?" if re.fullmatch(r"[a-z0-9._-]+", owner) else ""
    return f"{_cut(owner)} is not an owner: write an e-mail address or team:<name>{hint}"


def channel_problem(channel: str) -> str | None:
    """Say why a text is not a Slack channel, or None if it is."""
    if re.fullmatch(r"#[\w.-]{1,80}|[CG][A-Z0-9]{6,20}", channel):
        return None
    return f"{_cut(channel)} is not a Slack channel such as '#ml-alerts' or C0123456789"


def zone_problem(zone: str) -> str | None:
    """Say why a text is not an IANA time zone, or None if it is."""
    if _is_zone(zone):
        return None
    known = zoneinfo.available_timezones() - _NO_ZONES
    return f"{_cut(zone)} is not a time zone{did_you_mean(zone, known)}"


def path_problem(path: str) -> str | None:
    """Say why a text is not a glob of landing files, or None if it is.

    A path below the project folder, an absolute one, or a URL such as ``s3://bucket/in/*.parquet``.
    """
    if not path or not path.isprintable():
        return "a path is printable text such as landing/predictions/*.parquet"
    if "://" in path:
        return _url_problem(path)
    if path.startswith("~") or "\\" in path or re.match(r"[A-Za-z]:", path):
        return f"{_cut(path)} must be a path below the project folder, or begin with /"
    if ".." in path.split("/"):
        return f"{_cut(path)} climbs with '..'; a place outside the project is written from / on"
    if not path.strip("/"):
        return f"{_cut(path)} is all of the machine; name the folder"
    return None


def _url_problem(url: str) -> str | None:
    scheme, _, rest = url.partition("://")
    if scheme not in OBJECT_SCHEMES:
        known = ", ".join(f"{name}://" for name in OBJECT_SCHEMES)
        return (
            f"{_cut(url)} cannot be read; files below the project folder can, and {known} objects"
        )
    bucket, _, key = rest.partition("/")
    user, at, _ = bucket.rpartition("@")
    if (at and (scheme != "abfss" or ":" in user)) or ("@" in key and ":" in bucket):
        return (
            f"this {scheme}:// address holds credentials; they belong into environment variables "
            "such as AWS_SECRET_ACCESS_KEY, and this one should be revoked"
        )
    if not bucket or not key or set(bucket) & set("*?["):
        return f"{_cut(url)} must name a bucket and a glob, as s3://bucket/landing/*.parquet does"
    if any(part in ("", ".", "..") for part in key.split("/")):
        return f"{_cut(url)} has an empty part or one of dots; an object's name has none"
    return None


def collisions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield the pairs (later, earlier) of names that differ in upper and lower case only."""
    seen: dict[str, str] = {}
    for name in names:
        earlier = seen.setdefault(name.casefold(), name)
        if earlier != name:
            yield name, earlier


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to a wrong one, or nothing."""
    by_fold = {name.casefold(): name for name in sorted(known)}
    word = word[:100].casefold()
    near = difflib.get_close_matches(word, by_fold, n=1, cutoff=0.6)
    near = near or [name for name in by_fold if len(word) >= 3 and name.startswith(word)]
    return f"; did you mean '{by_fold[near[0]]}'?" if near else ""


def offer(word: str, known: Iterable[str], most: int = 12, called: str = "Known") -> str:
    """Return what a message says after a wrong word: the nearest known one, then all of them."""
    known = list(known)
    return f"{did_you_mean(word, known) or '.'} {called}: {listed(known, most)}"


def say_if(path: FieldPath, problem: str | None) -> Found:
    """Yield a problem with its place, if there is one."""
    if problem is not None:
        yield path, problem


def place_below(path: FieldPath, found: Found) -> Found:
    """Yield problems of a part with their places in the whole."""
    yield from (((*path, *inner), said) for inner, said in found)


def listed(names: Iterable[str], most: int = 12) -> str:
    """Join names for a message, at most ``most`` of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def counted(n: int, noun: str) -> str:
    """Write a number with what it counts.

    Example:
        >>> counted(1, "window"), counted(2_000, "row")
        ('1 window', '2,000 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def joined(parts: Sequence[str]) -> str:
    """Write a list as people do: ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _slug_hint(name: str, prefix: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9_]+", "_", name[:200]).strip("_")[:40]
    if not re.search(r"[A-Za-z0-9]", slug):
        return ""
    return f"; for instance {slug if slug[0].isalpha() else f'{prefix}_{slug}'}"


def _cut(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:59] + "…")


def _is_zone(zone: str) -> bool:
    if zone.partition("/")[0] in _NO_ZONES:
        return False
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: names a folder
        return False
    return True


def score_column(label: str) -> str:
    """Return the store's column of a class's score; free of characters that Delta refuses."""
    return f"score:{quote(label, safe='')}"


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


def web_address_problem(url: str) -> str | None:
    """Say why an address that is no secret cannot be asked; None if it can."""
    if problem := url_problem(url):
        return problem
    if url.partition("://")[0] not in ("http", "https"):
        return "an address starts with http:// or https://"
    if "@" in _parts(url.partition("://")[2])[0] or secret_keys(url):
        return "this address looks as if it held a secret; use url_env"
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
