"""Slack messages drawn as Slack draws them, from the payloads that a fake Slack was sent."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import tempfile
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.alerts.fake_slack import FakeSlack, File, Message

if TYPE_CHECKING:
    from PIL import Image

CHROMIUM = "/usr/bin/chromium"
EMOJI = {
    ":red_circle:": "#d1242f",
    ":large_yellow_circle:": "#e3b341",
    ":white_check_mark:": "#1a7f37",
}
STYLE = """
body{margin:0;padding:14px 16px;background:#fff;width:680px;color:#1d1c1d;
 font:15px/1.46 -apple-system,'Segoe UI','Liberation Sans',Arial,sans-serif}
.m{display:flex;margin:0 0 10px}.r{margin-left:44px}
.a{flex:none;width:36px;height:36px;border-radius:5px;background:#2563a8;color:#fff;
 font-weight:700;text-align:center;line-height:36px;margin-right:8px}
.n{font-weight:700}.t{color:#616061;font-size:12px;margin-left:6px}
.app{background:#e8e8e8;color:#616061;font-size:10px;padding:1px 3px;border-radius:2px;
 margin-left:4px;font-weight:700}
.att{border-left:4px solid;border-radius:2px;padding:2px 0 2px 12px;margin-top:4px}
.s{margin:0 0 8px}.c{color:#616061;font-size:12px}
code{background:#f6f6f6;border:1px solid #ddd;border-radius:3px;padding:1px 3px;color:#c01343;
 font:12px ui-monospace,'Liberation Mono',monospace;overflow-wrap:anywhere}
a{color:#1264a3;text-decoration:none}.at{background:#f8eec7;color:#1264a3;border-radius:3px;
 padding:0 2px}
.e{display:inline-block;width:13px;height:13px;border-radius:50%;vertical-align:-1px}
img{max-width:560px;border:1px solid #ddd;border-radius:6px;margin-top:4px;display:block}
.th{color:#616061;font-size:12px;margin:2px 0 8px 44px;border-top:1px solid #e4e4e4}
"""


def draw_thread(slack: FakeSlack, head: Message, *, only_replies: int | None = None) -> bytes:
    """Return a PNG of a thread: its head as it is now, its answers and plots in order."""
    answers: list[Message | File] = [*slack.replies(head)]
    answers += [file for file in slack.files if file.thread_ts == head.ts]
    answers.sort(key=lambda answer: answer.ts)
    answers = answers[-only_replies:] if only_replies else answers
    parts = [_message(head.shown)]
    if answers:
        parts.append(f'<div class="th">{len(answers)} in thread</div>')
    parts += [_file(a) if isinstance(a, File) else _message(a.shown, "r") for a in answers]
    return screenshot(f"<style>{STYLE}</style>{''.join(parts)}")


def _message(shown: dict[str, Any], kind: str = "") -> str:
    body = f'<div class="s">{_markup(shown["text"])}</div>'
    for attachment in shown.get("attachments", ()):
        blocks = "".join(_block(block) for block in attachment["blocks"])
        body += f'<div class="att" style="border-color:{attachment["color"]}">{blocks}</div>'
    return _frame(body, kind)


def _file(file: File) -> str:
    data = base64.b64encode(file.content).decode()
    title = f'<div class="c">{escape(file.title)}</div>'
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(file.alt)}">'
    return _frame(title + image, "r")


def _frame(body: str, kind: str) -> str:
    name = '<span class="n">mlmon</span><span class="app">APP</span>'
    return f'<div class="m {kind}"><div class="a">ml</div><div>{name}<br>{body}</div></div>'


def _block(block: dict[str, Any]) -> str:
    texts = [block["text"]] if "text" in block else block["elements"]
    style = "c" if block["type"] == "context" else "s"
    return f'<div class="{style}">{" ".join(_markup(t["text"]) for t in texts)}</div>'


def _markup(text: str) -> str:
    """Turn Slack's markup into HTML; what Slack would show as it is stays text."""
    parts = re.split(r"(<[^<>]+>|`[^`]+`)", text)
    return "".join(_part(part) for part in parts)


def _part(part: str) -> str:
    if part.startswith("<"):
        address, _, label = part[1:-1].partition("|")
        if address[0] in "!@":
            return f'<span class="at">@{escape(address.lstrip("!@"))}</span>'
        return f'<a href="{address}">{label or address}</a>'
    if part.startswith("`") and part.endswith("`"):
        return f"<code>{escape(unescape(part[1:-1]), quote=False)}</code>"
    html = re.sub(r"\*([^*\n]+)\*", r"<b>\1</b>", escape(unescape(part), quote=False))
    for name, colour in EMOJI.items():
        html = html.replace(name, f'<span class="e" style="background:{colour}"></span>')
    return html.replace("\n", "<br>")


def screenshot(html: str, size: Sequence[int] = (712, 2400)) -> bytes:
    """Return a PNG of a page, cut to what is on it."""
    from PIL import Image, ImageChops

    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        page.write_text(f'<!doctype html><meta charset="utf-8">{html}', encoding="utf-8")
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}/profile", "--force-device-scale-factor=1.5",
            f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        shown = Image.open(picture).convert("RGB")
        blank = Image.new("RGB", shown.size, "white")
        box = ImageChops.difference(shown, blank).getbbox() or (0, 0, 1, 1)
        cut = shown.crop((0, 0, shown.width, min(box[3] + 16, shown.height)))
        return compress(cut)


def compress(picture: Image.Image) -> bytes:
    """Return a PNG of few colours, a third of the size."""
    from PIL import Image

    buffer = io.BytesIO()
    few = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
