"""Refused files of many packings and encodings, and what an erasure leaves of them.

Whether a file names an id is known from how it was made, not from any search.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.erasure import erase
from mlmon_dagster.store.erasure.places import find_traces
from tests.conftest import make_spec
from tests.ingest.landing import NOW

SPEC: Final[ModelSpec] = make_spec()
IDS: Final = ("17", "Zoë-4711", 'quo"te,1', "5f0c6f1e-8d6e-4b5e", "user 9\\b", "0042")
Rows = list[dict[str, str]]


def _csv(rows: Rows) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ["id", "score"])
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _zipped(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/rows.csv", content)
    return sink.getvalue()


def _tarred(content: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        entry = tarfile.TarInfo("rows.csv")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def _parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd")
    return sink.getvalue()


def _cut(content: bytes) -> bytes:
    return content[: max(len(content) * 2 // 3, 12)]


def _hidden(content: bytes) -> bytes:
    return b"7z\xbc\xaf\x27\x1c" + bytes(byte ^ 0x5A for byte in content)


def _codec(name: str) -> Callable[[bytes], bytes]:
    return lambda content: bytes(pa.compress(content, codec=name, asbytes=True))


TEXTS: Final[dict[str, Callable[[Rows], bytes]]] = {
    "CSV": lambda rows: _csv(rows).encode(),
    "JSON Lines": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    "JSON with letters": lambda rows: json.dumps(rows, ensure_ascii=False).encode(),
    "UTF-16": lambda rows: _csv(rows).encode("utf-16"),
    "UTF-16 without mark": lambda rows: _csv(rows).encode("utf-16-be"),
    "UTF-32": lambda rows: _csv(rows).encode("utf-32"),
    "Latin-1": lambda rows: _csv(rows).encode("latin-1"),
    "Parquet": _parquet,
}
PACKINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip, cut": lambda content: _cut(gzip.compress(content)),
    "gzip, something after it": lambda content: gzip.compress(b"id\n") + content,
    "gzip, two members": lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:]),
    "gzip in gzip": lambda content: gzip.compress(gzip.compress(content)),
    "zip": _zipped,
    "zip, cut": lambda content: _cut(_zipped(content)),
    "zip in gzip": lambda content: gzip.compress(_zipped(content)),
    "tar.gz": _tarred,
    "bzip2": bz2.compress,
    "bzip2, cut": lambda content: _cut(bz2.compress(content)),
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "zstd": _codec("zstd"),
    "zstd, cut": lambda content: _cut(_codec("zstd")(content)),
    "zstd in zip": lambda content: _zipped(_codec("zstd")(content)),
    "Parquet, cut": lambda content: b"PAR1" + content,
    "brotli": _codec("brotli"),
    "of an unknown kind": _hidden,
}


@dataclass(frozen=True)
class Found:
    """What an erasure left of generated files.

    Attributes:
        n_files: That were made.
        n_named: Of them, that name the erased id.
        back: Kinds of those that name it and are still there.
        lost: Kinds of those that do not name it, can be read, and are gone.
        traces: What the search of the whole store calls a trace afterwards.
    """

    n_files: int
    n_named: int
    back: tuple[str, ...]
    lost: tuple[str, ...]
    traces: tuple[str, ...]


def erase_among_copies(store: Store, rng: random.Random, n: int) -> Found:
    """Put n refused files into a store, erase one id, and look at what is left of them."""
    folder = Path(str(store.root)) / "quarantine" / SPEC.model
    folder.mkdir(parents=True, exist_ok=True)
    gone = rng.choice(IDS)
    others = [id_ for id_ in IDS if id_ != gone]
    kinds = [(text, packing) for text in TEXTS for packing in PACKINGS]
    made: dict[Path, tuple[str, bool, bool]] = {}
    for i in range(n):
        text, packing = kinds[i % len(kinds)] if n >= len(kinds) else rng.choice(kinds)
        is_named = rng.random() < 0.6
        ids = [rng.choice(others) for _ in range(rng.randint(1, 30))]
        if is_named:
            ids[rng.randrange(len(ids))] = gone
        content = PACKINGS[packing](TEXTS[text]([{"id": x, "score": "0.5"} for x in ids]))
        path = folder / f"{i:064x}"
        path.write_bytes(content)
        can_be_read = "cut" not in packing and packing not in ("brotli", "of an unknown kind")
        made[path] = f"{text}, {packing}", is_named, can_be_read and text != "UTF-16 without mark"
    erase.erase(store, SPEC, [gone], now=NOW)
    proof = find_traces(store, [gone])
    return Found(
        n,
        sum(is_named for _, is_named, _ in made.values()),
        tuple(kind for path, (kind, is_named, _) in made.items() if is_named and path.exists()),
        tuple(
            kind
            for path, (kind, is_named, can_be_read) in made.items()
            if can_be_read and not is_named and not path.exists()
        ),
        (*proof.traces, *proof.unread),
    )
