"""Recognition and loss counting of MPEG-TS and RTP; all payloads here are synthetic."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.media import MediaKind, MediaMonitor, RtpPacket, TransportStream, is_transport_stream

NULL_PID = 0x1FFF


def transport_packet(pid, counter, *, payload=True, adaptation=None, error=False):
    """One 188-byte packet; `adaptation` is the flags byte of an adaptation field, or None for no field."""
    control = (0x20 if adaptation is not None else 0) | (0x10 if payload else 0)
    head = bytes((0x47, (0x80 if error else 0) | pid >> 8, pid & 0xFF, control | counter))
    field = b"" if adaptation is None else bytes((1, adaptation))
    return (head + field).ljust(188, b"\xff")


def rtp(sequence, payload=b"x" * 20, *, source=7, payload_type=96):
    return struct.pack("!BBHII", 0x80, payload_type, sequence % 65536, 0, source) + payload


def stream(*packets):
    continuity = TransportStream()
    for packet in packets:
        continuity.feed(packet)
    return continuity


def monitor(*payloads):
    media = MediaMonitor()
    for payload in payloads:
        media.feed(payload)
    return media


def test_counters_that_go_up_by_one_and_wrap_are_no_loss():
    result = stream(*(transport_packet(100, number % 16) for number in range(40)))
    assert (result.packets, result.lost, result.discontinuities, result.pids) == (40, 0, 0, 1)


def test_missing_packets_are_counted_per_pid():
    result = stream(
        transport_packet(100, 14), transport_packet(200, 3), transport_packet(100, 2), transport_packet(200, 4)
    )
    assert (result.lost, result.discontinuities, result.pids) == (3, 1, 2)


def test_null_packets_are_ignored():
    result = stream(*(transport_packet(NULL_PID, counter) for counter in (0, 9, 3)))
    assert (result.packets, result.lost, result.pids) == (3, 0, 0)


def test_a_packet_without_payload_repeats_the_counter():
    result = stream(
        transport_packet(100, 5),
        transport_packet(100, 5, payload=False, adaptation=0),
        transport_packet(100, 5, payload=False, adaptation=0),
        transport_packet(100, 6),
    )
    assert (result.lost, result.discontinuities) == (0, 0)


def test_a_packet_without_payload_reveals_loss_before_it():
    result = stream(transport_packet(100, 5), transport_packet(100, 7, payload=False, adaptation=0))
    assert (result.lost, result.discontinuities) == (2, 1)


def test_one_duplicate_is_allowed_and_a_second_one_is_not():
    once = stream(*(transport_packet(100, counter) for counter in (5, 5, 6)))
    twice = stream(*(transport_packet(100, counter) for counter in (5, 5, 5, 6)))
    assert (once.discontinuities, twice.discontinuities) == (0, 1)


def test_the_discontinuity_indicator_excuses_a_jump():
    result = stream(transport_packet(100, 5), transport_packet(100, 12, adaptation=0x80), transport_packet(100, 13))
    assert (result.lost, result.discontinuities) == (0, 0)


def test_other_adaptation_flags_excuse_nothing():
    result = stream(transport_packet(100, 5), transport_packet(100, 12, adaptation=0x50))
    assert (result.lost, result.discontinuities) == (6, 1)


def test_an_empty_adaptation_field_has_no_flags():
    stuffing = bytes((0x47, 0, 100, 0x30 | 12, 0)).ljust(188, b"\xff")  # length 0, and 0xff where flags would be
    assert stream(transport_packet(100, 5), stuffing).discontinuities == 1


def test_a_packet_marked_damaged_is_counted_and_not_believed():
    result = stream(transport_packet(100, 5), transport_packet(100, 9, error=True), transport_packet(100, 6))
    assert (result.transport_errors, result.lost) == (1, 0)


def test_a_datagram_out_of_sync_is_counted():
    result = stream(transport_packet(100, 5), b"\x00" * 188, b"\x47" * 100)
    assert (result.sync_errors, result.packets) == (2, 1)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", False),
        (b"\x47" * 187, False),
        (transport_packet(1, 0) * 7, True),
        (transport_packet(1, 0) * 6 + bytes(188), False),
    ],
)
def test_sync_bytes_decide_what_a_transport_stream_is(payload, expected):
    assert is_transport_stream(payload) is expected


def datagrams_of_seven(count, skip=()):
    return [
        b"".join(transport_packet(100, (7 * number + part) % 16) for part in range(7))
        for number in range(count)
        if number not in skip
    ]


def test_seven_transport_packets_in_one_datagram_are_recognised():
    media = monitor(*datagrams_of_seven(20))
    assert (media.kind, media.lost, media.transport_stream.packets) == (MediaKind.MPEG_TS, 0, 140)


def test_a_lost_datagram_is_seven_lost_transport_packets():
    media = monitor(*datagrams_of_seven(20, skip={9}))
    assert (media.lost, media.transport_stream.discontinuities) == (7, 1)


def test_small_datagrams_are_recognised_after_seven_and_counted_from_the_first():
    media = monitor(*(transport_packet(100, counter) for counter in range(6)))
    assert (media.kind, media.lost) == (MediaKind.UNKNOWN, None)
    media.feed(transport_packet(100, 8))
    assert (media.kind, media.lost, media.transport_stream.packets) == (MediaKind.MPEG_TS, 2, 7)


def test_a_duplicated_datagram_is_not_loss():
    first, second, third = datagrams_of_seven(3)
    media = monitor(first, second, second, third)
    assert (media.repeated_datagrams, media.lost) == (1, 0)


def test_equal_datagrams_of_null_packets_are_not_duplicates():
    nulls = transport_packet(NULL_PID, 0) * 7
    media = monitor(*datagrams_of_seven(1), nulls, nulls)
    assert (media.repeated_datagrams, media.transport_stream.packets) == (0, 21)


def test_rtp_is_recognised_after_three_packets_in_sequence():
    media = monitor(rtp(10), rtp(11))
    assert (media.kind, media.lost) == (MediaKind.UNKNOWN, None)
    media.feed(rtp(12))
    assert (media.kind, media.lost, media.rtp.received) == (MediaKind.RTP, 0, 3)


def test_rtp_loss_is_counted_across_the_wrap():
    media = monitor(*(rtp(number) for number in range(65530, 65546) if number not in {65535, 65537}))
    assert (media.lost, media.rtp.received) == (2, 14)


def test_a_late_rtp_packet_is_reordered_and_no_longer_lost():
    media = monitor(*(rtp(number) for number in (1, 2, 3, 5, 6, 4, 7)))
    assert (media.lost, media.rtp.reordered, media.rtp.duplicates) == (0, 1, 0)


def test_rtp_duplicates_hide_no_loss():
    media = monitor(*(rtp(number) for number in (1, 2, 3, 3, 5, 2, 5)))
    assert (media.lost, media.rtp.duplicates, media.rtp.received) == (1, 3, 4)


def test_one_stray_sequence_number_changes_nothing():
    media = monitor(*(rtp(number) for number in (1, 2, 3, 40000, 4, 5)))
    assert (media.lost, media.rtp.restarts, media.rtp.received) == (0, 0, 5)


def test_a_sender_that_starts_again_is_a_restart_and_not_loss():
    media = monitor(*(rtp(number) for number in (1, 2, 3, 40000, 40001, 40002)))
    assert (media.lost, media.rtp.restarts) == (0, 1)
    media.feed(rtp(1, source=8))
    assert (media.lost, media.rtp.restarts) == (0, 2)


def test_transport_stream_inside_rtp_is_followed_in_both():
    datagrams = [rtp(number, payload, payload_type=33) for number, payload in enumerate(datagrams_of_seven(10))]
    media = monitor(*datagrams[:4], *datagrams[5:])
    assert (media.kind, media.lost, media.transport_stream.lost) == (MediaKind.RTP_MPEG_TS, 1, 7)


def test_rtp_header_extension_contributors_and_padding_are_not_payload():
    head = bytes((0x80 | 0x20 | 0x10 | 2, 33)) + struct.pack("!HII", 5, 0, 9) + bytes(8)
    packet = RtpPacket.parse(head + bytes((0, 0, 0, 1, 1, 2, 3, 4)) + b"data" + bytes((0, 0, 3)))
    assert packet is not None
    assert (packet.sequence, packet.synchronisation_source, bytes(packet.payload)) == (5, 9, b"data")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(11),
        bytes((0x40,)) + bytes(20),
        bytes((0x80, 72)) + bytes(20),
        bytes((0x8F, 96)) + bytes(20),
        bytes((0x90, 96)) + bytes(10),
        bytes((0x90, 96)) + bytes(12) + b"\x00\x09",
        bytes((0xA0, 96)) + bytes(20),
        bytes((0xA0, 96)) + bytes(10) + b"\x09",
    ],
    ids=["empty", "short", "version", "rtcp", "contributors", "no extension", "long extension", "padding 0", "padding"],
)
def test_bytes_that_cannot_be_rtp_are_refused(data):
    assert RtpPacket.parse(data) is None


def test_plain_payload_claims_nothing():
    media = monitor(*[b"hello world, hello world"] * 50)
    assert (media.kind, media.lost, media.repeated_datagrams) == (MediaKind.UNKNOWN, None, 0)


@given(st.lists(st.binary(max_size=600), max_size=30), st.booleans())
def test_no_payload_ever_raises(payloads, as_transport_stream):
    media = monitor(*(datagrams_of_seven(1) if as_transport_stream else [rtp(1), rtp(2), rtp(3)]))
    for payload in payloads:
        media.feed(payload)
        media.feed(b"\x47" + payload[:187].ljust(187, b"\x31"))
        media.feed(b"\x80\x60" + payload)
    assert media.lost is not None
    assert media.lost >= 0
