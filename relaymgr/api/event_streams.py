"""Server-sent events (HTML Living Standard, 9.2): numbered, resumed with Last-Event-ID, kept awake by heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Header
from fastapi.responses import StreamingResponse

from relaymgr.api.problems import Refused
from relaymgr.api.rendering import to_json

HEARTBEAT_SECONDS: Final = 15.0
LIFETIME_SECONDS: Final = 3600.0
"""A stream ends after this; the client comes back with Last-Event-ID, and its token is looked at again."""
_LARGEST: Final = 2**63 - 1

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=32,
        description="Number of the last event that arrived; the stream goes on after it.",
        examples=["4711"],
    ),
]
STREAM_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events: `id`, `event` and `data`, a JSON object; a comment line as heartbeat.",
        "content": {"text/event-stream": {"schema": {"type": "string", "description": "Server-sent events."}}},
    }
}


@dataclass(frozen=True, slots=True)
class Sent:
    """One event."""

    id: int | None
    event: str
    data: Mapping[str, Any]


def resume_after(given: str | None) -> int | None:
    """The number in Last-Event-ID; None without one."""
    if given is None:
        return None
    if not (given.isascii() and given.isdigit()) or int(given) > _LARGEST:
        raise Refused("invalid_request", "Last-Event-ID is the number of an event")
    return int(given)


def stream(source: AsyncIterator[Sent]) -> StreamingResponse:
    """Answer with the events of `source`; the stream ends with it."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_lines(source), media_type="text/event-stream", headers=headers)


async def _lines(source: AsyncIterator[Sent]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    ends = loop.time() + LIFETIME_SECONDS
    yield b"retry: 2000\n\n"
    waiting = asyncio.ensure_future(_next(source))
    try:
        while loop.time() < ends:
            done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT_SECONDS)
            if not done:
                yield b": still here\n\n"
                continue
            sent = waiting.result()
            if sent is None:
                return
            number = f"id: {sent.id}\n".encode() if sent.id is not None else b""
            yield number + f"event: {sent.event}\n".encode() + b"data: " + to_json(sent.data) + b"\n\n"
            waiting = asyncio.ensure_future(_next(source))
    finally:
        # Cancelled once and never again, as awaiting it here would while the client's scope is cancelled: the second
        # one meets the database's driver while it tidies up after the first, and leaves it waiting for ever.
        waiting.cancel()
        waiting.add_done_callback(_ended)
        await asyncio.wait({waiting})


def _ended(waiting: asyncio.Future[Sent | None]) -> None:
    if not waiting.cancelled():
        waiting.exception()  # nobody is there to be told


async def _next(source: AsyncIterator[Sent]) -> Sent | None:
    return await anext(source, None)
