"""The door to the devices of this process: one session a device, who configures goes first, the dead are left alone.

Pollers and jobs never make a driver themselves. What is behind the door: drivers kept between uses, one user at a time
per device, a circuit breaker per device, a rate for logins over all devices, and the bounded threads of synchronous
libraries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from relaymgr.domain.platforms import Platform
from relaymgr.drivers.breaker import Breaker, BreakerLimits, LoginRate
from relaymgr.drivers.errors import (
    CircuitOpen,
    DeviceBusy,
    DriverError,
    Garbage,
    HostKeyMismatch,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.protocol import Credential, DeviceTarget, Driver, DriverContext
from relaymgr.drivers.registry import DriverFactory, make_driver

LoadTarget = Callable[[str], Awaitable[tuple[DeviceTarget, Credential]]]
"""Where a relay is and how to log in, read anew whenever a driver is made."""

_BROKEN = (Unreachable, SessionLost, HostKeyMismatch, Garbage)


@dataclass(slots=True)
class _Device:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    breaker: Breaker = field(default_factory=Breaker)
    driver: Driver | None = None
    configuring: int = 0
    """Callers that configure or wait to."""
    stale: bool = False
    """The relay was edited; the driver is of yesterday."""


class DeviceAccess:
    """Hands out drivers. Use one per process and event loop; `close` at the end."""

    def __init__(
        self,
        load: LoadTarget,
        *,
        threads: int = 32,
        factory: DriverFactory = make_driver,
        limits: BreakerLimits | None = None,
        logins_per_second: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._factory = factory
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="device")
        self._context = DriverContext(self._executor)
        self._logins = LoginRate(logins_per_second, burst=int(logins_per_second * 2) or 1, now=clock())
        self._devices: dict[str, _Device] = {}

    @asynccontextmanager
    async def configuring(self, relay_id: str, *, urgent: bool = False) -> AsyncIterator[Driver]:
        """The device for a job, exclusively; waits for whoever uses it now.

        `urgent` ignores the circuit breaker: a confirm window does not wait. Raises DriverError of the device's making,
        or CircuitOpen.
        """
        device = self._device(relay_id)
        device.configuring += 1
        try:
            async with device.lock:
                if not urgent:
                    self._admit(relay_id, device)
                async with self._driver(relay_id, device) as driver:
                    yield driver
        finally:
            device.configuring -= 1

    @asynccontextmanager
    async def monitoring(self, relay_id: str) -> AsyncIterator[Driver]:
        """The device for a poll; never waits: DeviceBusy when in use, CircuitOpen when left alone."""
        device = self._device(relay_id)
        if device.configuring or device.lock.locked():
            raise DeviceBusy(relay_id, "another task of the manager uses the device")
        async with device.lock:
            self._admit(relay_id, device)
            async with self._driver(relay_id, device) as driver:
                yield driver

    def circuit(self, relay_id: str) -> str | None:
        """Why the device is left alone now; None when it is not."""
        device = self._devices.get(relay_id)
        return device.breaker.reason if device and device.breaker.wait(self._clock()) > 0 else None

    def renew(self, relay_id: str) -> None:
        """The next use makes a new session, from what is known of the relay then; its failures are not forgotten."""
        device = self._devices.get(relay_id)
        if device is not None:
            device.stale = True

    def forget(self, relay_id: str) -> None:
        """The relay was edited or deleted: its session ends with the current use, its failures are forgotten."""
        device = self._devices.get(relay_id)
        if device is not None:
            device.stale = True
            device.breaker.reset()

    async def close(self) -> None:
        """End every session."""
        drivers = [device.driver for device in self._devices.values() if device.driver is not None]
        self._devices.clear()
        await asyncio.gather(*(driver.close() for driver in drivers), return_exceptions=True)
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _device(self, relay_id: str) -> _Device:
        return self._devices.setdefault(relay_id, _Device(breaker=Breaker(self._limits)))

    def _admit(self, relay_id: str, device: _Device) -> None:
        wait = device.breaker.wait(self._clock())
        if wait > 0:
            raise CircuitOpen(relay_id, f"left alone for {wait:.0f} s more after: {device.breaker.reason}")

    @asynccontextmanager
    async def _driver(self, relay_id: str, device: _Device) -> AsyncIterator[Driver]:
        try:
            yield await self._current(relay_id, device)
        except LoginRefused as error:
            device.breaker.refused_login(self._clock(), str(error))
            await self._drop(device)
            raise
        except _BROKEN as error:
            device.breaker.failed(self._clock(), str(error))
            await self._drop(device)
            raise
        except DriverError:
            device.breaker.succeeded()  # it answered, if only with a refusal
            raise
        except BaseException:
            await self._drop(device)  # cancelled or failed in between: nobody knows what the session waits for
            raise
        else:
            device.breaker.succeeded()

    async def _current(self, relay_id: str, device: _Device) -> Driver:
        if device.stale:
            await self._drop(device)
            device.stale = False
        if device.driver is None:
            target, credential = await self._load(relay_id)
            wait = self._logins.take(self._clock())
            if wait > 0 and target.platform is not Platform.ISTHMUS:
                await asyncio.sleep(wait)
            # Aside: the first driver of a platform imports its libraries, which takes a second.
            device.driver = await asyncio.to_thread(self._factory, target, credential, self._context)
        return device.driver

    @staticmethod
    async def _drop(device: _Device) -> None:
        driver, device.driver = device.driver, None
        if driver is not None:
            await asyncio.shield(driver.close())
