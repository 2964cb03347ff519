"""The HTTP face of the collector: routes, headers, answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from mlmon_dagster.collect.access import Access
from mlmon_dagster.collect.body import form_of
from mlmon_dagster.collect.collector import Ask, Collector
from mlmon_dagster.collect.openapi import describe
from mlmon_dagster.collect.pages import CONTENT_POLICY, page
from mlmon_dagster.collect.pressure import Pressure
from mlmon_dagster.collect.problem import Problem, json_response
from mlmon_dagster.collect.target import Target
from mlmon_dagster.ingest.reasons import shown

_LOG = logging.getLogger("mlmon_dagster.collect")
_MOST_KEY = 255


class App:
    """The application; `asgi` is what a server runs.

    Attributes:
        is_draining: Set before the end: new requests are answered 503.
    """

    def __init__(self, collector: Collector, access: Access, pressure: Pressure) -> None:
        self._collector, self._access, self._pressure = collector, access, pressure
        self.is_draining = False
        self.asgi = Starlette(
            routes=[
                Route("/v1/models/{model}/{stream}", self._post, methods=["POST"]),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/openapi.json", self._openapi),
                Route("/docs", self._docs),
            ],
            exception_handlers={Problem: _answer_problem, HTTPException: _answer_http},
            lifespan=self._life,
        )

    @contextlib.asynccontextmanager
    async def _life(self, _app: Starlette) -> AsyncIterator[None]:
        counting = asyncio.create_task(self._pressure.count_for_ever())
        yield
        counting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await counting
        await asyncio.to_thread(self._collector.close)

    async def _post(self, request: Request) -> Response:
        try:
            return await self._take(request)
        except Problem as problem:
            codes = sorted({problem.code, *(str(error["reason"]) for error in problem.errors)})
            _LOG.info("%s refused: %s", shown(request.url.path), ", ".join(codes))
            raise
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:
            # The message of an unforeseen error may hold a value.
            frames = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("%s failed: %s\n%s", shown(request.url.path), type(error).__name__, frames)
            raise Problem("failed", "An unforeseen error; see the server's log.") from None

    async def _take(self, request: Request) -> Response:
        if self.is_draining:
            leave = {"retry-after": "5", "connection": "close"}
            raise Problem("shutting_down", "Send it to another server, or again.", headers=leave)
        headers = request.headers
        model = request.path_params["model"]
        caller = await self._allowed(request, model)
        target = self._target(model, request.path_params["stream"])
        form = form_of(headers.get("content-type", ""), headers.get("content-encoding", ""))
        takes_part = _takes_part(request)
        key = headers.get("idempotency-key", "")
        if len(key) > _MOST_KEY:
            raise Problem("malformed", f"Idempotency-Key is longer than {_MOST_KEY} characters.")
        self._pressure.check(target)  # before the body comes
        who = caller or (request.client.host if request.client else "")
        with self._pressure.receiving(who) as count:
            body = await self._body(request, count)
            with self._pressure.room_for(target, who):
                ask = Ask(target, form, body, caller, key, takes_part)
                answer, is_repeat = await self._collector.take(ask)
        return json_response(answer, 202, {"idempotent-replayed": "true"} if is_repeat else None)

    def _target(self, model: str, stream: str) -> Target:
        targets: dict[Any, Target] = dict(self._collector.targets)
        found = targets.get((model, stream))
        if found is not None:
            return found
        if any(name == model for name, _ in targets) and stream in ("predictions", "actuals"):
            raise Problem("not_found", f"The model has no landing files of {stream}.")
        raise Problem("not_found", "There is no such model or stream.")

    async def _body(self, request: Request, count: Callable[[int], None]) -> bytes:
        limits = self._collector.limits
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limits.max_body:
            raise _too_large(limits.max_body)
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > limits.max_body:
                        raise _too_large(limits.max_body)
                    count(len(chunk))
                    body += chunk
        except TimeoutError:
            found = f"The body took longer than {limits.body_seconds:g} seconds."
            raise Problem("too_slow", found, headers={"connection": "close"}) from None
        return bytes(body)

    async def _allowed(self, request: Request, model: str | None) -> str:
        headers = request.headers
        authorization, host = headers.get("authorization", ""), headers.get("host", "")
        return await self._access.check(authorization, host, model)

    async def _healthz(self, _request: Request) -> Response:
        return json_response({"status": "ok"})

    async def _readyz(self, _request: Request) -> Response:
        problems = ["shutting down"] if self.is_draining else self._pressure.problems()
        if problems:
            return json_response({"status": "not ready", "reasons": problems}, 503)
        return json_response({"status": "ok"})

    async def _description(self, request: Request) -> dict[str, Any]:
        """Describe the models that the caller may push to; without a token none is named."""
        judges = self._collector.judges.values()
        mine = []
        for judge in judges:
            with contextlib.suppress(Problem):
                await self._allowed(request, judge.spec.model)
                mine.append(judge)
        return describe(mine, self._collector.limits, needs_token=self._access.needs_token)

    async def _openapi(self, request: Request) -> Response:
        return json_response(await self._description(request))

    async def _docs(self, request: Request) -> Response:
        text = page(await self._description(request))
        return HTMLResponse(text, headers={"content-security-policy": CONTENT_POLICY})


def _takes_part(request: Request) -> bool:
    accept = request.query_params.get("accept", "all")
    if accept not in ("all", "partial"):
        raise Problem("malformed", "The parameter 'accept' is 'all' or 'partial'.")
    return accept == "partial"


def _too_large(limit: int) -> Problem:
    # Closed, since the rest of the body would be read as the next request.
    found = f"More than {limit:,} bytes; send fewer rows at once, or compress them."
    return Problem("too_large", found, headers={"connection": "close"})


def _answer_problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


def _answer_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "malformed")
    return Problem(code, "See /docs.", headers=dict(error.headers or {})).response()
