"""Whether a platform can do what an intent asks, told when the intent is given and not only when it is planned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from relaymgr.domain.intent import RelayIntent
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext
from relaymgr.drivers.registry import make_driver


def refuse_impossible(target: DeviceTarget, intent: RelayIntent) -> None:
    """Render the intent as the platform's driver would, without a device; rendering is pure.

    Raises:
        CapabilityMissing: the platform cannot do it.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        driver = make_driver(target, Credential(username=""), DriverContext(executor))
        driver.render(intent, drained=False)
