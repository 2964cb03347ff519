"""The documentation builds as a site: no broken link, no page left out, nothing from elsewhere."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from mlmon_dagster.cli import COMMANDS

ROOT = Path(__file__).parents[1]


class Loaded(HTMLParser):
    """What a page loads by itself: scripts, styles, pictures, fonts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.addresses.append(named.get("src") or "")
        if tag == "link" and named.get("rel") in ("stylesheet", "preconnect", "icon"):
            self.addresses.append(named.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_strictly_lists_every_page_and_loads_nothing_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that build it
        site = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
        site.plugins.on_startup(command="build", dirty=False)
        build(site)
        site.plugins.on_shutdown()
    pages = {
        path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.html")
    }
    written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert written <= pages

    for page in tmp_path.glob("*.html"):
        found = Loaded()
        found.feed(page.read_text())
        assert [a for a in found.addresses if re.match(r"(https?:)?//", a)] == [], page.name
        assert "Sentinel" not in page.read_text(), page.name

    commands = (tmp_path / "commands.html").read_text()
    for name in COMMANDS:
        assert f'id="mlmon-{name}"' in commands
    python = (tmp_path / "python.html").read_text()
    for name in ("Monitoring", "MonitoringResource", "PredictionLogger", "build_definitions"):
        assert name in python
