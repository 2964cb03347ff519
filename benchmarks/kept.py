"""Results of a long run, kept in a file, so that it can be stopped and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = "results so far: read, gone on with, written; of one version of the code"


class Kept:
    """Results by name, as JSON.

    Args:
        path: The file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        is_there = path is not None and path.exists()
        self._known: dict[str, Any] = json.loads(path.read_text()) if path and is_there else {}

    def of(self, name: object, compute: Callable[[], Any]) -> Any:
        """Return a result, computed if it is not known yet."""
        key = str(name)
        if key not in self._known:
            self._known[key] = compute()
            if self._path is not None:
                new = self._path.with_name(f"{self._path.name}.new")
                new.write_text(json.dumps(self._known))
                new.replace(self._path)
        return self._known[key]
