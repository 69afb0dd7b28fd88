"""What goes wrong with a device. Every error carries the device's name and never a secret.

DriverError
├── Unreachable            no TCP, no SSH, name does not resolve
│   └── DeadlineExceeded   it answered too slowly; what it was doing may have happened: read the device again
├── LoginRefused           it took the connection, not the credentials
├── HostKeyMismatch        the key is not the pinned one, or none is pinned
├── SessionLost            the session broke in the middle; the same doubt as with a deadline
├── Garbage                it answered what cannot be parsed
├── DeviceBusy             locked by somebody else, or no free line; trying again later may do
├── ConfirmWindowOpen      a confirmed commit waits on the device; any commit or check would confirm it
├── ConfigurationChanged   the device is not as it was when planned
├── ConfigurationRefused   it understood and said no: syntax, check, permission
├── NotConfigured          not tried: there is no such relay, or its credential cannot be had
└── CircuitOpen            not tried: it failed too often just now
"""

from __future__ import annotations


class DriverError(Exception):
    """Anything wrong with one device. `code` is stable and documented."""

    code = "device_error"

    def __init__(self, device: str, detail: str) -> None:
        super().__init__(f"{device}: {detail}")
        self.device = device
        self.detail = detail


class Unreachable(DriverError):
    """No session could be had."""

    code = "device_unreachable"


class DeadlineExceeded(Unreachable):
    """It did not answer in time; what was asked may have happened."""

    code = "device_deadline_exceeded"


class LoginRefused(DriverError):
    """The credentials were refused; trying again locks accounts, so nobody tries again by himself."""

    code = "device_login_refused"


class HostKeyMismatch(DriverError):
    """The device's host key is not the one pinned."""

    code = "device_host_key_mismatch"

    def __init__(self, device: str, detail: str, presented: str | None = None) -> None:
        super().__init__(device, detail)
        self.presented = presented
        """Fingerprint the device presented, `SHA256:…`, where known."""


class SessionLost(DriverError):
    """The session broke while something was under way; it may have happened."""

    code = "device_session_lost"


class Garbage(DriverError):
    """The answer cannot be parsed."""

    code = "device_answer_unreadable"


class DeviceBusy(DriverError):
    """Locked by somebody else, or out of lines."""

    code = "device_busy"

    def __init__(self, device: str, detail: str, holder: str | None = None) -> None:
        super().__init__(device, detail)
        self.holder = holder


class ConfirmWindowOpen(DriverError):
    """A confirmed commit waits; touching the configuration would confirm it."""

    code = "device_confirm_window_open"


class ConfigurationChanged(DriverError):
    """The device changed since the plan was made."""

    code = "device_changed"


class ConfigurationRefused(DriverError):
    """The device refused the configuration; `path` where it said."""

    code = "device_refused_configuration"

    def __init__(self, device: str, detail: str, path: str | None = None) -> None:
        super().__init__(device, detail)
        self.path = path


class NotConfigured(DriverError):
    """The manager itself lacks what it takes to reach the device."""

    code = "device_not_configured"


class CircuitOpen(DriverError):
    """Not tried: the device failed too often just now."""

    code = "device_circuit_open"
