"""Images of deploy/ are pinned, and no page names another one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PLACEHOLDER = "registry.example.com"  # where the user's own image is


def find_images(folder: Path) -> set[str]:
    """Return the images that Dockerfiles, Compose files and Helm values below a folder name.

    Those that are built from this repository are left out.
    """
    found: set[str] = set()
    for path in sorted(folder.rglob("*")):
        if path.name.startswith("Dockerfile"):
            lines = re.findall(r"^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", path.read_text(),
                               re.MULTILINE | re.IGNORECASE)  # fmt: skip
            found |= {image for image, _ in lines} - {stage for _, stage in lines}
        elif path.suffix in (".yml", ".yaml"):
            for document in yaml.safe_load_all(path.read_text()):
                found |= set(_images_of(document))
    return {image for image in found if not image.startswith(PLACEHOLDER)}


def _images_of(node: object) -> Iterator[str]:
    if isinstance(node, list):
        for one in node:
            yield from _images_of(one)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("repository"), str) and "tag" in node:
        yield f"{node['repository']}:{node['tag']}"
    if isinstance(node.get("image"), str) and "build" not in node:
        yield node["image"]
    for one in node.values():
        yield from _images_of(one)


def test_every_image_of_deploy_is_pinned_by_version_and_digest() -> None:
    images = find_images(ROOT / "deploy")

    assert {image.partition(":")[0] for image in images} == {
        "postgres", "busybox", "python", "chrislusf/seaweedfs"
    }  # fmt: skip
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}", image), image
    assert len(images) == 4  # a version of each


def test_no_page_tells_people_to_run_another_image() -> None:
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for path in texts:
        named = re.findall(r"docker (?:run|pull)\b.*|^\s*image: .*", path.read_text(), re.MULTILINE)
        assert not named, path
