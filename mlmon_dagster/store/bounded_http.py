"""HTTP requests whose answers have a deadline as a whole.

The timeout of a socket counts from one byte to the next: a server that drips is waited for without
end. Here a timer ends the connection, whatever it is in the midst of.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Final

_MOST_BYTES: Final = 1_000_000  # that are read of an answer that says what went wrong


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Tokens and messages go where they were declared to go and nowhere else."""

    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        """Follow nothing."""
        return


@contextlib.contextmanager
def open_within(
    request: urllib.request.Request, seconds: float, *handlers: urllib.request.BaseHandler
) -> Iterator[http.client.HTTPResponse]:
    """Open a request, and end it if it is not over in time; the answer is read in the block.

    Args:
        request: What to ask.
        seconds: From connecting to the end of the block, and for each wait in it.
        handlers: Handlers of urllib besides the usual ones.

    Raises:
        TimeoutError: If the time was over.
        HTTPError: If the answer is not of success; its body is read already.
        OSError: If the other side cannot be reached.
    """
    deadline = _Deadline(seconds)
    opener = urllib.request.build_opener(_Http(deadline), _Https(deadline), *handlers)
    try:
        with opener.open(request, timeout=seconds) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        with error:
            body = io.BytesIO(error.read(_MOST_BYTES))
        deadline.check()
        raise urllib.error.HTTPError(
            error.filename, error.code, error.msg, error.headers, body
        ) from None
    except Exception:  # whatever is made of half an answer
        deadline.check()
        raise
    finally:
        deadline.end()
    deadline.check()


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False
        self._watched: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._break_off)
        self._timer.daemon = True
        self._timer.start()

    def connect(
        self, address: tuple[str, int], timeout: float | None, source: tuple[str, int] | None
    ) -> socket.socket:
        """Connect, and watch the connection from then on, TLS on top of it or not."""
        found = socket.create_connection(address, timeout, source)
        with self._lock:
            self._watched.append(found.dup())
        return found

    def check(self) -> None:
        """Raise TimeoutError if the time was over."""
        if self._is_over:
            raise TimeoutError(f"no whole answer within {self._seconds:g} s")

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()
        with self._lock:
            for copy in self._watched:
                copy.close()
            self._watched.clear()

    def _break_off(self) -> None:
        self._is_over = True
        with self._lock:
            for copy in self._watched:
                with contextlib.suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    def __init__(self, deadline: _Deadline, host: str, *, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._create_connection = deadline.connect


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, deadline: _Deadline, host: str, *, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._create_connection = deadline.connect


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, self._deadline), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_SecureConnection, self._deadline), req)
