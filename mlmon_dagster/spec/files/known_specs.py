"""Specs that were parsed before, by their text: of a thousand files YAML takes longest.

What is kept is the declaration as JSON, which is validated again whenever it is read, so that a
file that somebody tampers with, or that an older version wrote, can declare nothing that a file of
``models/`` could not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.model import ModelSpec

_MAX_BYTES = 256 * 1024**2


class KnownSpecs:
    """The specs of a folder that an earlier process could parse.

    Args:
        path: Where they are kept; a file that is missing or damaged is an empty one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = f"mlmon {version('mlmon-dagster')}, pydantic {version('pydantic')}"
        self._kept = self._read()
        self._used: dict[str, str] = {}

    def parsed(self, text: str, parse: Callable[[], ModelSpec]) -> ModelSpec:
        """Return the spec of a text: as it is known, else as it is parsed, and known from then on.

        Raises:
            ConfigError: As ``parse`` does; a text that is wrong is never kept.
        """
        key = hashlib.sha256(text.encode()).hexdigest()
        if (kept := self._kept.get(key)) is not None:
            with contextlib.suppress(ValidationError, ConfigError):
                spec = ModelSpec.model_validate_json(kept)
                self._used[key] = kept
                return spec
        spec = parse()
        declared = spec.model_dump_json(exclude_unset=True, by_alias=True)
        with contextlib.suppress(ValidationError):
            if ModelSpec.model_validate_json(declared) == spec:
                self._used[key] = declared
        return spec

    def save(self) -> None:
        """Keep what was asked for, and nothing else, if there is a folder that can be written."""
        if self._used == self._kept:
            return
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps({"version": self._version, "specs": self._used}))
            draft.replace(self._path)

    def _read(self) -> dict[str, str]:
        try:
            if self._path.stat().st_size > _MAX_BYTES:
                return {}
            found = json.loads(self._path.read_text(encoding="utf-8"))
            specs = found["specs"] if found["version"] == self._version else {}
            return {str(key): str(text) for key, text in specs.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
