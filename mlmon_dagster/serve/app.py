"""The HTTP face of the pages: routes, who may see and do what, and answers that nothing may frame.

An alert can be acknowledged, silenced or said to be of a known event. A browser sends the token
along whatever page asks it to, so what is done must come from these pages themselves.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mlmon_dagster.alerts.handling import LONGEST_SILENCE, acknowledge, note_event, silence_alert
from mlmon_dagster.alerts.messages.message import clean
from mlmon_dagster.collect.admission import Access
from mlmon_dagster.collect.problem import Problem, json_response
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.report import page
from mlmon_dagster.report.curves import Asked
from mlmon_dagster.report.health import health_report
from mlmon_dagster.report.page import Places, moment_text
from mlmon_dagster.serve.alert import alert_page
from mlmon_dagster.serve.overview import DRAWN, PER_PAGE, RELOAD_SECONDS, Overview, tally
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.scalars import parse_duration
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.alert_state import SHORT_ID, AlertRow
from mlmon_dagster.store.state import monitor_results, window_state
from mlmon_dagster.tables.openmetrics import Exporter

_LOG = logging.getLogger("mlmon_dagster.serve")
PLACES = Places("/")
_AT_ONCE = 2  # pages that are made; more wait
_FRESH_SECONDS = 20.0
_KEPT = 64  # pages
_LONGEST_FORM, _FORM_SECONDS = 4_096, 10.0  # bytes
_FIRST_DAY, _LAST_DAY = dt.date(1970, 1, 1), dt.date(2199, 12, 31)
Key = tuple[str, ...]


class _Page(NamedTuple):
    """A page that was made, when, and what of its model it was made from."""

    made_at: float
    state: tuple[object, ...]
    html: str


class Pages:
    """The application; `asgi` is what a server runs.

    Args:
        store: The store.
        overview: Knows the models, and how they are.
        access: Who may see what: the tokens of `mlmon collect`.
        exporter: Answers scrapes.
        now: The clock that windows go by.

    Attributes:
        is_draining: Set before the end.
    """

    def __init__(
        self,
        store: Store,
        overview: Overview,
        access: Access,
        exporter: Exporter,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._store, self._overview, self._access = store, overview, access
        self._exporter, self._now = exporter, now
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._made: dict[Key, _Page] = {}
        self.is_draining = False
        self.asgi = Starlette(
            routes=[
                Route("/", self._front),
                Route("/m/{model}", self._model),
                Route("/m/{model}/alerts/{alert}", self._alert),
                Route("/m/{model}/alerts/{alert}", self._handle, methods=["POST"]),
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
            ],
            exception_handlers={
                Problem: _answer_problem,
                HTTPException: _answer_http,
                sa.exc.SQLAlchemyError: _answer_outside,
            },
        )

    async def _front(self, request: Request) -> Response:
        sees = await self._access.sees(*_credentials(request))
        lines = await asyncio.to_thread(self._overview.lines)
        mine = [line for line in lines if sees(line.model)]
        asked = {name: request.query_params.get(name, "").strip() for name in ("q", "status")}
        text = asked["q"].casefold()
        fit = [
            line
            for line in mine
            if (not asked["status"] or line.status == asked["status"]) and text in line.searched
        ]
        n_pages = max(-(-len(fit) // PER_PAGE), 1)
        place = min(max(_whole(request.query_params.get("page", "1")), 1), n_pages)

        def address(**changes: object) -> str:
            return "?" + urlencode({k: v for k, v in {**asked, **changes}.items() if v})

        html = page.render(
            "overview.html.j2",
            title="All models",
            home=PLACES.home,
            places=PLACES,
            has_charts=False,
            lines=fit[(place - 1) * PER_PAGE : place * PER_PAGE],
            tally=tally(mine),
            read_at=moment_text(self._overview.read_at),
            reload_seconds=RELOAD_SECONDS,
            drawn=DRAWN,
            page=place,
            n_pages=n_pages,
            n=len(fit),
            address=address,
            **asked,
        )
        return _page(html)

    async def _model(self, request: Request) -> Response:
        spec = await self._spec(request)
        asked = _asked(spec, request.query_params)
        key = ("model", spec.model, *map(str, vars(asked).values()))
        return _page(await self._kept(key, lambda: self._made_of(spec, asked)))

    def _made_of(self, spec: ModelSpec, asked: Asked) -> str:
        return health_report(self._store, spec, self._now(), asked, PLACES).html

    async def _alert(self, request: Request) -> Response:
        spec = await self._spec(request)
        name = request.path_params["alert"]
        with_rows = request.query_params.get("rows") == "1"

        def make() -> str:
            found, now = self._find_alert(spec, name), self._now()
            return alert_page(self._store, spec, found, now, PLACES, with_rows=with_rows)

        return _page(await self._kept(("alert", spec.model, name, str(with_rows)), make))

    def _find_alert(self, spec: ModelSpec, name: str) -> AlertRow:
        with self._store.state.connect() as conn:
            alerts = alert_state.all_alerts(conn, spec.model)
        found = [alert for key, alert in alerts.items() if key.startswith(name)]
        if len(found) != 1:
            raise Problem("not_found", "The model has no such alert.")
        return found[0]

    async def _handle(self, request: Request) -> Response:
        """Do what the form of an alert's page says, and lead back to the page."""
        spec = await self._spec(request)
        _refuse_strangers(request)
        wish = _read_wish(await _read_form(request))
        name = request.path_params["alert"]
        await asyncio.to_thread(self._do, spec, name, wish)
        for key in [key for key in self._made if key[:3] == ("alert", spec.model, name)]:
            del self._made[key]
        return RedirectResponse(request.url.path, HTTPStatus.SEE_OTHER)

    def _do(self, spec: ModelSpec, name: str, wish: Wish) -> None:
        fingerprint, now = self._find_alert(spec, name)["fingerprint"], self._now()
        author, comment, do, length = wish
        with suppress(ConfigError):  # it has ended meanwhile, as its page says
            if do == "silence":
                mark = comment or f"from the page of {fingerprint[:SHORT_ID]}"
                silence_alert(self._store, fingerprint, author, now, length, mark)
            elif do == "event":
                note_event(self._store, fingerprint, author, now, length, comment)
            else:
                acknowledge(self._store, fingerprint, author, now, comment, once=True)

    async def _spec(self, request: Request) -> ModelSpec:
        """Return the model of an address, if the caller may see it.

        Raises:
            Problem: If not, or there is none.
        """
        name = request.path_params["model"]
        await self._access.check(*_credentials(request), name)
        spec = await asyncio.to_thread(self._overview.find_spec, name)
        if spec is None:
            raise Problem("not_found", "There is no such model, or its declaration does not load.")
        return spec

    async def _kept(self, key: Key, make: Callable[[], str]) -> str:
        """Return a page, made anew if the one that is kept is old; few are made at once."""
        async with self._room:
            known, state = self._made.get(key), await asyncio.to_thread(self._state_of, key[1])
            is_new = known is not None and time.monotonic() - known.made_at < _FRESH_SECONDS
            if known is not None and is_new and known.state == state:
                return known.html
            html = await asyncio.to_thread(_safely, make)
            self._made[key] = _Page(time.monotonic(), state, html)
            while len(self._made) > _KEPT:
                del self._made[next(iter(self._made))]
            return html

    def _state_of(self, model: str) -> tuple[object, ...]:
        """Return what a page about a model is out of date without: windows, verdicts, alerts."""
        engine = self._store.state
        with engine.connect() as conn:
            newest = (monitor_results.newest_id(conn, model), alert_state.newest_event_id(conn))
        return *newest, window_state.load_progress(engine, model).get(model)

    async def _metrics(self, request: Request) -> Response:
        sees = await self._access.sees(*_credentials(request))
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        accept = request.headers.get("accept", "")
        body, about = await asyncio.to_thread(self._exporter.answer, accept, sees, (), zipped)
        return Response(body, headers=about)

    async def _healthz(self, _request: Request) -> Response:
        return json_response({"status": "shutting down" if self.is_draining else "ok"})


class Wish(NamedTuple):
    """What somebody wants done with an alert: ``acknowledge``, ``silence`` or ``event``."""

    author: str
    comment: str
    do: str
    length: dt.timedelta


async def _read_form(request: Request) -> bytes:
    """Read a form as it comes, so that no stranger fills the memory.

    Raises:
        Problem: If it is too large, or does not come.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LONGEST_FORM:
                    raise Problem("too_large", f"A form has at most {_LONGEST_FORM:,} bytes.")
    except TimeoutError:
        raise Problem("too_slow", "The form took too long to arrive.") from None
    return bytes(body)


def _read_wish(body: bytes) -> Wish:
    """Read the form of an alert's page.

    Raises:
        Problem: If nobody says who it is, or the time of a silence is none.
    """
    form = {k: clean(v[-1]).strip() for k, v in parse_qs(body.decode(errors="replace")).items()}
    if not form.get("author"):
        raise Problem("malformed", "Say who you are: others want to know who is on it.")
    do = form.get("do", "acknowledge")
    if do not in ("acknowledge", "silence", "event"):
        raise Problem("malformed", "'do' is acknowledge, silence or event.")
    try:
        length = parse_duration(form.get("for", "1d"))
    except ValueError:
        raise Problem("malformed", "'for' is a time such as 2d.") from None
    if not dt.timedelta(0) < length <= LONGEST_SILENCE:
        raise Problem("malformed", f"'for' is at most {LONGEST_SILENCE.days} days.")
    return Wish(form["author"], form.get("comment", ""), do, length)


def _refuse_strangers(request: Request) -> None:
    """Refuse what another page made a browser send.

    Raises:
        Problem: If the request is not from a page of this server.
    """
    site, origin = (request.headers.get(name) for name in ("sec-fetch-site", "origin"))
    if site is not None:
        is_ours = site == "same-origin"
    else:  # an old browser, or none
        is_ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not is_ours:
        raise Problem("forbidden", "Alerts are handled on these pages only.")


def _safely(make: Callable[[], str]) -> str:
    """Make a page; what goes wrong is logged without its message, which may hold a value."""
    try:
        return make()
    except Problem:
        raise
    except Exception as error:
        frames = "".join(traceback.format_tb(error.__traceback__))
        _LOG.error("a page failed: %s\n%s", type(error).__name__, frames)
        raise Problem("failed", "The page cannot be made; the server's log says why.") from None


def _credentials(request: Request) -> tuple[str, str]:
    """Return the headers ``authorization`` and ``host``.

    Browsers ask people for a name and a password; the password is the token.
    """
    given = request.headers.get("authorization", "")
    scheme, _, encoded = given.partition(" ")
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        given = f"Bearer {decoded.partition(':')[2]}"
    return given, request.headers.get("host", "")


def _asked(spec: ModelSpec, query: Mapping[str, str]) -> Asked:
    """Read what a page is asked for.

    Raises:
        Problem: If a day or a slice is none, or a day that no window can be of.
    """
    if any("\0" in text for text in query.values()):
        raise Problem("malformed", "No name or value holds a character of code zero.")
    zone = ZoneInfo(spec.time.zone)
    days = {}
    for name in ("from", "to"):
        text = query.get(name, "").strip()
        try:
            days[name] = dt.date.fromisoformat(text) if text else None
        except ValueError:
            raise Problem("malformed", f"'{name}' is a day such as 2013-12-29.") from None
        # Further out a window of the zone ends where no calendar has a day.
        if (day := days[name]) is not None and not _FIRST_DAY <= day <= _LAST_DAY:
            raise Problem("malformed", f"'{name}' is a day from {_FIRST_DAY} to {_LAST_DAY}.")
    start, end = (
        None if day is None else dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)
        for day in days.values()
    )
    if end is not None:
        last = dt.datetime.combine(days["to"] or dt.date.min, dt.time.max, zone)
        end = window_containing(spec.time, last.astimezone(dt.UTC)).end
    if start is not None:
        start = window_containing(spec.time, start).start
    if start is not None and end is not None and start >= end:
        raise Problem("malformed", "'from' is after 'to'.")
    key, is_slice, value = query.get("slice", "").partition("=")
    if is_slice and tuple(key.split(",")) not in spec.slices:
        raise Problem("not_found", "The model has no such slice.")
    return Asked(
        start,
        end,
        key if is_slice else ALL,
        value if is_slice else ALL,
        query.get("version", "").strip() or ALL,
    )


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _page(html: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    policy = page.content_policy(is_served=True)
    return HTMLResponse(
        html,
        status,
        headers={
            "content-security-policy": f"{policy}; frame-ancestors 'none'",
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "cross-origin-opener-policy": "same-origin",
            **(headers or {}),
        },
    )


def _said(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    title = HTTPStatus(status).phrase
    html = page.render("said.html.j2", title=title, home=PLACES.home, text=text, has_charts=False)
    return _page(html, status, headers)


def _answer_problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    if problem.status == 401:
        text = (
            "These pages are for those with a token: give it as the password; the name does not "
            "matter. 'mlmon collect token create' makes one."
        )
        return _said(401, text, {"www-authenticate": 'Basic realm="mlmon", charset="UTF-8"'})
    return _said(problem.status, problem.detail, problem.headers)


def _answer_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(error.status_code, "There is nothing here.", error.headers)


def _answer_outside(_request: Request, error: Exception) -> Response:
    _LOG.warning("the database does not answer: %s", type(error).__name__)
    text = "The database does not answer now. mlmon doctor looks closer."
    return _said(503, text, {"retry-after": "30"})
