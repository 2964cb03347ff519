"""E-mail over SMTP: one mail thread per incident.

A message's ``Message-ID`` is made of its idempotency key, so that a mail which had to be sent again
is recognised as the same one; answers name the first mail of the incident in ``References``.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from html import escape
from typing import cast
from urllib.parse import unquote, urlsplit

from mlmon_dagster.alerts.messages.message import COLOURS, Message, clean, read_message
from mlmon_dagster.alerts.receivers.base import (
    Delivery,
    Draw,
    NotPosted,
    Outcome,
    Posted,
    Receiver,
    Refused,
    Surroundings,
    Unclear,
    draw_or_none,
    read_plot,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.alerting import LOOPBACK
from mlmon_dagster.spec.names import url_problem

TIMEOUT_SECONDS = 10
HOW_TO_SET = (
    "mail has no server: set MLMON_SMTP_URL, such as "
    "smtp://user:password@smtp.example.com:587, where the dispatcher runs"
)
_MAX_SUBJECT = 200
_TEXT = 500
_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_CODE = "font-family:ui-monospace,Consolas,monospace;background:#f3f4f6;padding:2px 5px"


@dataclass(frozen=True)
class MailServer:
    """An SMTP server.

    Attributes:
        host, port: Where it listens.
        user, password: Empty to send without logging in.
        encryption: ``starttls``, ``tls`` from the first byte, or ``none`` (this machine only).
        sender: The address that mails come from.
    """

    host: str
    port: int
    user: str
    password: str
    encryption: str
    sender: str


def parse_mail_server(url: str, sender: str | None = None) -> MailServer:
    """Read ``smtp://user:password@host:587`` (STARTTLS) or ``smtps://...`` (TLS at once).

    Args:
        url: The address; user and password are percent-encoded where they hold ``@ : /``.
        sender: The address that mails come from; default: the user, if that is one.

    Raises:
        ConfigError: If it cannot be used; the message does not repeat it, it holds a password.
    """
    expected = "write smtp://user:password@smtp.example.com:587, or smtps:// for TLS at once"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"MLMON_SMTP_URL cannot be parsed; {expected}.") from None
    if problem := url_problem(url):
        raise ConfigError(f"MLMON_SMTP_URL cannot be used: {problem}; {expected}.")
    if parts.scheme not in ("smtp", "smtps") or not host:
        raise ConfigError(f"MLMON_SMTP_URL is not the address of a mail server; {expected}.")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "smtps":
        encryption = "tls"
    else:
        encryption = "none" if host in LOOPBACK and not user else "starttls"
    address = sender or (user if "@" in user else "")
    if not address:
        raise ConfigError("Mails need a sender: set MLMON_MAIL_FROM, such as mlmon@example.com.")
    port = port or (465 if encryption == "tls" else 587)
    return MailServer(host, port, user, password, encryption, address)


def connect(around: Surroundings) -> Receiver:
    """Return the receiver of mails.

    Raises:
        ConfigError: If ``MLMON_SMTP_URL`` cannot be used.
    """
    url = around.variables("MLMON_SMTP_URL")
    server = parse_mail_server(url, around.variables("MLMON_MAIL_FROM")) if url else None
    return MailReceiver(server, draw=around.draw)


class MailReceiver:
    """Sends mails as plain text and HTML with its plot inside; the channel is the addresses.

    Args:
        server: Where mails are handed in; None refuses them and says what to set.
        timeout_seconds: Of one step of the conversation.
        tls: Makes the TLS context; for tests.
        draw: Makes the picture of a plot; None shows none.
    """

    def __init__(
        self,
        server: MailServer | None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        draw: Draw | None = None,
    ) -> None:
        self._draw = draw
        self._server = server
        self._timeout = timeout_seconds
        self._tls = tls

    def send(self, delivery: Delivery) -> Outcome:
        """Hand in one mail; an update of an earlier one is not mailed, answers have the news."""
        if self._server is None:
            return Refused(HOW_TO_SET)
        if delivery.update_ts:
            return Posted()
        picture = draw_or_none(self._draw, delivery.payload)
        mail = compose(delivery, self._server.sender, picture)
        is_connected = False
        try:
            with self._connect(self._server) as smtp:
                is_connected = True
                smtp.send_message(mail)  # if some addresses are refused, the others have it
        except smtplib.SMTPRecipientsRefused as error:
            return _classify_refusals(error.recipients)
        except smtplib.SMTPResponseException as error:
            return _classify_answer(error)
        except smtplib.SMTPNotSupportedError as error:
            return Refused(f"the mail server offers no {error}; use smtps:// or another port")
        except (OSError, smtplib.SMTPException) as error:
            return _classify_failure(error, is_connected=is_connected)
        return Posted(mail["Message-ID"])

    def _connect(self, server: MailServer) -> smtplib.SMTP:
        if server.encryption == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, timeout=self._timeout, context=self._tls()
            )
        else:
            smtp = smtplib.SMTP(server.host, server.port, timeout=self._timeout)
        try:
            if server.encryption == "starttls":
                smtp.starttls(context=self._tls())
            if server.user:
                smtp.login(server.user, server.password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def problem(self, channel: str) -> Refused | None:
        """Say that there is no mail server."""
        return Refused(HOW_TO_SET) if self._server is None else None

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        """Nobody can tell; the same Message-ID lets mail programs show it once."""
        return NotPosted("sent again under the same Message-ID, possible repeat")

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        """Both copies have the same Message-ID."""
        return NotPosted("mail programs show one of the copies")


def compose(delivery: Delivery, sender: str, picture: bytes | None = None) -> EmailMessage:
    """Write the mail of a message; the subject of an answer is its own, the thread by reference.

    Args:
        delivery: The message.
        sender: The address that it comes from.
        picture: PNG of its plot, shown inside the HTML.
    """
    event = delivery.payload["event"]
    mail = EmailMessage()
    mail["Subject"] = clean(f"[{event['severity']}] {event['title']}", _MAX_SUBJECT)
    mail["From"] = sender
    mail["To"] = delivery.channel
    mail["Date"] = formatdate(localtime=False)
    domain = sender.rpartition("@")[2].rstrip(">") or "mlmon"
    mail["Message-ID"] = f"<mlmon.{delivery.idempotency_key[:40]}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if delivery.thread_ts:
        mail["In-Reply-To"] = delivery.thread_ts
        mail["References"] = delivery.thread_ts
    mail.set_content(delivery.payload["plain"] + "\n")
    if "note" not in event:  # a copy for the fallback is plain
        plot = read_plot(delivery.payload)
        html = _write_html(read_message(delivery.payload))
        _add_html(mail, html, picture, plot["alt"] if plot else "")
    return mail


def _add_html(mail: EmailMessage, html: str, picture: bytes | None, alt: str) -> None:
    name = f"plot.{mail['Message-ID'][1:-1]}"
    shown = f'<p><img src="cid:{name}" alt="{escape(alt)}" width="720" style="max-width:100%"></p>'
    mail.add_alternative(html + (shown if picture else ""), subtype="html")
    if picture:
        page = cast("EmailMessage", mail.get_payload(1))
        page.add_related(picture, "image", "png", cid=f"<{name}>", filename="plot.png",
                         disposition="inline")  # fmt: skip


def _classify_refusals(recipients: dict[str, tuple[int, bytes]]) -> Outcome:
    codes = [code for code, _ in recipients.values()]
    said = "; ".join(
        f"{name}: {code} {_clean_text(text)}" for name, (code, text) in recipients.items()
    )
    if codes and all(code >= 500 for code in codes):
        return Refused(f"the mail server takes none of the addresses: {said}")
    return NotPosted(f"the mail server does not take the addresses now: {said}")


def _classify_answer(error: smtplib.SMTPResponseException) -> Outcome:
    said = f"{error.smtp_code} {_clean_text(error.smtp_error)}"
    if error.smtp_code in (421, 450, 451, 452, 454):
        return NotPosted(f"the mail server asks to wait: {said}")
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return Refused(f"the mail server refuses user or password of MLMON_SMTP_URL: {said}")
    if isinstance(error, smtplib.SMTPSenderRefused):
        return Refused(f"the mail server refuses the sender; check MLMON_MAIL_FROM: {said}")
    return Refused(f"the mail server refuses the mail: {said}")


def _classify_failure(error: Exception, *, is_connected: bool) -> Outcome:
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotPosted(f"the mail server's certificate is not trusted: {error.verify_message}")
    if isinstance(error, socket.gaierror | ConnectionRefusedError) or not is_connected:
        return NotPosted(f"the mail server cannot be reached: {type(error).__name__}: {error}")
    return Unclear(f"no usable answer from the mail server: {type(error).__name__}")


def _clean_text(said: bytes | str) -> str:
    return clean(said.decode(errors="replace") if isinstance(said, bytes) else said, _MAX_SUBJECT)


def _write_html(message: Message) -> str:
    """Render for a mail program; every value is cleaned and escaped."""
    parts = [f'<h2 style="font-size:17px;margin:0 0 10px">{_escape_value(message.title)}</h2>']
    items = [
        f"<li>{_escape_value(item.sentence)}"
        + (
            f'<br><span style="color:#66737f">{_escape_value(item.numbers)}</span>'
            if item.numbers
            else ""
        )
        + "</li>"
        for item in message.items
    ]
    if items:
        parts.append(f'<ul style="margin:0 0 10px;padding-left:20px">{"".join(items)}</ul>')
    parts += [f"<p>{_escape_value(message.more, 1000)}</p>"] if message.more else []
    notes = [
        f"<b>{_escape_value(label)}:</b> {_escape_value(text)}" for label, text in message.notes
    ]
    parts += [f"<p>{'<br>'.join(notes)}</p>"] if notes else []
    links = [_write_link(label, address) for label, address in message.links]
    parts += [f"<p>{' · '.join(links)}</p>"] if links else []
    commands = [
        f'<code style="{_CODE}">{_escape_value(command)}</code>' for command in message.commands
    ]
    parts += [f"<p>{'<br>'.join(commands)}</p>"] if commands else []
    border = f"border-left:4px solid {COLOURS[message.mood]};padding:2px 0 2px 14px"
    body = "".join(parts)
    return f'<div style="{_FONT};font-size:14px;color:#1f2933;{border}">{body}</div>'


def _escape_value(value: object, limit: int = _TEXT) -> str:
    return escape(clean(value, limit))


def _write_link(label: str, address: str) -> str:
    if not re.match(r"https?://", address):
        return _escape_value(label)
    return f'<a href="{escape(address)}">{_escape_value(label)}</a>'
