"""Clients that say nothing, never read or send without end; over TLS, and in the clear."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-keyout", str(key), "-out", str(certificate), "-days", "2", "-nodes",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def trusting(certificate: Path) -> ssl.SSLContext:
    """Return a context that believes a certificate."""
    return ssl.create_default_context(cafile=str(certificate))


def ask_health(port: int, context: ssl.SSLContext | None, timeout: float = 30) -> bytes:
    """Ask on a connection of its own whether the server lives; return the answer."""
    with ExitStack() as opened:
        link = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=timeout))
        if context is not None:
            link = opened.enter_context(context.wrap_socket(link, server_hostname="127.0.0.1"))
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = b""
        with contextlib.suppress(ssl.SSLEOFError):
            while more := link.recv(65_536):
                answer += more
        return answer


def say_nothing(port: int, context: ssl.SSLContext | None, opened: ExitStack) -> socket.socket:
    """Connect, and leave it at that; over TLS not even shake hands."""
    return opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))


def never_read(port: int, context: ssl.SSLContext | None, opened: ExitStack) -> socket.socket:
    """Ask for much, many times on one connection, and read nothing of it."""
    plain = opened.enter_context(socket.socket())
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    plain.settimeout(5)
    plain.connect(("127.0.0.1", port))
    link = plain
    if context is not None:
        link = opened.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
    link.settimeout(0.2)
    with contextlib.suppress(OSError):
        link.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2_000)
    return link


def was_let_go(link: socket.socket) -> bool:
    """Read what is left on a connection, and say whether the server has ended it."""
    link.settimeout(30)
    try:
        while link.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


Stranger = Callable[[int, ssl.SSLContext | None, ExitStack], socket.socket]


@dataclass
class Crowd:
    """What a server did while strangers came.

    Attributes:
        slowest: Seconds of the slowest answer to a probe.
        n_answers: Probes that were answered.
        failed: Probes that were not.
    """

    slowest: float = 0.0
    n_answers: int = 0
    failed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def probing(port: int, context: ssl.SSLContext | None, pause: float) -> Iterator[Crowd]:
    """Ask again and again whether a server lives, while the block runs."""
    found, ended = Crowd(), threading.Event()

    def probe() -> None:
        while not ended.is_set():
            begun = time.monotonic()
            try:
                answer = ask_health(port, context)
                if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                    found.failed.append(f"answered {answer[:80]!r}")
                found.n_answers += 1
            except OSError as error:
                found.failed.append(f"{type(error).__name__}: {error}")
            found.slowest = max(found.slowest, time.monotonic() - begun)
            ended.wait(pause)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def let_come(
    n: int,
    stranger: Stranger,
    port: int,
    context: ssl.SSLContext | None,
    opened: ExitStack,
) -> list[socket.socket]:
    """Let so many strangers come, and return the connections that they got."""
    links = []
    for _ in range(n):
        with contextlib.suppress(OSError):
            links.append(stranger(port, context, opened))
    return links


def allow_files(n: int) -> None:
    """Let this process, and those it starts, have so many files open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(n, hard), hard))
