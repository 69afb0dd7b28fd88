"""Command line options that all simulators share, and what keeps one running."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import click

from lab.sim.control import controlled
from lab.sim.faults import FAULTS, UnknownFault, parse
from lab.sim.options import RunningSim, SimOptions
from lab.sim.ssh_server import new_host_key

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Start = Callable[[SimOptions], AbstractAsyncContextManager[RunningSim]]
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)


def listen_address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 address in brackets."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter("write HOST:PORT")
    return host.strip("[]"), int(port)


def checked_faults(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """NAME or NAME:ARGUMENT, each."""
    for fault in value:
        try:
            parse(fault)
        except UnknownFault as error:
            raise click.BadParameter(str(error)) from error
    return value


def fault_help() -> str:
    """Every fault and what it does, one a line, for the end of --help."""
    rows = []
    for name, text in FAULTS.items():
        written, separator, meaning = text.partition("  ")
        rows.append(f"  {written if separator else name:<20} {meaning.strip() if separator else text}")
    return "\b\nFaults (--fault may be repeated; all can be switched through --control):\n" + "\n".join(rows)


_OPTIONS = (
    click.option("--listen", required=True, callback=listen_address, metavar="HOST:PORT", help="port 0: any"),
    click.option("--count", default=1, show_default=True, help="this many simulators, on ports from the given one up"),
    click.option("--username", default="isthmus", show_default=True),
    click.option("--password-file", required=True, type=_EXISTING, help="the password is its first line"),
    click.option("--authorized-keys", type=_EXISTING, help="public keys that are let in too"),
    click.option("--read-only-user", help="a second user, same password, who may not change anything"),
    click.option("--host-key", type=_EXISTING, help="private key; without it a new one is made"),
    click.option("--old-ssh", is_flag=True, help="only diffie-hellman-group14-sha1 and ssh-rsa, as aged releases"),
    click.option("--hostname"),
    click.option("--configuration", type=_EXISTING, help="first configuration, in the router's own text"),
    click.option("--tunnels", default=0, show_default=True, type=click.IntRange(min=0), help="gateways"),
    click.option("--channels", default=4, show_default=True, type=click.IntRange(min=0), help="(S,G) of each gateway"),
    click.option("--churn", default=0.0, show_default=True, help="share of the gateways replaced at each tick, 0..1"),
    click.option("--seed", default=1, show_default=True, help="same seed, same population"),
    click.option("--tick-seconds", default=5.0, show_default=True, help="how often counters move"),
    click.option("--live", metavar="URL", help="show an agent in relay role instead: http://… or unix:///path"),
    click.option("--fault", multiple=True, callback=checked_faults, metavar="NAME[:ARGUMENT]", help="see below"),
    click.option("--control", type=_NEW, help="Unix socket that takes faults and tunnels as JSON, see lab/sim/control"),
    click.option("--minute-seconds", default=60.0, show_default=True, help="how long a minute to confirm lasts"),
    click.option("--log", type=_NEW, help="file of one JSON line for each wire message (.1, .2… with --count)"),
    click.option("--state", type=_NEW, help="file that keeps the configuration over a restart (.1, .2… with --count)"),
    click.option("--ready-file", type=_NEW, help="written when listening: addresses and host keys as JSON"),
)


def simulator_options(command: _Command) -> _Command:
    """Give a click command the options; they come back through `taken`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken(given: dict[str, Any], **more: Any) -> tuple[list[SimOptions], Path | None, Path | None]:  # noqa: ANN401
    """What the command line asks for: options of each simulator, ready file, control socket."""
    host, port = given.pop("listen")
    count, ready_file, control = given.pop("count"), given.pop("ready_file"), given.pop("control")
    lines = given.pop("password_file").read_text(encoding="utf-8").splitlines()
    if not lines or not lines[0]:
        raise click.UsageError("the password file is empty")
    keys: Path | None = given.pop("authorized_keys")
    key_file: Path | None = given.pop("host_key")
    text: Path | None = given.pop("configuration")
    key = asyncssh.read_private_key(str(key_file)) if key_file else new_host_key(old_ssh=given["old_ssh"])
    first = SimOptions(
        listen_host=host,
        listen_port=port,
        password=lines[0],
        authorized_keys=tuple(keys.read_text(encoding="utf-8").splitlines()) if keys else (),
        host_key=key,
        configuration=text.read_text(encoding="utf-8") if text else None,
        **given,
        **more,
    )
    return list(_several(first, count)), ready_file, control


def _several(first: SimOptions, count: int) -> Iterator[SimOptions]:
    yield first
    for index in range(1, count):
        yield replace(
            first,
            listen_port=first.listen_port + index if first.listen_port else 0,
            hostname=f"{first.hostname or 'sim'}-{index}",
            seed=first.seed + index,
            state=first.state.with_name(f"{first.state.name}.{index}") if first.state else None,
            log=first.log.with_name(f"{first.log.name}.{index}") if isinstance(first.log, Path) else None,
        )


async def serve(start: _Start, options: Sequence[SimOptions], ready_file: Path | None, control: Path | None) -> None:
    """Run simulators until SIGTERM or SIGINT; says first where each listens and which host key it has."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(start(one)) for one in options]
        if control is not None:
            await stack.enter_async_context(controlled(control, running))
        for sim in running:
            also = f" netconf {sim.netconf_port}" if sim.netconf_port else ""
            click.echo(f"listening on {sim.host}:{sim.port}{also} host key {sim.fingerprint} {sim.host_key_line}")
        if ready_file is not None:
            fresh = ready_file.with_name(ready_file.name + ".new")
            fresh.write_text(json.dumps([_description(sim) for sim in running]), encoding="utf-8")
            fresh.replace(ready_file)
        await stopped.wait()


def _description(sim: RunningSim) -> dict[str, Any]:
    return {
        "host": sim.host,
        "port": sim.port,
        "netconf_port": sim.netconf_port,
        "host_key": sim.host_key_line,
        "fingerprint": sim.fingerprint,
    }
