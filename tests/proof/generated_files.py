"""Rows of a generated model written as a producer would, in every format."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from tests.proof.generated_spec import features_of, prediction_columns
from tests.proof.spec_space import Choice

Cells = dict[str, Any]
LANDED = 1_709_000_000
_TYPES: dict[type, tuple[pa.DataType, type[Any]]] = {
    bool: (pa.bool_(), sa.Boolean),
    int: (pa.int64(), sa.BigInteger),
    float: (pa.float64(), sa.Float),
    str: (pa.string(), sa.Text),
}


class Producer:
    """Writes files, or rows of a table, below a project folder.

    Attributes:
        n_written: Files so far; each is a minute younger than the one before it.
    """

    def __init__(self, choice: Choice, project: Path) -> None:
        self._choice = choice
        self._project = project
        self._zone = ZoneInfo(choice["zone"])
        self.url = f"sqlite:///{project}/source.db"
        self.n_written = 0

    def write(self, stream: str, name: str, rows: Sequence[Cells], *, broken: bool = False) -> None:
        """Write rows; broken: so that the file is refused as a whole."""
        format_ = self._choice["format" if stream == "predictions" else "actuals"]
        cells = [self._written(row) for row in rows]
        if format_ == "sql":
            self._insert(stream, cells)
            return
        content = self._content(format_, cells)
        ending = {"csv_gz": "csv.gz", "bare_csv": "csv", "kserve": "jsonl", "sagemaker": "jsonl"}
        if broken:
            content = content[: 2 * len(content) // 3]
            content += b"\x00{" if format_ not in ("parquet", "csv_gz") else b""
        self.put(stream, f"{name}.{ending.get(format_, format_)}", content)

    def put(self, stream: str, name: str, content: bytes) -> None:
        """Write a landing file."""
        path = self._project / "landing" / stream / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.n_written += 1
        os.utime(path, (LANDED + 60 * self.n_written,) * 2)

    def copy(self, stream: str, name: str, other: str) -> None:
        """Deliver a file once more under another name."""
        [path] = (self._project / "landing" / stream).glob(f"{name}.*")
        self.put(stream, path.name.replace(name, other, 1), path.read_bytes())

    def _written(self, row: Cells) -> Cells:
        return {name: self._time(v) if isinstance(v, dt.datetime) else v for name, v in row.items()}

    def _time(self, moment: dt.datetime) -> Any:
        if self._choice["times"] == "epoch":
            return int(moment.timestamp()) * 1_000
        if self._choice["times"] == "naive":
            return moment.astimezone(self._zone).replace(tzinfo=None).isoformat()
        return moment.isoformat()

    def _content(self, format_: str, rows: list[Cells]) -> bytes:
        if format_ == "parquet":
            return self._parquet(rows)
        if format_ == "jsonl":
            return "".join(json.dumps(row) + "\n" for row in rows).encode()
        if format_ == "kserve":
            return "".join(self._kserve(row) for row in rows).encode()
        if format_ == "sagemaker":
            return "".join(self._sagemaker(row) for row in rows).encode()
        text = self._csv(rows, is_bare=format_ == "bare_csv").encode()
        return gzip.compress(text, mtime=0) if format_ == "csv_gz" else text

    def _csv(self, rows: list[Cells], *, is_bare: bool) -> str:
        out = io.StringIO()
        names = prediction_columns(self._choice) if is_bare else list(rows[0])
        writer = csv.writer(out, delimiter=";" if is_bare else ",", lineterminator="\n")
        if not is_bare:
            writer.writerow(names)
        null = "NULL" if self._choice["null_tokens"] == "some" else ""
        for row in rows:
            cells = [row[name] for name in names]
            writer.writerow(
                [null if c is None else str(c).lower() if isinstance(c, bool) else c for c in cells]
            )
        return out.getvalue()

    def _parquet(self, rows: list[Cells]) -> bytes:
        arrays = {}
        for name in rows[0]:
            cells = [row[name] for row in rows]
            kind = next((_TYPES[type(c)][0] for c in cells if c is not None), pa.null())
            arrays[name] = pa.array(cells, kind)
        out = io.BytesIO()
        pq.write_table(pa.table(arrays), out, write_page_checksum=True)
        return out.getvalue()

    def _ends(self, row: Cells) -> tuple[Cells, Cells]:
        """Divide a row into what the model took and what it gave; what is null is not there."""
        features = features_of(self._choice)
        taken = {n: v for n, v in row.items() if n in features and v is not None}
        given = {
            n: v for n, v in row.items() if n not in features and n != "id" and n != "at"
            if v is not None
        }  # fmt: skip
        return taken, given

    def _kserve(self, row: Cells) -> str:
        taken, given = self._ends(row)
        kind = "org.kubeflow.serving.inference."
        event = {"specversion": "1.0", "id": row["id"], "time": row["at"]}
        tensors = [
            [{"name": n, "shape": [1], "datatype": "X", "data": [v]} for n, v in end.items()]
            for end in ({**taken, "always": 1}, {**given, "always": 1})
        ]
        request = {**event, "type": f"{kind}request", "data": {"inputs": tensors[0]}}
        response = {**event, "type": f"{kind}response", "data": {"outputs": tensors[1]}}
        is_bad = row["at"] is None
        return json.dumps(request) + "\n" + ("" if is_bad else json.dumps(response) + "\n")

    def _sagemaker(self, row: Cells) -> str:
        ends = []
        for cells in self._ends(row):
            body = json.dumps({**cells, "always": 1})
            ends.append(
                {"observedContentType": "application/json", "data": body, "encoding": "JSON"}
            )
        meta = {"eventId": row["id"], "inferenceTime": row["at"]}
        captured = {"endpointInput": ends[0], "endpointOutput": ends[1]}
        return json.dumps({"captureData": captured, "eventMetadata": meta}) + "\n"

    def _insert(self, stream: str, rows: list[Cells]) -> None:
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        inspector = sa.inspect(engine)
        if not inspector.has_table(stream):
            columns = [sa.Column("row_no", sa.Integer, primary_key=True, autoincrement=True)]
            for name in rows[0]:
                kind = next(
                    (_TYPES[type(r[name])][1] for r in rows if r[name] is not None), sa.Text
                )
                columns.append(sa.Column(name, kind()))
            sa.Table(stream, meta := sa.MetaData(), *columns)
            meta.create_all(engine)
        table = sa.Table(stream, sa.MetaData(), autoload_with=engine)
        with engine.begin() as conn:
            conn.execute(sa.insert(table), rows)
        engine.dispose()
