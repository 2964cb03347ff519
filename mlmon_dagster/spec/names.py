"""Which names a spec may use, and what to say about the others."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterable
from urllib.parse import quote

ALL = "all"  # instead of one slice, version or dataset
TABLE = ":table"  # instead of one column

# What the store calls its own columns; a feature of that name would overwrite them.
RESERVED_COLUMNS = frozenset(
    {
        ALL, "prediction_id", "dataset", "event_time", "model_version", "prediction", "score",
        "latency_ms", "status", "trace_id", "tags", "window_start", "window_end", "window_date",
        "nonfinite", "row_hash", "file_sha", "row_number", "ingested_at", "actual", "actual_time",
        "outcome", "deleted", "n_prediction_rows",
    }
)  # fmt: skip
# Names of asset groups that are not models'.
RESERVED_MODELS = frozenset({"overview", "default", ALL})

_MODEL = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FEATURE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# Dagster's own rule for e-mail owners.
_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}\b")
_TEAM = re.compile(r"team:[A-Za-z0-9._-]{1,100}")
# Files beside the zones, and folders that hold every zone once more.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory", "posix", "right"})
OBJECT_SCHEMES = ("s3", "gs", "abfss")  # object storage that is read and written


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

    Either a path below the project folder, or a URL such as ``s3://bucket/landing/*.parquet``.
    """
    if not path or not path.isprintable():
        return "a path is printable text such as landing/predictions/*.parquet"
    if "://" in path:
        return _url_problem(path)
    if path.startswith(("/", "~")) or "\\" in path or re.match(r"[A-Za-z]:", path):
        return f"{_cut(path)} must be relative to the project folder, with / between folders"
    if ".." in path.split("/"):
        return f"{_cut(path)} leaves the project folder; remove '..'"
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


def listed(names: Iterable[str], most: int = 12) -> str:
    """Join names for a message, at most ``most`` of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


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
