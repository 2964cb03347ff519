"""What the disk, the database and the table format say when they fail, as one sentence for people.

Errors are recognised by the names of their classes, so that nothing is imported for it: a command
that needs no database must not load one to say that a folder cannot be written.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from mlmon_dagster.errors import MlmonError, StoreError

# Whatever frees room in the store writes what it does first.
_ROOM = "Make room outside of the store, some MB; with them mlmon store maintain frees more"
_STEPS = {
    errno.ENOSPC: f"The disk is full. {_ROOM}",
    errno.EDQUOT: f"The disk quota is used up. {_ROOM}",
    errno.EROFS: "The file system is read-only. Make it writable, or name another folder with "
    "MLMON_STORE",
    errno.EACCES: "This user may not do that there. Give it the rights, or run as the owner of the "
    "store",
    errno.EPERM: "This user may not do that there. Give it the rights, or run as the owner of the "
    "store",
    # SQLite says so of a full disk, too, if it is the index of its journal that has no room.
    errno.EIO: "The disk failed or is full. Make room, or look at the system's log and run "
    "mlmon doctor --deep",
    errno.EMFILE: "Too many files are open. Raise the limit (ulimit -n)",
}
_SIGNS = (
    ("no space left on device", errno.ENOSPC),
    ("database or disk is full", errno.ENOSPC),
    ("disk full", errno.ENOSPC),
    ("could not extend file", errno.ENOSPC),
    ("quota exceeded", errno.EDQUOT),
    ("read-only file system", errno.EROFS),
    ("attempt to write a readonly database", errno.EROFS),
    ("permission denied", errno.EACCES),
    ("unable to open database file", errno.EACCES),
    ("disk i/o error", errno.EIO),
    ("input/output error", errno.EIO),
    ("too many open files", errno.EMFILE),
)
_STATE_DAMAGED = ("malformed", "file is not a database")
_DAMAGED = (
    "the table at",
    "no files found that match",
    "no magic bytes",
    "too small to be a parquet",
    "corrupt",
)
_DATABASE = ("sqlalchemy.exc", "psycopg2", "sqlite3")
_TABLES = ("deltalake", "_internal", "duckdb", "_duckdb", "pyarrow.lib", "pyo3_runtime")
_LONGEST = 300


def sentence(error: BaseException) -> str | None:
    """Say in one line what failed outside of this program, and what to do.

    Args:
        error: What reached the end of a command; its causes are looked at as well.

    Returns:
        The sentence; None if the error is one of this program's own.
    """
    chain = list(_causes(error))
    step = next((step for cause in chain if (step := _step(cause))), None)
    if isinstance(error, MlmonError):
        return _with_step(str(error), step or _cure(chain))
    told = next((e for e in chain if _is_outside(e)), None)
    if told is None:
        return None
    found = _short(told)
    if step:
        return f"{step}, then run the command again. ({found})"
    if cure := _cure(chain):
        return f"The store is damaged: {found} {cure}."
    if _module(told).startswith(_DATABASE):
        return _gone(found)
    return f"{found} Run mlmon doctor --deep; what was stored before is still there."


def sentence_of_failure(text: str) -> str | None:
    """Say in one line what failed outside, if only a traceback's last line is left of it.

    Args:
        text: The error's class with its module, and what it says, as a failed step tells them.

    Returns:
        The sentence; None if it is an error of what was to be computed.
    """
    found = _short(Exception(text.partition("\n")[0]))
    error = Exception(text)
    if text.startswith(f"{StoreError.__module__}.{StoreError.__name__}: "):
        return _with_step(found.partition(": ")[2], _step(error) or _cure([error]))
    if step := _step(error):
        return f"{step}, then run the command again. ({found})"
    if text.startswith(_DATABASE):
        return _cure([error]) or _gone(found)
    return None


def _gone(found: str) -> str:
    return (
        "The state database failed or went away; nothing half done was kept. Check that it "
        f"runs (mlmon doctor), then run the command again. ({found})"
    )


def _with_step(text: str, step: str | None) -> str:
    return text if step is None or step in text else f"{text.rstrip('.')}. {step}."


def _cure(chain: list[BaseException]) -> str | None:
    """Return the next step if something that was kept cannot be read any more."""
    texts = [str(error).lower() for error in chain]
    if any(sign in text for sign in _STATE_DAMAGED for text in texts):
        return (
            "The state database is damaged. Move it away and restore a backup into an empty store "
            "(mlmon restore FILE); without one, see docs/inference-store.md, When something goes "
            "wrong"
        )
    if any(sign in text for sign in _DAMAGED for text in texts):
        return "Run mlmon doctor --deep, which names the damage and the command that repairs it"
    return None


def _is_outside(error: BaseException) -> bool:
    return isinstance(error, OSError) or _module(error).startswith((*_DATABASE, *_TABLES))


def _module(error: BaseException) -> str:
    return type(error).__module__ or ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or getattr(found, "orig", None) or found.__context__


def _step(error: BaseException) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    if number in _STEPS:
        return _STEPS[number]
    text = str(error).lower()
    return next((_STEPS[number] for sign, number in _SIGNS if sign in text), None)


def _short(error: BaseException) -> str:
    """Return what an error says in one line, without the statement that met it."""
    told = getattr(error, "orig", None) or error
    text = " ".join(str(told).split()) or type(told).__name__
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if text.endswith((".", "!", "?")) else f"{text}."
