"""The outermost layer: request ids, bounds of a body, headers every answer has, errors nobody else answered."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaymgr.api.problems import REQUEST_ID, members_of, problem

BODY_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a request body; a bulk of a thousand intents with everything in them is half of it."""
BODY_SECONDS: Final = 60.0
"""Within which a request's body has to come."""
SECURE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ACCEPTABLE_ID: Final = re.compile(r"^[A-Za-z0-9._:-]{1,64}$")
_log = logging.getLogger(__name__)

Observe = Callable[[str, str, int, float], None]
"""Method, route, status, seconds."""


class Boundary:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, observe: Observe, *, body_limit: int = BODY_LIMIT, secure: bool = False) -> None:
        self._app = app
        self._observe = observe
        self._body_limit = body_limit
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        token = REQUEST_ID.set(request_id)
        started = time.perf_counter()
        status = 0

        async def dressed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._dress(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            await self._answer(scope, receive, dressed_send)
        except ClientDisconnect:
            status = status or 499
        except Exception as error:
            members = members_of(error)
            if members["code"] == "internal":
                _log.exception("a request failed", extra={"request_id": request_id, "path": scope["path"]})
            if status:
                raise
            headers = {"Retry-After": "5"} if members["code"] == "not_ready" else None
            answer = problem(members.pop("code"), members.pop("detail"), headers=headers, **members)
            await answer(scope, receive, dressed_send)
        finally:
            REQUEST_ID.reset(token)
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unmatched")
            self._observe(scope["method"], route, status, seconds)
            _log.info(
                "answered",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(seconds, 4),
                },
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if b"%00" in scope.get("raw_path", b"") + scope.get("query_string", b""):
            await problem("malformed_request", "an address holds no NUL character")(scope, receive, send)
            return
        if scope["method"] in {"GET", "HEAD", "OPTIONS", "DELETE"}:
            await self._app(scope, receive, send)
            return
        body = await self._body(scope, receive)
        if isinstance(body, tuple):
            await problem(*body, headers={"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | tuple[str, str]:
        """The whole body, or code and detail of why it is refused; nothing half read is ever acted on."""
        chunks: list[bytes] = []
        size = 0
        ends = asyncio.get_running_loop().time() + BODY_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                return "too_slow", f"a body comes within {BODY_SECONDS:.0f} s"
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._body_limit:
                return "too_large", f"a body has at most {self._body_limit} bytes"
            if not message.get("more_body", False):
                break
        body = b"".join(chunks)
        kind = Headers(scope=scope).get("content-type", "").split(";")[0].strip().lower()
        if body and kind != "application/json":
            return "unsupported_media_type", "a body is application/json"
        if b"\\u0000" in body:
            return "invalid_request", "a text holds no NUL character"
        return body

    def _dress(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        for name, value in SECURE_HEADERS.items():
            headers.setdefault(name, value)
        if self._secure:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")

    @staticmethod
    def _request_id(scope: Scope) -> str:
        """The caller's own id where it is harmless, else a new one."""
        given = Headers(scope=scope).get("x-request-id", "")
        return given if _ACCEPTABLE_ID.match(given) else secrets.token_hex(8)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` first."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
