"""Pages of docs/ as the site shows them: with the tables that are made from the code."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
HOOK: dict[str, Any] = run_path(str(DOCS / "hooks" / "site.py"))


def read_page(name: str) -> str:
    """Return the Markdown of a page with its tables."""
    text: str = HOOK["fill_tables"]((DOCS / name).read_text())
    return text
