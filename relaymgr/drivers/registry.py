"""Which driver serves which platform. Drivers are imported when first needed: PyEZ and netmiko load slowly."""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol, cast

from relaymgr.domain.platforms import Platform
from relaymgr.drivers.protocol import Credential, DeviceTarget, Driver, DriverContext


class DriverFactory(Protocol):
    """Makes the driver of one relay; opens no session."""

    def __call__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> Driver:
        """A driver for `target`."""


_CLASSES: Final = {
    Platform.JUNOS: ("relaymgr.drivers.junos", "JunosDriver"),
    Platform.IOSXE: ("relaymgr.drivers.iosxe", "IosxeDriver"),
    Platform.IOS: ("relaymgr.drivers.ios", "IosDriver"),
    Platform.ISTHMUS: ("relaymgr.drivers.isthmus", "IsthmusDriver"),
}


def driver_class(platform: Platform) -> DriverFactory:
    """The driver class of `platform`."""
    module, name = _CLASSES[platform]
    return cast("DriverFactory", getattr(import_module(module), name))


def make_driver(target: DeviceTarget, credential: Credential, context: DriverContext) -> Driver:
    """The driver for `target`, without a session yet."""
    return driver_class(target.platform)(target, credential, context)
