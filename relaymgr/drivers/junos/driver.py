"""`JunosDriver`: the Driver of Junos relays (skeleton)."""

from __future__ import annotations

from relaymgr.domain.platforms import Platform
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext


class JunosDriver:
    """One Junos relay."""

    platform = Platform.JUNOS

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        self._target = target
        self._credential = credential
        self._context = context
