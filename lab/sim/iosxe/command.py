"""`python -m lab sim iosxe`, and the options all simulators with IOS share."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import click

from lab.sim import iosxe
from lab.sim.faults import FAULTS, UnknownFault, parse
from lab.sim.options import RunningSim, SimOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter("write HOST:PORT")
    return host.strip("[]"), int(port)


def _faults(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for fault in value:
        try:
            parse(fault)
        except UnknownFault as error:
            raise click.BadParameter(str(error)) from error
    return value


_OPTIONS = (
    click.option(
        "--listen", required=True, callback=_address, metavar="HOST:PORT", help="SSH; port 0 lets the kernel choose"
    ),
    click.option("--username", default="isthmus", show_default=True),
    click.option("--password-file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--read-only-user", help="a second user, same password, who may look only"),
    click.option("--authorized-keys", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--host-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="private key file"),
    click.option("--hostname"),
    click.option(
        "--configuration", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="first configuration"
    ),
    click.option("--tunnels", default=0, show_default=True, help="gateways"),
    click.option("--channels", default=4, show_default=True, help="(S,G) each gateway asks for"),
    click.option("--churn", default=0.0, show_default=True, help="share of the gateways replaced at each tick"),
    click.option("--seed", default=1, show_default=True),
    click.option("--fault", multiple=True, callback=_faults, help="; ".join(FAULTS)),
    click.option("--old-ssh", is_flag=True, help="only algorithms of aged releases"),
    click.option("--minute-seconds", default=60.0, show_default=True, help="seconds a minute of a timer lasts"),
    click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="wire messages as JSON lines"),
    click.option(
        "--state", type=click.Path(dir_okay=False, path_type=Path), help="keeps the configuration over a restart"
    ),
)


def simulator_options(command: _Command) -> _Command:
    """The options of every simulator with IOS."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def sim_options(given: dict[str, Any], **more: Any) -> SimOptions:  # noqa: ANN401 - fields of SimOptions
    """What the command line asks for."""
    host, port = given.pop("listen")
    password = given.pop("password_file").read_text(encoding="utf-8").rstrip("\r\n")
    keys: Path | None = given.pop("authorized_keys")
    host_key: Path | None = given.pop("host_key")
    configuration: Path | None = given.pop("configuration")
    return SimOptions(
        listen_host=host,
        listen_port=port,
        password=password,
        authorized_keys=tuple(keys.read_text(encoding="utf-8").splitlines()) if keys else (),
        host_key=asyncssh.read_private_key(str(host_key)) if host_key else None,
        configuration=configuration.read_text(encoding="utf-8") if configuration else None,
        **given,
        **more,
    )


async def serve(simulator: AbstractAsyncContextManager[RunningSim]) -> None:
    """Run it until SIGTERM or SIGINT; tells first where it listens and which host key it has."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with simulator as running:
        netconf = f", NETCONF on port {running.netconf_port}" if running.netconf_port is not None else ""
        click.echo(f"listening on {running.host}:{running.port}{netconf}; host key {running.host_key_line}")
        await stopped.wait()


@click.command("iosxe")
@simulator_options
@click.option("--netconf-port", default=830, show_default=True, help="0 lets the kernel choose")
@click.option("--no-netconf", is_flag=True, help="the command line only")
@click.option("--ios-version", default="17.9.4a", show_default=True, help="before 17.9: no config-ios-cli-rpc")
@click.option("--live", help="show the tunnels of an agent in relay role: http://… or unix:///path")
def iosxe_command(*, netconf_port: int, no_netconf: bool, ios_version: str, **given: Any) -> None:  # noqa: ANN401
    """An IOS-XE router that can be an AMT relay."""
    options = sim_options(given, netconf_port=None if no_netconf else netconf_port)
    asyncio.run(serve(iosxe.start(options, ios_version=ios_version)))
