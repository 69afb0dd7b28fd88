"""Server-sent events that go on where they broke off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final

import httpx

from relaymgr.cli.client import Manager, Parameter
from relaymgr.cli.failure import Refused, Unreachable

PATIENCE_SECONDS: Final = 300.0
"""A manager that restarts is waited for so long."""
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
TRY_AGAIN_STATUS: Final = frozenset({429, 502, 503, 504})
"""What a proxy or a starting manager answers; trying again helps."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event; `id` is that of the last one that carried an id."""

    event: str
    data: str
    id: str | None

    def document(self) -> dict[str, Any]:
        """The data as JSON object; an empty one when it is none."""
        try:
            found = json.loads(self.data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def parse(lines: Iterable[str], last_event_id: str | None = None) -> Iterator[ServerSentEvent]:
    """Events of a stream (WHATWG HTML section 9.2.6). An event that the stream's end cuts off is dropped."""
    kind, data, identifier = "message", list[str](), last_event_id
    for line in lines:
        if not line:
            if data:
                yield ServerSentEvent(kind, "\n".join(data), identifier)
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            identifier = value


def follow(
    manager: Manager,
    path: str,
    *,
    last_event_id: str | None = None,
    patience: float = PATIENCE_SECONDS,
    on_break: Callable[[], None] = lambda: None,
    **parameters: Parameter,
) -> Iterator[ServerSentEvent | None]:
    """Events of a stream, each once, over as many connections as it takes. Ends only by its reader.

    Yields None each time the stream ended or broke, before connecting again, so that the reader can ask whether there
    is anything left to wait for. Raises Unreachable when no connection could be had for `patience` seconds, Refused
    when the manager refuses.
    """
    pause = _FIRST_PAUSE
    broken_at: float | None = None
    while True:
        try:
            with manager.stream(path, last_event_id, **parameters) as lines:
                broken_at = None
                for event in parse(lines, last_event_id):
                    pause, last_event_id = _FIRST_PAUSE, event.id
                    yield event
        except (httpx.TransportError, Refused) as error:
            if isinstance(error, Refused) and error.status not in TRY_AGAIN_STATUS:
                raise
            broken_at = monotonic() if broken_at is None else broken_at
            if monotonic() - broken_at > patience:
                reason = str(error) or type(error).__name__
                raise Unreachable(f"the manager at {manager.target.url} stopped answering: {reason}") from None
            on_break()
        yield None
        sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
