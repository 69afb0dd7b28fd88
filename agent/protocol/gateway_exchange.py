"""What a gateway remembers of the questions it asked and of the answers it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.protocol.channels import Endpoint, Family
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.wire import amt


class Chance:
    """Nonces and fractions out of injected randomness."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        """`entropy(n)` gives n bytes of the operating system's CSPRNG."""
        self._entropy = entropy
        self._last = 0

    def nonce(self) -> int:
        """A 32-bit nonce, never 0 and never the one before."""
        nonce = int.from_bytes(self._entropy(4), "big")
        if nonce in (0, self._last):
            nonce = self._last % 0xFFFF_FFFF + 1
        self._last = nonce
        return nonce

    def fraction(self) -> float:
        """A number in 0..1, 1 excluded."""
        return int.from_bytes(self._entropy(4), "big") / 2**32


class Backoff:
    """Waits that double up to a cap, with jitter (RFC 7450 §5.2.3.4, §5.2.3.5).

    Attributes:
        attempts: waits given so far.
        capped: whether the last wait was the longest there is.
    """

    def __init__(self, config: GatewayConfig, chance: Chance) -> None:
        self._config = config
        self._chance = chance
        self._wait = config.initial_timeout
        self._hurried = False
        self.attempts = 0
        self.capped = False

    def next_wait(self) -> float:
        """Seconds to wait for the answer to one more attempt."""
        self.attempts += 1
        self.capped = self._wait >= self._config.maximum_timeout
        self._hurried = False
        spread = (2 * self._chance.fraction() - 1) * self._config.jitter
        wait = self._wait * (1 + spread)
        self._wait = min(2 * self._wait, self._config.maximum_timeout)
        return wait

    @property
    def spent(self) -> bool:
        """Whether Requests enough went unanswered."""
        return self.attempts >= self._config.request_attempts

    def hurry(self, wait: float) -> float:
        """What is left of a wait after a hint that it is in vain: a quarter, once an attempt, at least the first wait.

        A hint with every attempt (an ICMP error comes back each time) so still leaves an exponential back-off.
        """
        if self._hurried:
            return wait
        self._hurried = True
        return min(wait, max(self._config.initial_timeout, wait / 4))


class ProbeBackoff(Backoff):
    """Waits of a Request that a hint brought about: short ones, all of one length."""

    def __init__(self, config: GatewayConfig, chance: Chance, timeout: float, attempts: int) -> None:
        """`attempts` were made already, with longer waits."""
        super().__init__(config, chance)
        self.attempts = attempts
        self._timeout = timeout

    def next_wait(self) -> float:
        """Seconds to wait for the answer to one more attempt."""
        self.attempts += 1
        return self._timeout

    @property
    def spent(self) -> bool:
        """Whether Requests enough went unanswered."""
        return self.attempts >= self._config.probe_attempts

    def hurry(self, wait: float) -> float:
        """What is left of a wait after an ICMP error; each one shortens its own attempt's."""
        return min(wait, self._timeout / 4)


@dataclass(slots=True)
class Discovery:
    """A Relay Discovery that waits for its Advertisement."""

    nonce: int
    backoff: Backoff


@dataclass(slots=True)
class RequestCycle:
    """One nonce and what was asked with it.

    Both families share the nonce: a relay that keeps the newest nonce of an address only (the Linux kernel's) then
    accepts the Updates of both.

    Attributes:
        nonce: request nonce of this cycle.
        backoff: waits of its retransmissions.
        pending: families asked for and not answered.
        answered: families answered.
        abandoned: families given up until the next cycle.
        interval: shortest query interval the answers gave, in seconds.
        due: when the query interval of the first family to run out is over.
        kernel_mld: whether the last MLD Request had its P flag where the Linux kernel's driver expects it.
        mld_requests: MLD Requests sent.
    """

    nonce: int
    backoff: Backoff
    pending: set[Family]
    answered: set[Family] = field(default_factory=set)
    abandoned: set[Family] = field(default_factory=set)
    interval: float = float("inf")
    due: float = float("inf")
    kernel_mld: bool = False
    mld_requests: int = 0

    def asks(self, family: Family) -> bool:
        """Whether this cycle has asked for `family`."""
        return family in self.pending or family in self.answered or family in self.abandoned

    def request(self, family: Family, known_kernel_mld: bool | None) -> amt.Request:
        """The Request to send for `family` now.

        The kernel's relay drops a Request with RFC 7450's P flag, an RFC relay takes the kernel's flag for reserved.
        What is known of the relay (None: nothing) is tried first, twice when it is known; then the two alternate.
        """
        if family is Family.IPV4:
            return amt.Request(self.nonce)
        attempt = self.mld_requests
        self.mld_requests += 1
        if known_kernel_mld is None:
            self.kernel_mld = attempt % 2 == 1
        else:
            self.kernel_mld = known_kernel_mld ^ (attempt > 1 and attempt % 2 == 0)
        return amt.Request(self.nonce, mld=not self.kernel_mld, kernel_mld=self.kernel_mld)


@dataclass(slots=True)
class Credential:
    """A nonce and the response MACs it brought: the right to send Updates (RFC 7450 §5.1.5).

    A relay that follows §5.3.5 gives the same MAC for both families; each family uses its own where it has one.
    """

    nonce: int
    newest: bytes
    macs: dict[Family, bytes] = field(default_factory=dict)

    def mac(self, family: Family) -> bytes:
        """MAC for an Update of `family`."""
        return self.macs.get(family, self.newest)


@dataclass(frozen=True, slots=True)
class ReportedAddress:
    """Our address as a Query told it, with the nonce and MAC that a Teardown of it needs (RFC 7450 §5.1.7)."""

    endpoint: Endpoint
    nonce: int
    mac: bytes

    def teardown(self) -> amt.Teardown:
        """The Teardown of the tunnel of this address and port."""
        return amt.Teardown(self.mac, self.nonce, (self.endpoint.address, self.endpoint.port))
