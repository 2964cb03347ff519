"""Images of deploy/ are pinned, and a registry is asked whether they are what is written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.http_server import served
from tests.images import Image, find_images, main

ROOT = Path(__file__).parents[1]
OLD, NEW = (f"sha256:{letter * 64}" for letter in "ab")
COMPOSE = """services:
  database:
    image: postgres:{pin}
  storage:
    image: {host}/team/storage:4.48
  ours:
    image: ours
    build: .
"""
VALUES = """postgresql:
  image: {{repository: postgres, tag: "{pin}", pullPolicy: IfNotPresent}}
web:
  image: {{repository: registry.example.com/ours, tag: "0.1.0"}}
"""
DOCKERFILE = """FROM python:3.11.16-slim AS base
FROM --platform=linux/amd64 base
"""


@contextmanager
def registry(manifests: dict[str, str], *, wants_token: bool = True) -> Iterator[str]:
    """Serve manifests by ``repository:reference``; yield the host and its port.

    As the distribution's own registry does: a HEAD without a token is told where to get one, and
    the token is good for one repository.
    """

    class Registry(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(is_head=True)

        def do_GET(self) -> None:
            if self.path.startswith("/token"):
                asked = parse_qs(urlsplit(self.path).query)
                assert asked["service"] == ["here"]
                self._send(200, {}, json.dumps({"token": asked["scope"][0]}).encode())
            else:
                self._answer(is_head=False)

        def _answer(self, *, is_head: bool) -> None:
            match = re.fullmatch(r"/v2/(.+)/manifests/(.+)", self.path)
            assert match is not None
            scope = f"repository:{match[1]}:pull"
            if wants_token and self.headers.get("Authorization") != f"Bearer {scope}":
                realm = f"http://{self.headers['Host']}/token"
                challenge = f'Bearer realm="{realm}",service="here",scope="{scope}"'
                self._send(401, {"WWW-Authenticate": challenge}, b"")
                return
            digest = manifests.get(f"{match[1]}:{match[2]}")
            if digest is None:
                self._send(404, {}, b"")
            elif digest == "busy":
                self._send(429, {}, b"")
            elif digest == "unnamed":  # some registries leave the header out
                self._send(200, {}, b"" if is_head else b"{}")
            else:
                self._send(200, {"Docker-Content-Digest": digest}, b"")

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with served(Registry) as url:
        yield url.removeprefix("http://")


def write_deploy(folder: Path, host: str, pin: str) -> None:
    (folder / "compose.yml").write_text(COMPOSE.format(host=host, pin=pin))
    (folder / "values.yaml").write_text(VALUES.format(pin=pin))
    (folder / "Dockerfile").write_text(DOCKERFILE)


def found_by(host: str, folder: Path, *arguments: str) -> int:
    return main(["--registry", f"http://{host}", *arguments], folder)


TAGS = {
    "library/postgres:17.11": NEW,
    f"library/postgres:{OLD}": OLD,
    "library/python:3.11.16-slim": NEW,
    "team/storage:4.48": NEW,
}


def test_every_image_of_deploy_is_pinned_by_version_and_digest() -> None:
    images = find_images()

    assert {image.name for image in images} == {
        "postgres", "busybox", "python", "chrislusf/seaweedfs"
    }  # fmt: skip
    for image in images:
        assert re.match(r"\d+\.\d+", image.tag), image
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", image.digest), image
    assert len({(image.name, image.tag, image.digest) for image in images}) == 4


def test_no_page_tells_people_to_run_another_image() -> None:
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for path in texts:
        named = re.findall(r"docker (?:run|pull)\b.*|^\s*image: .*", path.read_text(), re.MULTILINE)
        assert not named, path


@pytest.mark.parametrize("wants_token", [True, False])
def test_digests_are_written_once_and_are_then_what_the_registry_has(
    wants_token: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry(TAGS, wants_token=wants_token) as host:
        write_deploy(tmp_path, host, f"17.11@{OLD}")
        assert found_by(host, tmp_path) == 1
        told = capsys.readouterr().out
        assert f"compose.yml: postgres:17.11: the tag was built anew and is {NEW}" in told
        assert f"team/storage:4.48: it is not pinned; the tag is {NEW}" in told
        assert "ours" not in told

        assert found_by(host, tmp_path, "--write") == 0
        assert found_by(host, tmp_path) == 0

    assert {image.digest for image in find_images(tmp_path)} == {NEW}
    assert OLD not in "".join(path.read_text() for path in tmp_path.iterdir())
    assert (tmp_path / "values.yaml").read_text() == VALUES.format(pin=f"17.11@{NEW}")


@pytest.mark.parametrize(
    ("manifests", "said"),
    [
        ({}, "the tag 17.11 does not exist"),
        ({"library/postgres:17.11": NEW}, f"{OLD} does not exist; the tag is {NEW}"),
        ({"library/postgres:17.11": "busy"}, "could not be asked: 429"),
    ],
)
def test_what_does_not_exist_fails(
    manifests: dict[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "values.yaml").write_text(VALUES.format(pin=f"17.11@{OLD}"))
    with registry(manifests) as host:
        assert found_by(host, tmp_path) == 1
    assert said in capsys.readouterr().out
    assert found_by("127.0.0.1:9", tmp_path) == 1
    assert "its registry could not be asked" in capsys.readouterr().out


def test_a_digest_that_is_not_told_is_that_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11.16-slim\n")
    with registry({"library/python:3.11.16-slim": "unnamed"}) as host:
        assert found_by(host, tmp_path, "--write") == 0

    digest = hashlib.sha256(b"{}").hexdigest()
    written = f"FROM python:3.11.16-slim@sha256:{digest}\n"
    assert (tmp_path / "Dockerfile").read_text() == written


@pytest.mark.parametrize(
    ("text", "name", "tag", "address"),
    [
        ("postgres:17", "postgres", "17", "https://hub/v2/library/postgres/manifests"),
        ("a/b", "a/b", "", "https://hub/v2/a/b/manifests"),
        ("localhost:5000/a", "localhost:5000/a", "", "http://localhost:5000/v2/a/manifests"),
        (f"r.io/a/b:1@{OLD}", "r.io/a/b", "1", "https://r.io/v2/a/b/manifests"),
    ],
)
def test_references_are_read_as_docker_reads_them(
    text: str, name: str, tag: str, address: str
) -> None:
    image = Image.read(text, Path("compose.yml"))

    assert (image.name, image.tag, image.address("hub")) == (name, tag, address)
