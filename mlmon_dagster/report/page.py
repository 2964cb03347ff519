"""The shell of every page: one file with its styles and scripts, which asks for nothing else.

The browser is forbidden everything but the very styles and scripts that are in the page, by their
hashes; every text that may come from data is escaped, and no data is in a script.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

_ASSETS = files("mlmon_dagster.report") / "assets"
SCRIPTS = ("uplot/uPlot.iife.min.js", "pages.js")
RELOAD = "reload.js"
STYLES = ("uplot/uPlot.min.css", "pages.css")


@dataclass(frozen=True)
class Places:
    """Where a served page leads.

    Attributes:
        home: Address of the overview; empty in a file, which leads nowhere.
    """

    home: str = ""

    def alert(self, model: str, fingerprint: str) -> str:
        """Return the address of an alert's page; empty in a file."""
        return f"{self.model(model)}/alerts/{fingerprint}" if self.home else ""

    def model(self, name: str) -> str:
        """Return the address of a model's page; empty in a file."""
        return f"{self.home.rstrip('/')}/m/{name}" if self.home else ""


NOWHERE = Places()


def moment_text(now: dt.datetime) -> str:
    """Write a moment in UTC, to the minute."""
    return now.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def render(template: str, **context: object) -> str:
    """Return a page.

    Args:
        template: Name of the template.
        context: What it is filled with; ``home`` is the address of the overview where pages are
            served, and empty in a file.
    """
    return filled(
        template,
        policy=content_policy(is_served=bool(context.get("home"))),
        style=Markup(_text(STYLES)),
        scripts=[Markup(_text((name,))) for name in SCRIPTS],
        reload=Markup(_text((RELOAD,))),
        **{"home": "", **context},
    )


def filled(template: str, **context: object) -> str:
    """Return a template with its blanks filled in, all that may come from data escaped."""
    html: str = _environment().get_template(template).render(**context)
    return html


@cache
def content_policy(*, is_served: bool) -> str:
    """Return the Content-Security-Policy of a page.

    Args:
        is_served: Whether it may send its form back to where it came from.
    """
    names = (*SCRIPTS, RELOAD) if is_served else SCRIPTS
    scripts = " ".join(_hash(_text((name,))) for name in names)
    form = "'self'" if is_served else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src {_hash(_text(STYLES))}; "
        f"img-src data:; base-uri 'none'; form-action {form}"
    )


@cache
def _text(names: tuple[str, ...]) -> str:
    texts = [_ASSETS.joinpath(name).read_text(encoding="utf-8").strip() for name in names]
    return "\n".join(texts)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("mlmon_dagster.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
