"""Mail over real SMTP: encrypted, one thread per incident, and every answer has a meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.alerts.receivers.base import Delivery, NotPosted, Posted, Refused, Unclear
from mlmon_dagster.alerts.receivers.email import MailReceiver, MailServer, parse_mail_server
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store import Store
from tests.alerts.fake_smtp import FakeSmtp, certificate, fake_smtp
from tests.alerts.worlds import day, deliver, result, settle, spec_of

EVENT = {
    "severity": "ERROR", "title": "credit: psi of age is high\r\nBcc: x@evil.example",
    "items": [], "more": "", "notes": {}, "links": [], "commands": [],
}  # fmt: skip
DELIVERY = Delivery("k" * 64, "a@example.com, b@example.com", "", {"event": EVENT, "plain": "body"})


@pytest.fixture
def smtp() -> Iterator[FakeSmtp]:
    with fake_smtp() as fake:
        yield fake


def server_of(fake: FakeSmtp, encryption: str = "none", user: str = "") -> MailServer:
    return MailServer("127.0.0.1", fake.port, user, "secret", encryption, "mlmon@example.com")


def test_a_mail_is_plain_text_and_a_page_and_no_value_makes_a_header(smtp: FakeSmtp) -> None:
    outcome = MailReceiver(server_of(smtp)).send(DELIVERY)

    (mail,) = smtp.mails
    assert outcome == Posted(mail["Message-ID"])
    assert mail["Subject"].startswith("[ERROR] credit: psi of age is high Bcc:")
    assert mail["Bcc"] is None
    assert mail["To"] == "a@example.com, b@example.com"
    assert mail["Auto-Submitted"] == "auto-generated"
    plain, page = mail.get_payload()
    assert str(plain.get_payload()).splitlines() == ["body"]
    assert page.get_content_type() == "text/html"


def test_a_login_goes_over_tls_only(smtp: FakeSmtp, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    plain = MailReceiver(server_of(smtp, "starttls", "me")).send(DELIVERY)
    smtp.tls, client = certificate(tmp_path)
    untrusted = MailReceiver(server_of(smtp, "starttls", "me")).send(DELIVERY)
    outcome = MailReceiver(server_of(smtp, "starttls", "me"), tls=lambda: client).send(DELIVERY)

    assert isinstance(plain, Refused)
    assert isinstance(untrusted, NotPosted)
    assert "certificate is not trusted" in untrusted.error
    assert isinstance(outcome, Posted)
    assert smtp.was_encrypted == [True]
    assert smtp.logins == 1


def test_an_incident_is_one_mail_thread_and_head_updates_are_not_mailed(
    store: Store, smtp: FakeSmtp
) -> None:
    specs = [spec_of(slack=None, email={"to": ["a@example.com"]})]
    settle(store, specs, day(2), result(1))
    deliver(store, {"email": MailReceiver(server_of(smtp))})
    settle(store, specs, day(3), result(2, "OK"))
    report = deliver(store, {"email": MailReceiver(server_of(smtp))})

    first, second = smtp.mails
    assert report.n_waiting == report.n_dead == 0
    assert second["References"] == second["In-Reply-To"] == first["Message-ID"]
    assert first["References"] is None
    assert "1 resolved" in second["Subject"]


@pytest.mark.parametrize(
    ("verb", "answer", "outcome", "said"),
    [
        ("RCPT", "550 no such user", Refused, "takes none of the addresses"),
        ("RCPT", "450 mailbox busy", NotPosted, "now"),
        ("MAIL", "553 who are you", Refused, "MLMON_MAIL_FROM"),
        ("DATA", "451 later", NotPosted, "asks to wait"),
        ("DATA", "554 spam", Refused, "refuses the mail"),
        ("AUTH", "535 bad password", Refused, "user or password"),
    ],
)
def test_each_answer_has_a_meaning(
    smtp: FakeSmtp, verb: str, answer: str, outcome: type[Any], said: str
) -> None:
    smtp.answers[verb] = answer
    found = MailReceiver(server_of(smtp, user="me" if verb == "AUTH" else "")).send(DELIVERY)

    assert isinstance(found, outcome)
    assert said in found.error


def test_an_answer_that_is_lost_leaves_it_unclear(smtp: FakeSmtp) -> None:
    smtp.drop_after_data = True
    outcome = MailReceiver(server_of(smtp)).send(DELIVERY)

    assert isinstance(outcome, Unclear)


def test_no_server_and_no_answer_are_surely_no_mail() -> None:
    unset = MailReceiver(None).send(DELIVERY)
    gone = MailReceiver(MailServer("127.0.0.1", 1, "", "", "none", "m@example.com")).send(DELIVERY)

    assert isinstance(unset, Refused)
    assert "MLMON_SMTP_URL" in unset.error
    assert isinstance(gone, NotPosted)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://me%40x.org:p%3Aw@mail.example.com", ("starttls", 587, "me@x.org", "p:w")),
        ("smtps://u:p@mail.example.com", ("tls", 465, "u", "p")),
        ("smtp://localhost:1025", ("none", 1025, "", "")),
        ("smtp://u:p@127.0.0.1:25", ("starttls", 25, "u", "p")),
    ],
)
def test_an_address_says_how_to_encrypt(url: str, expected: tuple[Any, ...]) -> None:
    server = parse_mail_server(url, "mlmon@example.com")

    assert (server.encryption, server.port, server.user, server.password) == expected


@pytest.mark.parametrize("url", ["mail.example.com", "http://x", "smtp://h:port", "smtp://u:p@h"])
def test_a_wrong_address_is_explained_and_its_password_kept(url: str) -> None:
    with pytest.raises(ConfigError, match=r"MLMON_(SMTP_URL|MAIL_FROM)") as error:
        parse_mail_server(url)

    assert ":p@" not in str(error.value)
