"""Chooses and builds the forwarding engine of the gateway role."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.dataplane.engine import Engine, NewSource
from agent.dataplane.userspace import UserspaceEngine
from agent.net.mroute import DEFAULT_TABLE, MulticastRouter, MulticastRoutingUnsupportedError
from agent.net.tap import Tap
from agent.protocol.channels import Family
from agent.service.config import Configuration, GatewayMode
from agent.service.fast_engine import FastEngine
from agent.service.frr_mode import FrrMode, tap_settings
from agent.service.gateway_settings import families

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine and what it stands on.

    Attributes:
        fast: the engine and the choice of its planes.
        release: to be called after the engine's `close`.
        missing: why families the configuration wants are not carried here; empty where all are.
        frr: our side of the tunnel interface in mode `frr`, None in the other.
    """

    fast: FastEngine
    release: Callable[[], None]
    missing: dict[Family, str]
    frr: FrrMode | None = None

    @property
    def engine(self) -> Engine:
        """What forwards."""
        return self.fast.engine


def build_engine(
    loop: asyncio.AbstractEventLoop, configuration: Configuration, on_new_source: NewSource
) -> BuiltEngine:
    """The engine the configuration asks for, with the tap device and the multicast routing sockets it needs.

    Raises:
        agent.net.tap.TapError: the tunnel interface is not to be had.
        agent.net.mroute.MulticastRoutingError: another daemon owns multicast routing, or the kernel has none.
        OSError: the kernel refuses the rules mode `frr` needs.
    """
    gateway = configuration.gateway
    tap = Tap(tap_settings(configuration))
    if gateway.mode is GatewayMode.FRR:
        return _beside_frr(loop, configuration, tap, on_new_source)
    routers: dict[Family, MulticastRouter] = {}
    try:
        missing = _open_routers(routers, families(configuration), gateway.mroute_table or DEFAULT_TABLE)
        fast = _above(loop, configuration, tap, UserspaceEngine(loop, tap, routers, on_new_source))
    except BaseException:
        _close(tap, routers.values())
        raise

    def release() -> None:
        fast.close()
        _close(tap, routers.values())

    return BuiltEngine(fast, release, missing)


def _above(
    loop: asyncio.AbstractEventLoop, configuration: Configuration, tap: Tap, slow: UserspaceEngine
) -> FastEngine:
    """The fast planes above the userspace engine, which is closed when they cannot be made."""
    try:
        return FastEngine(loop, configuration, tap, slow)
    except BaseException:
        slow.close()
        raise


def _beside_frr(
    loop: asyncio.AbstractEventLoop, configuration: Configuration, tap: Tap, on_new_source: NewSource
) -> BuiltEngine:
    """The engine writes into the tap, and FRR's multicast routing takes it from there."""
    try:
        frr = FrrMode(loop, configuration, tap, families(configuration))
    except BaseException:
        tap.close()
        raise

    try:
        fast = _above(loop, configuration, tap, UserspaceEngine(loop, tap, None, on_new_source))
    except BaseException:
        frr.close()
        tap.close()
        raise

    def release() -> None:
        fast.close()
        frr.close()
        tap.close()

    return BuiltEngine(fast, release, {}, frr)


def _open_routers(routers: dict[Family, MulticastRouter], wanted: Iterable[Family], table: int) -> dict[Family, str]:
    """Open what the kernel has; a family it lacks is left out, and why is told, as long as another one is there."""
    missing: dict[Family, str] = {}
    last: MulticastRoutingUnsupportedError | None = None
    for family in wanted:
        try:
            routers[family] = MulticastRouter(family, table)
        except MulticastRoutingUnsupportedError as error:
            missing[family] = str(error)
            last = error
            _log.warning("IPv%d multicast is not carried: %s", family, error)
    if not routers and last is not None:
        raise last
    return missing


def _close(tap: Tap, routers: Iterable[MulticastRouter]) -> None:
    for router in routers:
        router.close()
    tap.close()
