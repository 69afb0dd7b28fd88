"""When not to bother a device: a circuit breaker, and the rate of logins. Pure; time is passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """Seconds and counts."""

    failures: int = 3
    """Failures in a row that open the circuit."""
    open_seconds: float = 30.0
    """First pause; doubles with each failed trial."""
    longest_seconds: float = 300.0
    refused_login_seconds: float = 300.0
    """Pause after refused credentials: trying on would lock the account."""


class Breaker:
    """Closed, open, or half open: one trial after the pause decides."""

    def __init__(self, limits: BreakerLimits | None = None) -> None:
        self._limits = limits or BreakerLimits()
        self._failures = 0
        self._pause = 0.0
        self._closed_again_at = 0.0
        self.reason: str | None = None
        """The failure that opened it."""

    def wait(self, now: float) -> float:
        """Seconds until a trial is allowed; 0 when it is now."""
        return max(0.0, self._closed_again_at - now) if self._pause else 0.0

    def succeeded(self) -> None:
        """The device answered."""
        self._failures = 0
        self._pause = 0.0
        self.reason = None

    def failed(self, now: float, reason: str) -> None:
        """The device did not answer, or not sensibly."""
        self._failures += 1
        if self._failures < self._limits.failures:
            return
        self._pause = min(self._pause * 2 or self._limits.open_seconds, self._limits.longest_seconds)
        self._open(now, reason)

    def refused_login(self, now: float, reason: str) -> None:
        """Credentials were refused; opens at once."""
        self._failures = max(self._failures + 1, self._limits.failures)
        self._pause = self._limits.refused_login_seconds
        self._open(now, reason)

    def reset(self) -> None:
        """The operator changed something; the past does not count."""
        self.succeeded()

    def _open(self, now: float, reason: str) -> None:
        self._closed_again_at = now + self._pause
        self.reason = reason


class LoginRate:
    """A token bucket of logins over all devices, so that a restart does not storm a TACACS+ server."""

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Takes a login; returns the seconds to wait before making it."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._per_second)
