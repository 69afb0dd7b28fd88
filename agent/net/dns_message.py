"""Replies of DNS servers, byte by byte: aliases followed, records read, whatever is damaged counted and passed over.

dnspython's own reader gives a whole message up for one record it does not know; RFC 8777 §4.2.3 wants just that record
passed over. So records are taken from the packet one at a time, with dnspython's reader of names.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

import dns.exception
import dns.name
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from agent.protocol.discovery_reply import Alias, Question, QuestionType, Record, Service
from agent.protocol.driad import decode_record
from agent.protocol.wire.errors import WireError

LONGEST_CHAIN: Final = 16
"""Aliases followed for one question; beyond it is a loop or as good as one (RFC 1034 §3.6.2)."""
MOST_RECORDS: Final = 64
"""Records taken from one reply."""

_HEADER: Final = struct.Struct("!HHHHHH")
_RECORD: Final = struct.Struct("!HHIH")
_SERVICE: Final = struct.Struct("!HHH")
_SOA: Final = struct.Struct("!IIIII")
_ANSWER, _AUTHORITY = 0, 1


class BadReply(WireError):
    """A packet that is no DNS reply, or contradicts itself."""

    reason = "bad_reply"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it lies in the packet; `begin` and `end` delimit its RDATA."""

    section: int
    owner: dns.name.Name
    type: int
    ttl: int
    begin: int
    end: int


Answers: TypeAlias = dict[tuple[int, dns.name.Name], list[RawRecord]]
"""Records of the answer section by type and owner."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a reply says to a question.

    Attributes:
        name: where the aliases ended; equal to the question's name when there is none.
        records: of the type asked for, standing at `name`.
        aliases: followed, in order.
        ttl: least TTL of what was used; of the SOA record when nothing was found; None when there is neither.
        is_final: False when the reply only leads to another name, which has to be asked about.
        refused: reasons, one for each record passed over.
    """

    name: str
    records: tuple[Record, ...]
    aliases: tuple[Alias, ...]
    ttl: int | None
    is_final: bool
    refused: tuple[str, ...]


def read_records(wire: bytes) -> list[RawRecord]:
    """Where the records of a reply lie.

    Raises:
        BadReply: the packet ends before its records do, or goes on after them.
    """
    try:
        _, _, questions, *counts = _HEADER.unpack_from(wire)
        position = _HEADER.size
        for _ in range(questions):
            position += dns.name.from_wire(wire, position)[1] + 4
        records, position = _read_sections(wire, position, counts)
    except (dns.exception.DNSException, struct.error, IndexError) as error:
        raise BadReply("it is cut or damaged") from error
    if position != len(wire):
        raise BadReply("it is longer or shorter than its records")
    return records


def read_reply(wire: bytes, question: Question) -> Contents:
    """What a reply says to `question`.

    Raises:
        BadReply: the packet is damaged beyond single records, or its aliases go in a circle.
    """
    raw = read_records(wire)
    answers: Answers = {}
    for record in raw:
        if record.section == _ANSWER:
            answers.setdefault((record.type, record.owner), []).append(record)
    name = dns.name.from_text(question.name)
    aliases: list[Alias] = []
    while (question.type, name) not in answers:
        alias = _next_alias(wire, answers, name)
        if alias is None:
            break
        step, name = alias
        aliases.append(step)
        if len(aliases) > LONGEST_CHAIN:
            raise BadReply("its aliases go in a circle")
    found = answers.get((question.type, name), [])
    records, refused = _decode_all(wire, question.type, found)
    ttls = [alias.ttl for alias in aliases] + [record.ttl for record in found]
    soa = None if found else _negative_ttl(wire, raw, name)
    if soa is not None:
        ttls.append(soa)
    return Contents(
        name=name.to_text(),
        records=tuple(records),
        aliases=tuple(aliases),
        ttl=min(ttls) if found or soa is not None else None,
        is_final=bool(found) or not aliases or soa is not None,
        refused=tuple(refused),
    )


def _read_sections(wire: bytes, position: int, counts: list[int]) -> tuple[list[RawRecord], int]:
    records: list[RawRecord] = []
    for section, count in enumerate(counts):
        for _ in range(count):
            owner, length = dns.name.from_wire(wire, position)
            kind, rdclass, ttl, size = _RECORD.unpack_from(wire, position + length)
            begin = position + length + _RECORD.size
            position = begin + size
            if rdclass == RdataClass.IN:
                # A TTL with the top bit set counts as 0 (RFC 2181 §8).
                records.append(RawRecord(section, owner, kind, ttl if ttl < 1 << 31 else 0, begin, position))
    return records, position


def _next_alias(wire: bytes, answers: Answers, name: dns.name.Name) -> tuple[Alias, dns.name.Name] | None:
    """The alias that leads on from `name`: a DNAME record above it, or its CNAME record.

    The CNAME record a server makes from a DNAME record says the same, with a TTL of 0 if the server is old (RFC 6672
    §3.1), so the DNAME record is what counts.
    """
    owner = name
    while owner != dns.name.root:
        owner = owner.parent()
        for record in answers.get((RdataType.DNAME, owner), ()):
            target = _name_at(wire, record)
            try:
                substituted = name.relativize(owner).concatenate(target)
            except dns.name.NameTooLong as error:
                raise BadReply("a DNAME record makes a name that is too long") from error
            return Alias(owner.to_text(), "DNAME", target.to_text(), record.ttl), substituted
    for record in answers.get((RdataType.CNAME, name), ()):
        target = _name_at(wire, record)
        return Alias(name.to_text(), "CNAME", target.to_text(), record.ttl), target
    return None


def _decode_all(wire: bytes, kind: QuestionType, found: list[RawRecord]) -> tuple[list[Record], list[str]]:
    records: dict[Record, None] = {}
    refused: list[str] = []
    for raw in found[:MOST_RECORDS]:
        try:
            records[_decode(wire, kind, raw)] = None
        except WireError as error:
            refused.append(f"record_{error.reason}")
        except (dns.exception.DNSException, struct.error, ValueError):
            refused.append("record_malformed")
    refused += ["too_many_records"] * bool(found[MOST_RECORDS:])
    return list(records), refused


def _decode(wire: bytes, kind: QuestionType, raw: RawRecord) -> Record:
    data = wire[raw.begin : raw.end]
    if kind is QuestionType.AMTRELAY:
        return decode_record(data)
    if kind is QuestionType.A:
        return IPv4Address(data)
    if kind is QuestionType.AAAA:
        return IPv6Address(data)
    if kind is QuestionType.PTR:
        return _name_at(wire, raw).to_text()
    priority, weight, port = _SERVICE.unpack_from(data)
    return Service(priority, weight, port, _name_at(wire, raw, _SERVICE.size).to_text())


def _negative_ttl(wire: bytes, raw: list[RawRecord], name: dns.name.Name) -> int | None:
    """How long "there is none" counts (RFC 2308 §5): the SOA record's TTL or its minimum field, the shorter."""
    for record in raw:
        if record.section == _AUTHORITY and record.type == RdataType.SOA and name.is_subdomain(record.owner):
            try:
                position = record.begin + dns.name.from_wire(wire, record.begin)[1]
                position += dns.name.from_wire(wire, position)[1]
                *_, minimum = _SOA.unpack(wire[position : record.end])
            except (dns.exception.DNSException, struct.error):
                return None
            return int(min(record.ttl, minimum))
    return None


def _name_at(wire: bytes, record: RawRecord, offset: int = 0) -> dns.name.Name:
    """The name that ends a record's RDATA; it may point back into the packet (RFC 3597 §4)."""
    begin = record.begin + offset
    try:
        name, length = dns.name.from_wire(wire[: record.end], begin)
    except dns.exception.DNSException as error:
        raise BadReply("a name in it is damaged") from error
    if begin + length != record.end:
        raise BadReply("bytes follow a name")
    return name
