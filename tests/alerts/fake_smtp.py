"""A mail server that keeps what it is handed: real SMTP on a free port, STARTTLS on request."""

from __future__ import annotations

import datetime as dt
import email
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any


@dataclass
class FakeSmtp:
    """What the server was handed, and how it answers.

    Attributes:
        port: Where it listens.
        mails: Mails in order.
        answers: Answer to a command instead of the right one, such as ``{"RCPT": "550 no"}``.
        logins: How often a client has logged in.
        tls: Offered as STARTTLS; None offers none.
        was_encrypted: Whether each mail came over TLS.
    """

    port: int = 0
    mails: list[Message] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    logins: int = 0
    tls: ssl.SSLContext | None = None
    was_encrypted: list[bool] = field(default_factory=list)
    drop_after_data: bool = False


def _handler(fake: FakeSmtp) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def finish(self) -> None:
            super().finish()
            self.connection.close()  # the TLS socket, if there is one: not the server's

        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        def handle(self) -> None:
            self.say("220 fake")
            while line := self.rfile.readline():
                verb = line.decode().strip().split(" ")[0].upper()
                if verb in fake.answers:
                    self.say(fake.answers[verb])
                elif not self.obey(verb):
                    return

        def obey(self, verb: str) -> bool:
            if verb == "EHLO":
                secure = isinstance(self.connection, ssl.SSLSocket)
                offers = ["fake", "AUTH PLAIN"]
                offers += ["STARTTLS"] if fake.tls and not secure else []
                for offer in offers[:-1]:
                    self.say(f"250-{offer}")
                self.say(f"250 {offers[-1]}")
            elif verb == "STARTTLS" and fake.tls:
                self.say("220 go")
                self.connection = fake.tls.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]
            elif verb == "AUTH":
                fake.logins += 1
                self.say("235 welcome")
            elif verb == "DATA":
                return self.take()
            elif verb == "QUIT":
                self.say("221 bye")
                return False
            else:
                self.say("250 fine")
            return True

        def take(self) -> bool:
            self.say("354 go on")
            lines: list[bytes] = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line)
            fake.mails.append(email.message_from_bytes(b"".join(lines)))
            fake.was_encrypted.append(isinstance(self.connection, ssl.SSLSocket))
            if fake.drop_after_data:
                return False
            self.say("250 taken")
            return True

    return Handler


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_args: Any) -> None:
        """A client that hangs up is part of the tests."""


@contextmanager
def fake_smtp() -> Iterator[FakeSmtp]:
    """Run a mail server for as long as the context lasts."""
    fake = FakeSmtp()
    with _Server(("127.0.0.1", 0), _handler(fake)) as server:
        fake.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield fake
        server.shutdown()


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return TLS contexts of a server on 127.0.0.1 and of a client that trusts it."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "fake.pem").write_bytes(pem + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "fake.pem")
    return server, ssl.create_default_context(cadata=pem.decode())
