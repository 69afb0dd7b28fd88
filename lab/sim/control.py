"""A Unix socket that changes running simulators: one JSON object a line, one answer a line.

    {"fault": "slow:2"}      switch a fault on        {"fault": null}         switch all off
    {"clear": "slow"}        switch one off           {"tunnels": 50}         show this many tunnels
    {"edit": "set system …"} configure as somebody on the router's own command line
    {"hold_after": 3}        stand still after three more wire messages      {"release": true}    go on
    {"hold_at": "in get"}    stand still at the next message of this direction and kind
    {"index": 3, …}          only the fourth simulator of the process; without it all

The answer is {"faults": […]} of the last one changed, with {"held": […]} where some stand still: their indices; or
{"error": …}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lab.sim.options import RunningSim


@asynccontextmanager
async def controlled(path: Path, running: Sequence[RunningSim]) -> AsyncIterator[None]:
    """Listen on `path` until the context ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(json.dumps(_obey(line, running)).encode() + b"\n")
                await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, before serving
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, after serving


def _obey(line: bytes, running: Sequence[RunningSim]) -> dict[str, Any]:
    try:
        order = json.loads(line)
        chosen = running if "index" not in order else [running[order["index"]]]
        for sim in chosen:
            _change(sim, order)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return {"error": str(error)}
    answer: dict[str, Any] = {"faults": sorted(chosen[-1].faults.active)}
    if held := [index for index, sim in enumerate(running) if sim.wire_log.held]:
        answer["held"] = held
    return answer


def _change(sim: RunningSim, order: dict[str, Any]) -> None:
    if "fault" in order:
        sim.set_fault(order["fault"])
    if "clear" in order:
        sim.faults.clear(order["clear"])
    if "hold_after" in order:
        sim.wire_log.hold_after(int(order["hold_after"]))
    if "hold_at" in order:
        sim.wire_log.hold_at(str(order["hold_at"]))
    if "release" in order:
        sim.wire_log.release()
    if "tunnels" in order:
        sim.population.set_tunnels(int(order["tunnels"]))
    if "edit" in order:
        sim.device.edit(order["edit"])
