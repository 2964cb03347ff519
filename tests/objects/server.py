"""An S3 server over HTTP: moto, one request at a time, so that conditional writes are atomic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import obstore
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from mlmon_dagster.store.places.objects import ObjectPlace, connect

ACCESS_KEY, SECRET_KEY = "testing", "not-a-secret"


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class S3Server:
    """A running server; `requests` counts what it was asked, by method."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._count, request_handler=_Quiet)
        self.requests: Counter[str] = Counter()
        self.ignores_conditions = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _count(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.requests[environ["REQUEST_METHOD"]] += 1
        if self.ignores_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return self._app(environ, start)

    def make(self, bucket: str) -> None:
        """Create a bucket; moto checks no signature."""
        with urlopen(Request(f"{self.url}/{bucket}", method="PUT"), timeout=10):
            pass

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object."""
        obstore.put(connect(ObjectPlace(f"s3://{bucket}", self.options)), key, content)

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        obstore.delete(connect(ObjectPlace(f"s3://{bucket}", self.options)), key)

    @property
    def options(self) -> dict[str, str]:
        """Storage options for this server."""
        return {
            "aws_endpoint_url": self.url,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "aws_region": "us-east-1",
            "allow_http": "true",
        }

    @property
    def variables(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
