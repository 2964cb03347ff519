"""Objects in a bucket: list, fetch, put and delete; and from a path or URL to its place.

A bucket needs the extra ``object-storage``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.names import OBJECT_SCHEMES, holds_credentials, shown_url, without_secrets
from mlmon_dagster.store.places.location import LocalPlace, Location

if TYPE_CHECKING:
    from obstore.store import ObjectStore


_CLIENT_OPTIONS = {
    "allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url", "timeout",
}  # fmt: skip
_BLOCK = 8 << 20


class ChangedError(Exception):
    """The object is not any more what the listing showed."""


@dataclass(frozen=True)
class Listed:
    """One object as a listing shows it.

    Attributes:
        key: Its name below the location that was listed.
        size: Bytes.
        mtime_ns: Its last change, by the server's clock; most servers know whole seconds.
        etag: Another content has another one; empty if the server has none.
        version: Another upload has another one; empty if the bucket keeps no versions.
    """

    key: str
    size: int
    mtime_ns: int
    etag: str
    version: str = ""


@dataclass(frozen=True)
class ObjectPlace(Location):
    """A prefix or an object of a bucket."""

    def explain(self, error: Exception) -> str:
        """Return an error's text, with the next step."""
        return explanation(error)

    def below(self) -> list[str]:
        """Return the names of all objects below."""
        return sorted(found.key for found in listed(self))

    def tables(self, depth: int = 3) -> list[Self]:
        """Return the Delta tables at and below this place."""
        store = connect(self)
        import obstore

        with explained(self.url):
            found = obstore.list_with_delimiter(store)["common_prefixes"]
        names = sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in found)
        if "_delta_log" in names:
            return [self]
        if depth == 0:
            return []
        return [table for name in names for table in (self / name).tables(depth - 1)]

    def read(self) -> bytes | None:
        """Return the content of a small object; None if there is none."""
        store, name = _split_object(self)
        import obstore

        try:
            with explained(self.url):
                return bytes(obstore.get(store, name).bytes())
        except FileNotFoundError:
            return None

    def keep(self, source: Path) -> None:
        """Upload a file of this machine."""
        self.write(source)

    def write(self, content: Path | bytes) -> None:
        """Upload a file or bytes: the object is there whole, or not at all."""
        store, name = _split_object(self)
        import obstore

        with explained(self.url):
            obstore.put(store, name, content)

    def fetch(self, target: Path) -> str:
        """Download the object; return its SHA-256."""
        try:
            return fetch(self, target)
        except ChangedError as error:
            raise StoreError(f"There is no object {self.url}.") from error

    def delete(self) -> None:
        """Delete the object; none is fine."""
        store, name = _split_object(self)
        import obstore

        with suppress(FileNotFoundError), explained(self.url):  # S3 does not say so, others do
            obstore.delete(store, name)


def connect(location: Location) -> ObjectStore:
    """Return a client whose paths are relative to a location.

    Raises:
        StoreError: If the extra is not installed, or an option is unknown.
    """
    return _connect(location.url, tuple(sorted(location.options.items())))


@lru_cache(maxsize=256)
def _connect(url: str, options: tuple[tuple[str, str], ...], patience: int = 60) -> ObjectStore:
    try:
        import obstore.store
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{url} is in object storage, which needs an extra package: "
            "pip install 'mlmon-dagster[object-storage]'."
        ) from error
    known = {"true": True, "false": False}
    client: Any = {k: known.get(v.lower(), v) for k, v in options if k in _CLIENT_OPTIONS}
    config: Any = {k: v for k, v in options if k not in _CLIENT_OPTIONS}
    with explained(url):
        return obstore.store.from_url(
            url,
            config=config,
            client_options=client,
            retry_config={"retry_timeout": dt.timedelta(seconds=patience)},
        )


def listed(location: Location) -> Iterator[Listed]:
    """List every object below a location, in the order of the server.

    One request per thousand objects.

    Raises:
        StoreError: If the bucket cannot be listed.
    """
    store = connect(location)
    import obstore

    with explained(location.url):
        for chunk in obstore.list(store):
            for meta in chunk:
                yield Listed(
                    meta["path"],
                    meta["size"],
                    int(meta["last_modified"].timestamp()) * 1_000_000_000,
                    meta["e_tag"] or "",
                    meta["version"] or "",
                )


def probe(location: Location, *, is_written: bool) -> str:
    """Try out what is needed of a place, within seconds; return what is wrong, or nothing.

    Args:
        location: A prefix of a bucket.
        is_written: Tables are to be kept there: also write, twice under one name, and delete.
    """
    try:
        store = _connect(location.url, tuple(sorted(location.options.items())), patience=2)
        import obstore.store
        from obstore.exceptions import AlreadyExistsError

        with explained(location.url):
            next(iter(obstore.list(store)), None)
            if not is_written:
                return ""
            name = f".probe-{uuid.uuid4().hex}"
            obstore.put(store, name, b"1", mode="create")
            try:
                obstore.put(store, name, b"2", mode="create")
            except AlreadyExistsError:
                return ""
            finally:
                obstore.delete(store, name)
    except StoreError as error:
        return str(error)
    return (
        f"{location.url}: the server lets a second writer replace an object that was to be created "
        "once (it ignores If-None-Match), so two runs at once could lose a commit. Use a server "
        "with conditional writes: Amazon S3, Google Cloud Storage, Azure, or a recent "
        "SeaweedFS, Ceph or R2."
    )


def fetch(location: Location, target: Path | None, etag: str = "") -> str:
    """Download an object to a file of this machine; return its SHA-256.

    Args:
        location: The object.
        target: Where to; None only hashes it.
        etag: If given, the content wanted.

    Raises:
        ChangedError: If there is no such object, or not with that content.
        StoreError: If it cannot be read.
    """
    store, name = _split_object(location)
    import obstore
    from obstore.exceptions import PreconditionError

    digest = hashlib.sha256()
    try:
        with explained(location.url), _open_target(target) as write:
            found = obstore.get(store, name, options={"if_match": etag} if etag else {})
            for block in found.stream(min_chunk_size=_BLOCK):
                digest.update(block)
                write(block)
    except (FileNotFoundError, PreconditionError) as error:
        what = "vanished" if isinstance(error, FileNotFoundError) else "changed"
        raise ChangedError(f"{location.url}: {what}") from error
    return digest.hexdigest()


@contextmanager
def _open_target(target: Path | None) -> Iterator[Any]:
    if target is None:
        yield lambda _block: None
        return
    with target.open("wb") as copy:
        yield copy.write


def _split_object(location: Location) -> tuple[ObjectStore, str]:
    folder, _, name = location.url.rpartition("/")
    return connect(ObjectPlace(folder, location.options)), name


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the client's errors into ours, with the next step; conditions that failed pass."""
    from obstore import exceptions as known

    try:
        yield
    except (known.AlreadyExistsError, known.PreconditionError, FileNotFoundError):
        raise
    except (known.BaseError, ValueError, OSError) as error:
        raise StoreError(f"{url}: {explanation(error)}") from error


def explanation(error: Exception) -> str:
    """Say in one line what the server or the client complains about, and what to do."""
    text = " ".join(without_secrets(str(error).split("Debug source:")[0]).split())
    advice: Mapping[str, str] = {
        "NoSuchBucket": "The bucket does not exist. Create it, or correct its name.",
        "InvalidAccessKeyId": "The server does not know the access key. Check AWS_ACCESS_KEY_ID.",
        "SignatureDoesNotMatch": "The secret key is wrong. Check AWS_SECRET_ACCESS_KEY.",
        "AccessDenied": "The credentials may not do this. It takes the rights to list, read, "
        "write and delete objects of the prefix.",
        "169.254.169.254": "No credentials were found. Set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or run with an instance role.",
        "error sending request": "The server does not answer. Check AWS_ENDPOINT_URL and the "
        "network.",
        "HTTP error": "The server does not answer. Check AWS_ENDPOINT_URL and the network.",
    }
    found = [step for sign, step in advice.items() if sign in text]
    return f"{found[0]} ({text[:300]})" if found else text[:500]


_FORBIDDEN = "[]^|\\"  # deltalake panics on them


def place_at(url: str, options: Mapping[str, str] | None = None) -> Location:
    """Return the place of an absolute path, or of a URL of object storage."""
    return ObjectPlace(url, dict(options or {})) if "://" in url else LocalPlace(url)


def place_of(place: str | Path, options: Mapping[str, str] | None = None) -> Location:
    """Read a path or a URL that a person gave.

    Args:
        place: A path, also with ``~`` or relative; or a URL of object storage.
        options: Storage options; of no use for a path.

    Raises:
        StoreError: If it cannot hold a store.
        ConfigError: If it is a URL that holds credentials; they are not repeated.
    """
    text = str(place)
    is_remote = "://" in text
    if is_remote:
        scheme, _, rest = text.partition("://")
        if holds_credentials(text):
            raise ConfigError(
                f"The place {shown_url(text)} (MLMON_STORE, or the path of a source) holds "
                "credentials or a query, which would be shown wherever it is. Take them out "
                "and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN "
                "or another of the variables in docs/object-storage.md."
            )
        if scheme not in OBJECT_SCHEMES or not rest.strip("/"):
            raise StoreError(
                f"The store's place {shown_url(text)} cannot be used: expected a path on this "
                f"machine, or a URL of {', '.join(f'{s}://' for s in OBJECT_SCHEMES)} with "
                "a bucket, such as s3://bucket/monitoring."
            )
        text = f"{scheme}://{rest.strip('/')}"
    else:
        text = str(Path(text).expanduser().absolute())
    if bad := sorted(set(text) & set(_FORBIDDEN)):
        raise StoreError(
            f"The store's place {text!r} cannot be used: it contains {' '.join(bad)}. "
            f"Use a name without any of {' '.join(_FORBIDDEN)}"
        )
    return place_at(text, options)
