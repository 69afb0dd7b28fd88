"""Reassembly puts together what was cut, in any order, and keeps to its memory under fragments that never end."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from agent.protocol.channels import Family
from agent.protocol.reassembly import Reassembler
from agent.protocol.wire.ip import IPPacket

ENDS = {
    Family.IPV4: (ip_address("203.0.113.5"), ip_address("232.1.2.3")),
    Family.IPV6: (ip_address("2001:db8::5"), ip_address("ff3e::1234")),
}
FAMILIES = st.sampled_from(list(Family))


def fragment(family: Family, identification: int, offset: int, payload: bytes, *, more: bool) -> IPPacket:
    return IPPacket(
        *ENDS[family], 17, payload, identification=identification, more_fragments=more, fragment_offset=offset
    )


@st.composite
def cut_packets(draw: st.DrawFn) -> tuple[bytes, list[IPPacket]]:
    """A payload and its fragments in random order, some of them twice."""
    family, identification = draw(FAMILIES), draw(st.integers(0, 0xFFFF))
    payload = draw(st.binary(min_size=9, max_size=200))
    cuts = sorted(draw(st.sets(st.integers(1, (len(payload) - 1) // 8), min_size=1)))
    bounds = [0, *(cut * 8 for cut in cuts), len(payload)]
    fragments = [
        fragment(family, identification, start, payload[start:end], more=end < len(payload))
        for start, end in pairwise(bounds)
    ]
    return payload, draw(st.permutations(fragments))


@given(cut=cut_packets())
def test_any_order_gives_the_packet_back(cut: tuple[bytes, list[IPPacket]]) -> None:
    """RFC 791 §3.2, RFC 8200 §4.5."""
    payload, fragments = cut
    reassembler = Reassembler()
    results = [reassembler.add(part, 0.0) for part in fragments]
    assert all(result is None for result in results[:-1])
    whole = results[-1]
    assert whole is not None
    assert whole.payload == payload
    assert not whole.is_fragment
    assert reassembler.cost == 0
    assert (reassembler.reassembled, reassembler.abandoned) == (1, 0)


@given(cut=cut_packets(), lost=st.integers(0, 50))
def test_a_lost_fragment_leaves_nothing_behind(cut: tuple[bytes, list[IPPacket]], lost: int) -> None:
    """RFC 791 §3.2: given up after its time."""
    _, fragments = cut
    reassembler = Reassembler(lifetime=5)
    for number, part in enumerate(fragments):
        if number != lost % len(fragments):
            assert reassembler.add(part, 0.0) is None
    reassembler.expire(5.1)
    assert reassembler.cost == 0


@given(
    parts=st.lists(
        st.tuples(FAMILIES, st.integers(0, 5), st.integers(0, 8191), st.binary(max_size=64), st.booleans()),
        max_size=200,
    )
)
def test_hostile_fragments_stay_within_the_limit(parts: list[tuple[Family, int, int, bytes, bool]]) -> None:
    """RFC 5722, RFC 8200 §4.5: overlaps, contradicting ends, packets beyond 65535 bytes."""
    reassembler = Reassembler(limit_bytes=2000)
    for when, (family, identification, offset, payload, more) in enumerate(parts):
        whole = reassembler.add(fragment(family, identification, offset * 8, payload, more=more), when / 100)
        assert reassembler.cost <= 2000
        assert whole is None or len(whole.payload) <= 65535
    reassembler.expire(1000)
    assert reassembler.cost == 0


@given(cut=cut_packets(), victim=st.integers(0, 50), shift=st.integers(-1, 1), flip=st.integers(0, 63))
def test_an_overlap_is_never_put_together(
    cut: tuple[bytes, list[IPPacket]], victim: int, shift: int, flip: int
) -> None:
    """RFC 5722, RFC 8200 §4.5: once two fragments contradict each other, the packet is over."""
    _, fragments = cut
    hit = fragments[victim % len(fragments)]
    assume(len(hit.payload) >= 8)
    if shift == 0:
        changed = bytearray(hit.payload)
        changed[flip // 8] ^= 1 << flip % 8
        strange = replace(hit, payload=bytes(changed))
    else:
        assume(hit.fragment_offset + 8 * shift >= 0 and len(hit.payload) >= 16)
        strange = replace(hit, fragment_offset=hit.fragment_offset + 8 * shift, more_fragments=True)
        strange = replace(strange, payload=hit.payload[: len(hit.payload) // 8 * 8])
    reassembler = Reassembler()
    rest = [part for part in fragments if part is not hit]
    assert [reassembler.add(part, 0.0) for part in [strange, hit, *rest]] == [None] * (len(fragments) + 1)
    assert reassembler.abandoned >= 1
