"""Files beside the landing files that no source matches: nobody reads them, so somebody says so.

Looked at are the folders that a glob begins with, all that is below them, and data files one
folder up; never the project folder itself, which is for people.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from mlmon_dagster.errors import MlmonError
from mlmon_dagster.ingest.faults import names
from mlmon_dagster.ingest.formats.known import ending_of
from mlmon_dagster.ingest.landing import is_unfinished, listed_folder, name_matches
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.sources import STREAMS, FileSource
from mlmon_dagster.store import Store
from mlmon_dagster.store.places.objects import ObjectPlace, listed
from mlmon_dagster.store.state import manifest

MAX_LOOKED_AT: Final = 50_000  # entries of folders; beyond it there is no such list


def stray_files(
    store: Store, project: Path, specs: Sequence[ModelSpec], every: Sequence[ModelSpec]
) -> list[str]:
    """Return the files beside the landing files of some models that no source matches.

    Args:
        store: The store; files that were read before are left out, whatever the globs are now.
        project: The folder that globs are relative to.
        specs: The models whose folders are looked at.
        every: All models, whose globs count.
    """
    globs = [source.path for _, source in _sources([*every, *specs])]
    found: dict[str, None] = {}
    for _, source in _sources(specs):
        near = _objects(source.path, store.storage_options) if "://" in source.path else _files(
            project, source.path
        )  # fmt: skip
        found.update((n, None) for n in near if not any(name_matches(n, g) for g in globs))
    if not found:
        return []
    known = {
        path
        for spec in every
        for stream in STREAMS
        for path in manifest.paths(store.state, spec.model, stream)
    }
    return sorted(name for name in map(printable, found) if name not in known)


def told_of(strays: Sequence[str], specs: Sequence[ModelSpec]) -> str:
    """Say which files are not read, and what would be; empty if there are none."""
    if not strays:
        return ""
    read = "; ".join(
        f"{stream} of {spec.model} from {source.path}"
        for spec in specs
        for stream, source in _sources([spec])
    )
    noun = "file is" if len(strays) == 1 else "files are"
    found = f"{len(strays):,} {noun} not read, since no source matches: {names(strays)}."
    return f"{found} Read are {read}."


def _sources(specs: Sequence[ModelSpec]) -> Iterator[tuple[str, FileSource]]:
    for spec in specs:
        for stream in STREAMS:
            source = getattr(spec.source, stream)
            if isinstance(source, FileSource):
                yield stream, source


def _files(project: Path, pattern: str) -> Iterator[str]:
    """Yield files in and below the folder of a glob, and data files beside that folder."""
    folder = project / _folder(pattern)
    try:
        if folder == project or not folder.is_dir():
            return
    except OSError:
        return  # the ingest itself says what is wrong
    left = MAX_LOOKED_AT
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        left -= len(files)
        if left < 0:
            return
        for name in files:
            if not is_unfinished(name):
                yield (Path(place) / name).relative_to(project).as_posix()
    if folder.parent != project:
        for path in _entries(folder.parent):
            if ending_of(path.name) != ".bin" and not is_unfinished(path.name) and path.is_file():
                yield path.relative_to(project).as_posix()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # the ingest itself says what is wrong


def _folder(pattern: str) -> Path:
    """Return the folder that a glob begins with."""
    folders = PurePosixPath(pattern).parts[:-1]
    n_fixed = next((i for i, part in enumerate(folders) if set(part) & set("*?[")), len(folders))
    return Path(*folders[:n_fixed])


def _objects(url: str, options: Mapping[str, str]) -> Iterator[str]:
    folder = listed_folder(url)
    try:
        for number, found in enumerate(listed(ObjectPlace(folder, options))):
            *above, name = found.key.split("/")
            hidden = any(part.startswith((".", "_")) for part in above)
            if number >= MAX_LOOKED_AT:
                return
            if name and not hidden and not is_unfinished(name):
                yield f"{folder}/{found.key}"
    except MlmonError:
        return  # the ingest itself says what is wrong
