"""An engine that cannot be put together leaves nothing behind in the loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent.dataplane import accelerated
from agent.dataplane.accelerated import AcceleratedEngine
from agent.dataplane.fast.layout import Plane


@pytest.mark.parametrize("part", ["FastTunnels", "PortTable", "Replanning"])
def test_nobody_listens_to_events_of_an_engine_that_could_not_be_made(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    reading: set[int] = set()
    closed: list[str] = []
    events = SimpleNamespace(fileno=lambda: 5, close=lambda: closed.append("events"))
    loop: Any = SimpleNamespace(
        time=lambda: 0.0, add_reader=lambda number, _call: reading.add(number), remove_reader=reading.discard
    )
    programs: Any = SimpleNamespace(
        map=lambda _name: None, program=lambda _name: 7, make_events=lambda _call: events, channel_slots=16
    )
    other: Any = SimpleNamespace(want=None, set_trains=None, drain=None)

    def refuse(*_arguments: object) -> None:
        raise OSError(part)

    monkeypatch.setattr(accelerated, part, refuse)
    with pytest.raises(OSError, match=part):
        AcceleratedEngine(loop, other, programs, other, other, (Plane.XDP,))
    assert (reading, closed) == (set(), ["events"])
