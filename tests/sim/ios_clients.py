"""How tests reach the simulated IOS-XE and IOS: unmodified netmiko and ncclient, host key verified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncclient import manager
from netmiko import ConnectHandler

from lab.sim.options import RunningSim

USER = "isthmus"
PASSWORD = "synthetic-password"
ERRORS = r"%.*(Invalid input|Incomplete|Ambiguous|Authorization failed|Duplicate)"


def known_hosts(sim: RunningSim, directory: Path, port: int | None = None) -> Path:
    path = directory / f"known_hosts-{port or sim.port}"
    path.write_text(f"[{sim.host}]:{port or sim.port} {sim.host_key_line}\n")
    return path


def cli(sim: RunningSim, directory: Path, kind: str = "cisco_xe", **more: Any) -> Any:
    """A netmiko connection; call it in a thread."""
    given: dict[str, Any] = {
        "device_type": kind,
        "host": sim.host,
        "port": sim.port,
        "username": USER,
        "password": PASSWORD,
        "ssh_strict": True,
        "alt_host_keys": True,
        "alt_key_file": str(known_hosts(sim, directory)),
        "allow_agent": False,
        "use_keys": False,
    }
    return ConnectHandler(**(given | more))


def netconf(sim: RunningSim, directory: Path, **more: Any) -> Any:
    """An ncclient manager; call it in a thread."""
    given: dict[str, Any] = {
        "host": sim.host,
        "port": sim.netconf_port,
        "username": USER,
        "password": PASSWORD,
        "hostkey_verify": True,
        "hostkey_b64": sim.host_key_line.split()[1],
        "device_params": {"name": "default"},
        "allow_agent": False,
        "look_for_keys": False,
        "timeout": 20,
    }
    return manager.connect(**(given | more))


async def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true value of `condition`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.02)
    return value


async def in_thread(work: Callable[..., Any], *given: Any, **named: Any) -> Any:
    return await asyncio.to_thread(work, *given, **named)
