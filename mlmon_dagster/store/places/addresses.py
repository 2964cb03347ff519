"""From the path or URL of a place to the place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.names import OBJECT_SCHEMES, holds_credentials, shown_url
from mlmon_dagster.store.places.location import LocalPlace, Location
from mlmon_dagster.store.places.objects import ObjectPlace

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
