"""AMTRELAY records and DNS replies of any bytes: read, or refused with a reason; nothing else."""

from __future__ import annotations

import dns.message
import dns.rdata
from hypothesis import given
from hypothesis import strategies as st

from agent.net.dns_message import BadReply, read_reply
from agent.protocol.discovery_reply import Question, QuestionType
from agent.protocol.driad import RelayRecord, decode_record
from agent.protocol.wire.errors import WireError

NAME = "7.100.51.198.in-addr.arpa."
LABELS = st.binary(min_size=1, max_size=63)


def encode(record: RelayRecord) -> bytes:
    """By dnspython, from the text we write."""
    data = dns.rdata.from_text("IN", "AMTRELAY", str(record)).to_wire()
    assert data is not None
    return data


def message(*answers: tuple[bytes, int, bytes]) -> bytes:
    """A reply with records of any owner, type and RDATA."""
    query = dns.message.make_query(NAME, "AMTRELAY")
    wire = bytearray(dns.message.make_response(query).to_wire())
    for owner, kind, data in answers:
        wire += owner + kind.to_bytes(2) + b"\x00\x01\x00\x00\x01\x2c" + len(data).to_bytes(2) + data
    wire[6:8] = len(answers).to_bytes(2)
    wire[8:12] = b"\x00" * 4
    return bytes(wire)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        record = decode_record(data)
    except WireError as error:
        refusal = error.reason
    else:
        assert encode(record) == data
        return
    assert refusal in {"truncated", "malformed", "unknown_type"}


@given(
    precedence=st.integers(0, 255),
    optional=st.booleans(),
    relay=st.one_of(st.none(), st.ip_addresses(), st.lists(LABELS, min_size=1, max_size=3)),
)
def test_every_record_is_read_as_dnspython_writes_it(precedence: int, optional: bool, relay: object) -> None:
    if isinstance(relay, list):
        name = b"".join(len(label).to_bytes() + label for label in relay) + b"\x00"
        data = bytes([precedence, optional << 7 | 3]) + name
        assert encode(decode_record(data)) == data
    else:
        record = RelayRecord(precedence, optional, relay)
        assert decode_record(encode(record)) == record


def check(wire: bytes, kind: QuestionType) -> None:
    try:
        contents = read_reply(wire, Question(NAME, kind))
    except BadReply:
        return
    assert len(contents.records) <= 64
    assert contents.ttl is None or 0 <= contents.ttl < 1 << 31


@given(data=st.binary(max_size=600), kind=st.sampled_from(list(QuestionType)))
def test_any_bytes_are_a_reply_or_refused(data: bytes, kind: QuestionType) -> None:
    check(data, kind)


@given(
    answers=st.lists(
        st.tuples(
            st.sampled_from([b"\xc0\x0c", b"\xc0\x0e", b"\x01a\x00", b"\xc0\x00", b"\x00"]),
            st.sampled_from([1, 5, 6, 12, 28, 33, 39, 260]),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([b"\xc0\x0c", b"\x01a\x00", b"\x01a\xc0\x0e", b"\x0a\x01\xc0\x00\x02\x01"]),
            ),
        ),
        max_size=12,
    ),
    cut=st.integers(0, 20),
    kind=st.sampled_from(list(QuestionType)),
)
def test_records_of_any_bytes_are_read_or_passed_over(
    answers: list[tuple[bytes, int, bytes]], cut: int, kind: QuestionType
) -> None:
    wire = message(*answers)
    check(wire[: len(wire) - cut], kind)
    check(wire, kind)
