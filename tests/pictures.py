"""Take the pictures of docs/images again: ``make pictures``.

Pages, plots, the notebook, the command line and the Dagster UI are those of the demo that
``make demo`` left in the project's folder (``MLMON_DEMO`` names another); the assistant's those of
the support story in ``support`` (``MLMON_ASSISTANT``). Slack's threads, many
models, of which one is the healthy one, and `examples/retrain` are made here.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from html import escape
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from matplotlib.figure import Figure
from PIL import Image

import mlmon_dagster as mm
from mlmon_dagster.defs.instance import dagster_home
from mlmon_dagster.demo.story import DAY, LIVE
from mlmon_dagster.spec import Models
from mlmon_dagster.store import open_store
from mlmon_dagster.tables.alerts import list_alerts, pick_standing
from tests.alerts.block_kit import compress, screenshot
from tests.alerts.pictures import IMAGES, NAMES, ROOT, draw
from tests.browser import A4, DESKTOP, PHONE, Browser, started
from tests.defs.test_retraining_example import example, live_the_shock, live_two_good_days
from tests.defs.test_seen_in_dagster import see, webserver
from tests.serve import fleet
from tests.serve.conftest import pages_over, served

MODEL = "flight_delay"
APRIL = {"first": "2013-04-01", "last": "2013-04-30"}
_ONLY = """(names => document.querySelectorAll('main > *').forEach(e => {
  if (!names.includes(e.getAttribute('aria-labelledby'))) e.remove();
}))"""
# Of the Dagster UI: its navigation is shut, what stands to the right of an asset is left out; the
# groups of a graph are opened, and nothing but its nodes is left, framed.
_SHUT = """[...document.querySelectorAll('*')]
  .find(e => !e.children.length && e.textContent === 'Hide navigation')?.click()"""
_BARE = "document.querySelector('[class*=AssetNodeOverview_right]')?.remove()"
_OPENED = """document.body.dispatchEvent(
  new KeyboardEvent('keydown', {code: 'KeyE', key: 'e', altKey: true, bubbles: true}))"""
_ALONE = """document.body.style.visibility = 'hidden';
document.querySelector('foreignObject').closest('svg').style.visibility = 'visible'"""
_NODES = """(boxes => [Math.min(...boxes.map(b => b.x)), Math.min(...boxes.map(b => b.y)),
  Math.max(...boxes.map(b => b.right)), Math.max(...boxes.map(b => b.bottom))])
([...document.querySelectorAll('foreignObject')].map(e => e.getBoundingClientRect()))"""
_STILL = 4  # pictures, six seconds apart
_TERMINAL = (
    "body{margin:0}pre{margin:0;padding:16px;background:#11161c;color:#e5eaf0;"
    "font:13px/1.45 ui-monospace,'Liberation Mono',monospace}"
    "b{color:#8fc0f0}"
)
_CELL = (
    "body{margin:0;padding:14px 16px;width:900px;font:14px/1.45 system-ui,'Liberation Sans'}"
    "pre{background:#f5f7f9;border:1px solid #dfe4ea;padding:6px 10px;margin:12px 0 6px}"
    "img{max-width:100%}table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left}"
)


class Studio:
    """What pictures are taken of, made when the first of them is.

    Args:
        stack: Closes it all.
        folder: For what is made here.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder

    @cached_property
    def browser(self) -> Browser:
        return self._stack.enter_context(started(self._folder / "browser"))

    @cached_property
    def demo(self) -> mm.Monitoring:
        """The demo's project, as of its end."""
        folder = Path(os.environ.get("MLMON_DEMO", ROOT))
        os.environ["MLMON_NOW"] = f"{LIVE[-1] + 3 * DAY}T12:00:00+00:00"  # the demo's last present
        if not (folder / ".mlmon" / "store").exists():
            raise SystemExit(f"No demo lies in {folder}: run 'make demo' first.")
        return self._stack.enter_context(mm.open(folder))

    @cached_property
    def assistant(self) -> mm.Monitoring:
        """The project of the support story, as of its end."""
        folder = Path(os.environ.get("MLMON_ASSISTANT", ROOT / "support"))
        if not (folder / ".mlmon" / "store").exists():
            said = f"mkdir {folder}; mlmon --project {folder} demo --story support"
            raise SystemExit(f"No assistant lies in {folder}: run '{said}' first.")
        return self._stack.enter_context(mm.open(folder))

    @cached_property
    def demo_pages(self) -> str:
        """The address of the demo's pages."""
        store, spec = self.demo.project.store, self.demo.spec(MODEL)
        pages = pages_over(store, Models((spec,), ()), self.demo.project.now())
        return self._stack.enter_context(served(pages))

    @cached_property
    def alert(self) -> str:
        """The address of the worst alert that stands in the demo."""
        worst, *_ = pick_standing(list_alerts(self.demo.project.store, MODEL))
        return f"{self.demo_pages}/m/{MODEL}/alerts/{worst.fingerprint}"

    @cached_property
    def fleet_pages(self) -> str:
        """The address of the pages of sixty models."""
        store, specs = open_store(str(self._folder / "fleet")), fleet.declare_fleet()
        self._stack.callback(store.close)
        fleet.fill(store, specs)
        pages = pages_over(store, Models(tuple(specs), ()), fleet.NOW)
        return self._stack.enter_context(served(pages))

    def shoot(
        self, url: str, size: tuple[int, int], height: int = 0, *, dark: bool = False
    ) -> bytes:
        """Return a picture of a page from its top, as high as its screen or as asked."""
        self.browser.prefer("dark" if dark else "light")
        self._open(url, size)
        return self._taken(height or size[1])

    def _open(self, url: str, size: tuple[int, int]) -> None:
        self.browser.open(url, size)
        assert self.browser.run("!!document.querySelector('main')"), f"{url} is an error"

    def shoot_sections(self, *names: str) -> bytes:
        """Return a picture of some sections of the demo's page alone."""
        self.browser.prefer("light")
        self._open(f"{self.demo_pages}/m/{MODEL}", DESKTOP)
        self.browser.run(f"{_ONLY}({list(names)!r})")
        return self._taken(self.browser.run("document.getElementById('main').offsetHeight"))

    def shoot_sheet(self) -> bytes:
        """Return a picture of the first sheet of the demo's page on paper."""
        with self._on_paper():
            return self._taken(A4[1])

    @contextmanager
    def _on_paper(self) -> Iterator[None]:
        self._open(f"{self.demo_pages}/m/{MODEL}", A4)
        self.browser.print_media(True)
        yield
        self.browser.print_media(False)

    def _taken(self, height: int) -> bytes:
        path = self._folder / "taken.png"
        self.browser.picture(path, height)
        return compress(Image.open(path).convert("RGB"))

    @cached_property
    def demo_graph(self) -> str:
        """The address of Dagster's UI of the demo."""
        project, log = self.demo.project, self._folder / "demo.log"
        return self._stack.enter_context(webserver(project.folder, dagster_home(project), log))

    @cached_property
    def retrain_graph(self) -> str:
        """The address of Dagster's UI of the example, whose gate has just been shut."""
        folder, home = self._folder / "retrain", self._folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("nux: {enabled: false}\n")
        instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLMON_NOW", raising=False)  # which is the demo's
            daemon = self._stack.enter_context(example(folder, instance))
            live_two_good_days(daemon)
            daemon.run(["rollout"])
            live_the_shock(daemon)
            daemon.run(["rollout"])
            shown = webserver(folder, home, self._folder / "retrain.log", "retrain.definitions")
            return self._stack.enter_context(shown)

    def shoot_dagster(self, page: str, said: str, size: tuple[int, int]) -> bytes:
        """Return a picture of a page of Dagster's UI of the demo, once it says something."""
        return self._still(f"{self.demo_graph}{page}", said, size, _BARE)

    def shoot_graph(self, address: str, said: str, size: tuple[int, int]) -> bytes:
        """Return a picture of all nodes of a graph, of which one is called so."""
        self._still(f"{address}/asset-groups", said, size, _OPENED)
        self.browser.run(_ALONE)
        whole = Image.open(io.BytesIO(self._taken(size[1])))
        left, top, right, low = self.browser.run(_NODES)
        return compress(whole.convert("RGB").crop((left - 9, top - 9, right + 9, low + 9)))

    def _still(self, address: str, said: str, size: tuple[int, int], act: str) -> bytes:
        self.browser.prefer("light")
        see(self.browser, address, lambda text: "Hide navigation" in text or said in text, size)
        self.browser.run(_SHUT)
        see(self.browser, address, lambda text: said in text, size)
        self.browser.run(act)
        seen = [self._taken(size[1])]
        while len(seen) < _STILL or len({*seen[-_STILL:]}) > 1:
            time.sleep(6)  # what nodes are like comes in parts
            seen.append(self._taken(size[1]))
        return seen[-1]

    def draw_notebook(self) -> bytes:
        """Return what a notebook shows of the project, a curve and a trace."""
        project = self.demo
        why = project.trace(MODEL, **APRIL)
        curve = self._folder / "curve.png"
        curve.write_bytes(_png_of(project.plot(MODEL, "roc_auc")))
        cells = {
            "project": project._repr_html_(),
            f'project.plot("{MODEL}", "roc_auc")': f'<img src="{curve.as_uri()}">',
            'project.trace("flight_delay", first="2013-04-01", last="2013-04-30")': (
                why._repr_html_()
            ),
        }
        shown = "".join(f"<pre>{escape(code)}</pre>{html}" for code, html in cells.items())
        return screenshot(f"<style>{_CELL}</style>{shown}", (932, 3000))

    def draw_terminal(self, *command: str) -> bytes:
        """Return what a command of the demo's project prints."""
        environment = {**os.environ, "COLUMNS": "88"}
        done = subprocess.run(
            [sys.executable, "-m", "mlmon_dagster.cli", *command],
            cwd=self.demo.project.folder, env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        shown = f"<b>$ mlmon {' '.join(command)}</b>\n{escape(done.stdout.rstrip())}"
        return screenshot(f"<style>{_TERMINAL}</style><pre>{shown}</pre>", (700, 2400))


def _png_of(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return compress(Image.open(buffer).convert("RGB"))


PICTURES: dict[str, Callable[[Studio], bytes]] = {
    "models": lambda s: s.shoot(s.fleet_pages + "/", DESKTOP),
    "models-phone": lambda s: s.shoot(s.fleet_pages + "/", PHONE),
    "page-healthy": lambda s: s.shoot(s.fleet_pages + "/m/churn_br", DESKTOP),
    "page-desktop": lambda s: s.shoot(f"{s.demo_pages}/m/{MODEL}", DESKTOP, 1200),
    "page-dark": lambda s: s.shoot(f"{s.demo_pages}/m/{MODEL}", DESKTOP, dark=True),
    "page-phone": lambda s: s.shoot(f"{s.demo_pages}/m/{MODEL}", PHONE),
    "page-alert": lambda s: s.shoot(s.alert, DESKTOP),
    "page-print": Studio.shoot_sheet,
    "page-drift": lambda s: s.shoot_sections("drift", "histograms"),
    "trace-in-report": lambda s: s.shoot_sections("trace"),
    "layers": lambda s: s.shoot_sections("layers"),
    "roc_auc": lambda s: _png_of(s.demo.plot(MODEL, "roc_auc")),
    "assistant": lambda s: _png_of(s.assistant.plot("assistant", "good_rate", "correct")),
    "temp-drift": lambda s: _png_of(s.demo.plot(MODEL, "psi", "temp")),
    "trace-plot": lambda s: _png_of(s.demo.trace(MODEL, **APRIL).plot()),
    "notebook": Studio.draw_notebook,
    "graph": lambda s: s.shoot_graph(s.demo_graph, "flight_delay", (1500, 1400)),
    "retrain-graph": lambda s: s.shoot_graph(s.retrain_graph, "training", (1800, 1500)),
    "failed-check": lambda s: s.shoot_dagster(
        f"/assets/{MODEL}/data_quality?view=checks&checkDetail=quality", "And 6 more", (1600, 960)
    ),
    "overview": lambda s: s.shoot_dagster("/assets/mlmon/overview", "models failing", (1600, 860)),
    "trace-in-ui": lambda s: s.shoot_dagster(
        f"/assets/{MODEL}/performance_trace", "ROC AUC of", (1280, 960)
    ),
    "help": lambda s: s.draw_terminal("--help"),
    **{f"slack-{name}": (lambda _, name=name: draw(name)) for name in NAMES},
}


def main(names: list[str]) -> None:
    """Take all pictures, or those whose names begin with one of some texts."""
    wanted = [picture for picture in PICTURES if not names or picture.startswith(tuple(names))]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        studio = Studio(stack, Path(folder))
        for name in wanted:
            path = IMAGES / f"{name}.png"
            path.write_bytes(PICTURES[name](studio))
            print(f"{name}.png {path.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
