"""A small MLflow over real HTTP: it answers as MLflow 3.17.2 answered when it was asked.

`test_registry.py` has the differences that matter; the whole texts were recorded from
``mlflow server`` on SQLite (keys that MLflow sends and nobody reads are kept where they are few).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_server import served

NAME = "churn eu & co"
RUNS = {"1": "22a30720fc4744338404f64588900295", "3": "d3a0ac6d86cb48139dae4e27fa53a0f5"}
CREATED = 1709600000000  # 2024-03-05 00:53:20 UTC


def _dataset(name: str, digest: str, context: str) -> dict[str, Any]:
    return {
        "tags": [{"key": "mlflow.data.context", "value": context}],
        "dataset": {
            "name": name, "digest": digest, "source_type": "s3",
            "source": '{"uri": "s3://lake/customers/2024-01.parquet"}',
            "profile": '{"num_rows": 3, "num_elements": 6}',
        },
    }  # fmt: skip


TRAINED_ON = [_dataset("customers-2024-01", "13ed02ef", "training"),
              _dataset("holdout", "03ac3ec9", "validation")]  # fmt: skip


@dataclass
class Mlflow:
    """What the server holds, and what it was asked.

    Attributes:
        url: Its address.
        aliases: Of the one registered model.
        created: Version -> when it was registered, in milliseconds.
        asked: Method and path of each request. headers: Of each request.
        tags: Version -> its tags.
        broken: Status and body of every answer, if it has broken down.
    """

    url: str = ""
    aliases: dict[str, str] = field(default_factory=lambda: {"challenger": "2", "champion": "1"})
    created: dict[str, int] = field(default_factory=lambda: dict.fromkeys("1234", CREATED))
    asked: list[str] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    broken: tuple[int, bytes] | None = None

    def answer(self, path: str, asked: dict[str, str]) -> tuple[int, object]:
        """Return status and JSON."""
        match path.removeprefix("/api/2.0/mlflow/"):
            case "registered-models/get" if asked["name"] == NAME:
                aliases = [{"alias": a, "version": v} for a, v in self.aliases.items()]
                model = {"name": NAME, "creation_timestamp": CREATED}
                return 200, {"registered_model": model | ({"aliases": aliases} if aliases else {})}
            case "registered-models/get":
                return self._missing(f"Registered Model with name={asked['name']} not found")
            case "model-versions/get" if asked["version"] in self.created:
                number = asked["version"]
                return 200, {
                    "model_version": {
                        "name": NAME, "version": number, "description": "", "status": "READY",
                        "creation_timestamp": self.created[number], "current_stage": "None",
                        "run_id": RUNS.get(number, ""), "run_link": "",
                    }
                }  # fmt: skip
            case "model-versions/set-tag" if asked["version"] in self.created:
                self.tags.setdefault(asked["version"], {})[asked["key"]] = asked["value"]
                return 200, {}
            case "model-versions/get" | "model-versions/set-tag":
                number = asked["version"]
                return self._missing(f"Model Version (name={NAME}, version={number}) not found")
            case "runs/get" if asked["run_id"] in RUNS.values():
                info = {"experiment_id": "1", "run_id": asked["run_id"], "run_name": "train-1"}
                is_first = asked["run_id"] == RUNS["1"]
                inputs = {"dataset_inputs": TRAINED_ON} if is_first else {}
                return 200, {"run": {"info": info, "data": {}, "inputs": inputs, "outputs": {}}}
            case _:
                return self._missing("Run not found")

    def _missing(self, message: str) -> tuple[int, object]:
        return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message,
                     "sqlstate": "KAM00", "error_class": "RESOURCE_NOT_FOUND"}  # fmt: skip


@contextmanager
def mlflow_server() -> Iterator[Mlflow]:
    """Run it."""
    state = Mlflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._answer(self.path, json.loads(body))

        def _answer(self, path: str, asked: dict[str, str]) -> None:
            state.asked.append(f"{self.command} {path.rpartition('mlflow/')[2]}")
            state.headers.append(self.headers)
            status, body = state.broken or (0, b"")
            if not status:
                status, found = state.answer(path, asked)
                body = json.dumps(found, indent=2).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as state.url:
        yield state
