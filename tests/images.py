"""Asks registries for every container image that deploy/ names: `make images REGISTRY=ADDRESS`.

A tag must exist, and its digest must be the one written beside it. ``--write`` writes the digests
that the tags have now. It speaks the registry's HTTP API, version 2, with anonymous tokens.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import requests
import yaml
from requests.utils import parse_dict_header

DEPLOY = Path(__file__).parents[1] / "deploy"
PLACEHOLDER = "registry.example.com"  # where the user's own image is
TIMEOUT = 20.0
ACCEPTED = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


@dataclass(frozen=True)
class Image:
    """One reference to an image.

    Attributes:
        name: Such as ``postgres`` or ``quay.io/ceph/ceph``, as written.
        tag: Empty if there is none.
        digest: Such as ``sha256:…``; empty if there is none.
        path: The file that names it.
        is_split: Whether that file has the name and the tag in two keys, as a Helm chart's values.
    """

    name: str
    tag: str
    digest: str
    path: Path
    is_split: bool = False

    @classmethod
    def read(cls, text: str, path: Path, *, is_split: bool = False) -> Image:
        """Read a reference such as ``postgres:17.11@sha256:…``."""
        rest, _, digest = text.partition("@")
        name, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:  # the colon is that of the registry's port
            name, tag = rest, ""
        return cls(name, tag, digest, path, is_split)

    @property
    def written(self) -> str:
        """The part of the file that is written anew when the digest changes."""
        pinned = f"{self.tag}@{self.digest}" if self.digest else self.tag
        return pinned if self.is_split else f"{self.name}:{pinned}"

    def address(self, default: str) -> str:
        """Return where its manifests are.

        Args:
            default: Address of the registry of images whose name has no host.
        """
        host, slash, rest = self.name.partition("/")
        if slash and (set(".:") & set(host) or host == "localhost"):
            scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
            return f"{scheme}://{host}/v2/{rest}/manifests"
        if not default:
            raise SystemExit(f"{self.name} names no registry: say which one with --registry.")
        base = default if "://" in default else f"https://{default}"
        return f"{base.rstrip('/')}/v2/{self.name if slash else f'library/{self.name}'}/manifests"


def find_images(folder: Path = DEPLOY) -> list[Image]:
    """Return the images that Dockerfiles, Compose files and Helm values below a folder name.

    Those that are built from this repository are left out.
    """
    found: list[Image] = []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith("Dockerfile"):
            lines = re.findall(r"^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", path.read_text(),
                               re.MULTILINE | re.IGNORECASE)  # fmt: skip
            stages = {stage for _, stage in lines}
            found += [Image.read(text, path) for text, _ in lines if text not in stages]
        elif path.suffix in (".yml", ".yaml"):
            for document in yaml.safe_load_all(path.read_text()):
                found += _images_of(document, path)
    return list(dict.fromkeys(image for image in found if not image.name.startswith(PLACEHOLDER)))


def _images_of(node: object, path: Path) -> Iterator[Image]:
    if isinstance(node, list):
        for one in node:
            yield from _images_of(one, path)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("repository"), str) and "tag" in node:
        yield Image.read(f"{node['repository']}:{node['tag']}", path, is_split=True)
    if isinstance(node.get("image"), str) and "build" not in node:
        yield Image.read(node["image"], path)
    for one in node.values():
        yield from _images_of(one, path)


class Registries:
    """What registries say of images.

    Args:
        default: Address of the registry of images whose name has no host.
    """

    def __init__(self, default: str = "") -> None:
        self._default = default
        self._session = requests.Session()
        self._session.headers["Accept"] = ACCEPTED

    def find_digest(self, image: Image, reference: str) -> str | None:
        """Return the digest of a tag or a digest; None if there is no such image.

        Raises:
            requests.RequestException: If the registry does not answer, or refuses to.
        """
        url = f"{image.address(self._default)}/{reference}"
        answer = self._ask("HEAD", url)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        if digest := answer.headers.get("Docker-Content-Digest"):
            return digest
        answer = self._ask("GET", url)
        answer.raise_for_status()
        return f"sha256:{hashlib.sha256(answer.content).hexdigest()}"

    def _ask(self, method: str, url: str) -> requests.Response:
        answer = self._session.request(method, url, timeout=TIMEOUT)
        kind, _, challenge = answer.headers.get("WWW-Authenticate", "").partition(" ")
        if answer.status_code != 401 or kind.lower() != "bearer":
            return answer
        asked = parse_dict_header(challenge)
        wanted = {key: asked[key] for key in ("service", "scope") if key in asked}
        given = self._session.get(asked["realm"], params=wanted, timeout=TIMEOUT)
        given.raise_for_status()
        token = given.json().get("token") or given.json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return self._session.request(method, url, headers=headers, timeout=TIMEOUT)


def check_image(image: Image, registries: Registries) -> tuple[str, str | None]:
    """Compare an image with its registry.

    Returns:
        What is wrong, or nothing; and the digest that its tag has now, None if it has none.
    """
    if not image.tag:
        return "it has no tag: name the version", None
    try:
        now = registries.find_digest(image, image.tag)
        if now is None:
            return f"the tag {image.tag} does not exist: choose one that does", None
        if not image.digest:
            return f"it is not pinned; the tag is {now}: run with --write", now
        if now == image.digest:
            return "", now
        if registries.find_digest(image, image.digest) is None:
            return f"{image.digest} does not exist; the tag is {now}: run with --write", now
    except requests.RequestException as error:
        return f"its registry could not be asked: {str(error)[:200]}", None
    return f"the tag was built anew and is {now}, not {image.digest}: run with --write", now


def write_digest(image: Image, digest: str) -> None:
    """Write the digest of an image into the file that names it."""
    new = replace(image, digest=digest).written
    # Only the whole reference: postgres:17 is also the beginning of postgres:17.11.
    whole = re.compile(rf"(?<![\w./:@-]){re.escape(image.written)}(?![\w./:@-])")
    image.path.write_text(whole.sub(new, image.path.read_text()))


def main(arguments: Sequence[str], folder: Path = DEPLOY) -> int:
    """Print what is wrong with each image; return 1 if something is left to do."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--registry", default="", help="of images whose name has no host")
    parser.add_argument("--write", action="store_true", help="write the digests of the tags")
    asked = parser.parse_args(arguments)
    registries = Registries(asked.registry)
    failed = 0
    for image in find_images(folder):
        problem, digest = check_image(image, registries)
        where = f"{image.path.relative_to(folder)}: {image.name}:{image.tag}"
        if problem and digest and asked.write:
            write_digest(image, digest)
            print(f"{where}: {digest} written")
        else:
            print(f"{where}: {problem or 'exists, at the digest that is written'}")
            failed += bool(problem)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
