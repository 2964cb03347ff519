"""Which of many models the planner need not look at again, since nothing of theirs moved.

A look at one model lists its landing files and asks the state a dozen questions. Of a thousand
models that take in a file a day, almost every look finds what the one before has found.
"""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.sources import FileSource
from mlmon_dagster.spec.spans import landing_folder
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.window_state import Progress

FEW = 50  # models: so many are looked at each time
LOOKED_AT_EVERY = dt.timedelta(minutes=5)  # to twice that, each model at its own pace
_WILD = frozenset("*?[")
_Folders = tuple[int | None, ...]


@dataclass(frozen=True)
class _Look:
    """What a model was like when a look found nothing to do."""

    spec: ModelSpec
    folders: _Folders
    progress: Progress | None
    begin: dt.datetime
    end: dt.datetime


@dataclass
class QuietModels:
    """What a process remembers of its looks; a new process looks at every model.

    A file that is written anew in its place, a pinned baseline and what else moves no folder and
    no window is seen when the model is looked at again, at the latest after ten minutes.
    """

    project: Project
    _looks: dict[str, _Look] = field(default_factory=dict)

    def progress(self) -> Mapping[str, Progress]:
        """Return how far every model has come, with one query."""
        return window_state.load_progress(self.project.store.state)

    def is_quiet(self, spec: ModelSpec, progress: Mapping[str, Progress]) -> bool:
        """Tell whether a look at a model would find what the one before found."""
        known = self._looks.get(spec.model)
        return (
            known is not None
            and known.begin <= self.project.now() < known.end
            and known.spec == spec
            and known.progress == progress.get(spec.model)
            and known.folders == self.folders(spec)
        )

    def folders(self, spec: ModelSpec) -> _Folders | None:
        """Return when names in a model's landing folders last changed.

        None if it is not that what tells of new rows: of tables, queries, buckets, folders that a
        pattern picks, and of assets that say themselves when they are written.
        """
        found: list[int | None] = []
        for _, source in spec.source:
            if source is None:
                continue
            if not isinstance(source, FileSource) or source.asset or "://" in source.path:
                return None
            folder = PurePosixPath(source.path).parent
            if _WILD & set(str(folder)):
                return None
            found.append(_changed(self.project.folder / folder))
        if spec.spans is not None:
            found.append(_changed(self.project.folder / landing_folder(spec.model)))
        return tuple(found)

    def note(
        self,
        spec: ModelSpec,
        folders: _Folders | None,
        progress: Mapping[str, Progress],
    ) -> None:
        """Remember that a look, begun when the folders and the windows were so, found nothing."""
        if folders is None:
            return
        now = self.project.now()
        own_pace = dt.timedelta(seconds=zlib.crc32(spec.model.encode()) % 300)
        end = min(now + LOOKED_AT_EVERY + own_pace, window_containing(spec.time, now).end)
        look = _Look(spec, folders, progress.get(spec.model), now, end)
        self._looks[spec.model] = look

    def forget(self, spec: ModelSpec) -> None:
        """Look at a model the next time, whatever happens until then."""
        self._looks.pop(spec.model, None)


def _changed(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None
