"""Bounds of a request: size of its body, time for all of it."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.service.api.problems import problem

BODY_LIMIT: Final = 262_144
"""Bytes of a request body; a configuration of a thousand relays is half of it."""
REQUEST_SECONDS: Final = 60.0
"""From the end of the headers to the end of the answer."""


class RequestLimits:
    """ASGI middleware that answers 413 to long bodies and 503 to requests that take too long.

    The body is read whole before the application sees the request, so nothing half read is ever acted on.
    """

    def __init__(self, app: ASGIApp, body_limit: int = BODY_LIMIT, seconds: float = REQUEST_SECONDS) -> None:
        self._app = app
        self._body_limit = body_limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request within the bounds."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self._seconds):
                body = await self._body(receive)
                if body is not None:
                    await self._app(scope, _replay(body, receive), noted_send)
                    return
            answer = problem(
                "too_large", f"a body has at most {self._body_limit} bytes", headers={"Connection": "close"}
            )
        except TimeoutError:
            answer = problem("timeout", "the request took too long", headers={"Connection": "close"})
        if not started:
            await answer(scope, receive, send)

    async def _body(self, receive: Receive) -> list[Message] | None:
        """The messages of the body, or None when it is longer than allowed."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._body_limit:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives `messages` first."""
    waiting = iter(messages)

    async def replayed() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replayed
