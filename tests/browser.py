"""A real browser without a window, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESKTOP = (390, 844), (1280, 900)
A4 = (718, 1047)  # within a centimetre of margin, at 96 dots an inch
_START_SECONDS, _ANSWER_SECONDS = 60, 300  # axe takes half a minute on a busy machine
_RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
_AT_ONCE = 1_300  # nodes that axe is given, the page's frame and one part at the least
_TRIES = 3
# A part is a chart, or a section that has none; they are grouped in the order of the page.
_PARTS = "[...document.querySelectorAll('main > section:not(:has(figure)), figure')]"
_GROUPS = f"""(most => {{
  const groups = [];
  let held = Infinity;
  {_PARTS}.forEach((part, i) => {{
    const n = part.querySelectorAll('*').length;
    if (held + n > most) {{ groups.push([]); held = 0; }}
    groups.at(-1).push(i);
    held += n;
  }});
  return groups.length ? groups : [[]];
}})"""
_JUDGED = f"""(async (group, isDark, runOnly) => {{
  {_PARTS}.forEach((part, i) => {{
    if (!group.includes(i)) part.remove();
    else [...part.querySelectorAll('details')].slice(0, isDark ? 1 : undefined)
      .forEach(e => {{ e.open = true; }});
  }});
  if (!isDark) document.querySelectorAll('details').forEach(e => {{ e.open = true; }});
  await new Promise(done => requestAnimationFrame(() => setTimeout(done)));  // charts are drawn
  const {{ violations }} = await axe.run(document, {{ runOnly }});
  return violations.flatMap(v => v.nodes.map(n => `${{v.id}}: ${{n.html.slice(0, 200)}}`));
}})"""
_TWICE = """(ids => ids.filter((id, i) => ids.indexOf(id) !== i).map(id => `duplicate-id: ${id}`))
([...document.querySelectorAll('[id]')].map(e => e.id))"""


class LostError(Exception):
    """The tab or the whole browser is gone, or has not answered for minutes."""


class Browser:
    """One tab. What it asked for and what it complained of is kept from page to page.

    Args:
        program: The browser's.
        folder: For its profile; the browser that is begun after a lost one has another in there.

    Attributes:
        requests: Addresses that it asked for.
        errors: Errors of scripts, of the console and of the content policy.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._program, self._folder, self._begun = program, folder, 0
        self._url, self._size = "", DESKTOP
        self._start()

    def _start(self) -> None:
        from websockets.sync.client import connect

        folder = self._folder / str(self._begun)
        self._begun += 1
        self._process = subprocess.Popen(
            [
                self._program, "--headless", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with ExitStack() as stack:
            stack.callback(self._end_process)
            address = _address(folder, self._process)
            # A busy browser answers no ping; how long an answer may take is said above.
            self._socket: Any = stack.enter_context(
                connect(address, max_size=None, ping_interval=None)
            )
            self._open = stack.pop_all()
        self._number, self._session, self._target = 0, "", ""
        self._open_tab()

    def _open_tab(self) -> None:
        """Open a tab and close the one that there was, with all that it has in memory."""
        before, self._session = self._target, ""
        self._target = self._call("Target.createTarget", url="about:blank")["targetId"]
        if before:
            self._call("Target.closeTarget", targetId=before)
        attached = self._call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "Inspector"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._open.close()

    def _end_process(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, url: str, size: tuple[int, int] = DESKTOP, *, scripts: bool = True) -> Self:
        """Show a page once it has loaded and everything that it starts with has run."""
        self.requests.clear()
        self.errors.clear()
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.resize(size)
        self._url, self._size = url, size
        self._call("Page.navigate", url=url)
        until = time.monotonic() + _ANSWER_SECONDS
        while self.run("document.URL + document.readyState") != f"{url}complete":
            assert time.monotonic() < until, f"{url} does not load"
            time.sleep(0.05)
        if scripts:
            self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
        return self

    def resize(self, size: tuple[int, int]) -> None:
        """Give the page another size."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0], height=size[1], deviceScaleFactor=1, mobile=size == PHONE,
        )  # fmt: skip

    def run(self, expression: str) -> Any:
        """Return what an expression of JavaScript is, awaited if it is a promise."""
        found = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, such as ``Tab``."""
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def accessibility(self, *, is_dark: bool = False) -> list[str]:
        """Return what axe-core finds against WCAG A and AA, what only a click unfolds included.

        Some charts, or sections without any, at a time, each in a fresh tab with all that is
        outside of them: axe's time grows faster than a page, and a tab that has judged one does not
        give its memory back. A browser that is lost is begun anew and asked again. Whether an id is
        there twice is asked of all together.

        Args:
            is_dark: Judge the colours alone, in the dark, and of what is folded the first of each
                part, since the others look alike.
        """
        rules = json.dumps({"type": "rule", "values": ["color-contrast"]} if is_dark else _RULES)
        found = list(self.run(_TWICE))
        for group in self.run(f"{_GROUPS}({_AT_ONCE})"):
            asked = f"{_JUDGED}({json.dumps(group)}, {json.dumps(is_dark)}, {rules})"
            found += self._judged(asked, "dark" if is_dark else "light")
        return list(dict.fromkeys(found))

    def _judged(self, asked: str, scheme: str) -> list[str]:
        axe = (files("axe_core_python") / "axe.min.js").read_text()
        for left in reversed(range(_TRIES)):
            try:
                self._open_tab()
                self.prefer(scheme)
                self.open(self._url, self._size)
                self.run(f"{axe}; 0")
                found: list[str] = self.run(asked)
                return found
            except LostError:
                if not left:
                    raise
                self.close()
                self._start()
        raise AssertionError

    def prefer(self, scheme: str) -> None:
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=wanted)

    def picture(self, path: Path, height: int | None = None) -> None:
        """Save what is seen, from the top."""
        options: dict[str, Any] = {}
        if height is not None:
            width = self.run("innerWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            options = {"clip": clip, "captureBeyondViewport": True}
        found = self._call("Page.captureScreenshot", format="png", **options)
        path.write_bytes(base64.b64decode(found["data"]))

    def print_media(self, is_paper: bool) -> None:
        """Show the page as it is printed, or again as on a screen."""
        self._call("Emulation.setEmulatedMedia", media="print" if is_paper else "")

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._said(lambda: self._socket.send(json.dumps(message)), method)
        while True:
            answer = json.loads(
                self._said(lambda: self._socket.recv(timeout=_ANSWER_SECONDS), method)
            )
            if answer.get("method") == "Inspector.targetCrashed":
                raise LostError(f"the tab crashed at {method}")
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _said(self, do: Callable[[], Any], method: str) -> Any:
        from websockets.exceptions import ConnectionClosed

        try:
            return do()
        except (ConnectionClosed, TimeoutError) as error:
            raise LostError(f"the browser was lost at {method}: {error}") from error

    def _note(self, event: str | None, said: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            if not said["request"]["url"].startswith("data:"):  # in the page, or the browser's own
                self.requests.append(said["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(said["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(str(said["args"]))
        elif event == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"]["text"])


@contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own; skip where none is installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser here: {', '.join(NAMES)}")
    browser = Browser(program, folder)
    try:
        yield browser
    finally:
        browser.close()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    told = folder / "DevToolsActivePort"
    until = time.monotonic() + _START_SECONDS
    while not told.exists() or len(told.read_text().splitlines()) < 2:
        assert process.poll() is None, "the browser ended at once"
        assert time.monotonic() < until, "the browser does not start"
        time.sleep(0.05)
    port, path = told.read_text().splitlines()[:2]
    return f"ws://127.0.0.1:{port}{path}"
