"""Questions to the DNS and what came back, in the words discovery and the command line use; no packets here.

How long an answer counts follows RFC 2308: a negative one for the shorter of the SOA record's TTL and its minimum
field (§5), a failure shortly, twice as long each time (§7, RFC 9520 §3.2).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Generic, TypeAlias, TypeVar

from agent.protocol.channels import Address, Endpoint
from agent.protocol.discovery import DiscoveryMethod
from agent.protocol.driad import AMTRELAY, RelayRecord

FAILURE_TTL: Final = 5.0
"""Seconds a question without an answer is not asked again, the first time (RFC 9520 §3.2: 1 s to 5 min)."""
LONGEST_FAILURE_TTL: Final = 300.0

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class QuestionType(IntEnum):
    """Record types that are asked for."""

    A = 1
    PTR = 12
    AAAA = 28
    SRV = 33
    AMTRELAY = AMTRELAY


@dataclass(frozen=True, slots=True)
class Question:
    """A name, with the dot of the root, and the type wanted."""

    name: str
    type: QuestionType


@dataclass(frozen=True, slots=True)
class Service:
    """What one SRV record says (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str

    def __str__(self) -> str:
        """As a zone file has it."""
        return f"{self.priority} {self.weight} {self.port} {self.target}"


@dataclass(frozen=True, slots=True)
class Alias:
    """A CNAME or DNAME record that was followed.

    Attributes:
        owner: name it stands at.
        type: CNAME or DNAME.
        target: name it points to.
        ttl: seconds.
    """

    owner: str
    type: str
    target: str
    ttl: int

    def __str__(self) -> str:
        return f"{self.owner} {self.type} {self.target}"


Record: TypeAlias = Address | RelayRecord | Service | str
"""Of A and AAAA, of AMTRELAY, of SRV, and the name a PTR record points to."""


class ReplyStatus(Enum):
    """Kinds of reply."""

    ANSWERED = "answered"
    NO_DATA = "no such record"
    NO_NAME = "no such name"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a question.

    Attributes:
        question: what was asked.
        status: what kind of reply it is.
        records: of the type asked for, at the end of the aliases.
        aliases: those followed, in order.
        lifetime: seconds it may be kept.
        server: who said so, None when nobody did.
        transport: udp or tcp.
        refused: records passed over and answers dropped, by reason.
        detail: why it failed.
        is_validated: the server says that DNSSEC proves it (AD bit, RFC 4035 §3.2.3); as good as the way to the server.
        is_remembered: it was not asked now, but `lifetime` remains of an earlier answer.
    """

    question: Question
    status: ReplyStatus
    records: tuple[Record, ...] = ()
    aliases: tuple[Alias, ...] = ()
    lifetime: float = FAILURE_TTL
    server: Endpoint | None = None
    transport: str | None = None
    refused: tuple[str, ...] = ()
    detail: str = ""
    is_validated: bool = False
    is_remembered: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a method, for people: a question and its reply, or a remark."""

    method: DiscoveryMethod
    reply: Reply | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long answers count.

    Attributes:
        maximum: seconds no answer is kept beyond.
        negative: seconds an answer is kept that does not say how long: no SOA record, or a TTL of 0.
    """

    maximum: float
    negative: float

    def positive(self, ttl: int) -> float:
        """Of records with this TTL, in seconds."""
        return min(float(ttl) or self.negative, self.maximum)

    def denied(self, ttl: int | None) -> float:
        """Of "no such name" or "no such record"; `ttl` as the SOA record and the aliases have it, None without."""
        return min(float(ttl or 0) or self.negative, self.maximum)

    def failed(self, times: int) -> float:
        """Of a failure in a row of `times`, from 1."""
        return min(FAILURE_TTL * 2.0 ** min(times - 1, 16), LONGEST_FAILURE_TTL, self.negative)


class Remembered(Generic[Key, Value]):
    """The latest values by key, each until its time; beyond `limit` the one unused longest goes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Key, tuple[Value, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key, now: float) -> tuple[Value, float] | None:
        """A value and the seconds that remain of it, or None."""
        found = self._values.get(key)
        if found is None or found[1] <= now:
            return None
        self._values.move_to_end(key)
        return found[0], found[1] - now

    def expired(self, key: Key) -> Value | None:
        """A value, be its time over or not."""
        found = self._values.get(key)
        return None if found is None else found[0]

    def put(self, key: Key, value: Value, expires: float) -> None:
        """Remember a value until `expires`, instead of an earlier one."""
        self._values[key] = (value, expires)
        self._values.move_to_end(key)
        while len(self._values) > self._limit:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
