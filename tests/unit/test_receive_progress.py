"""What the host role tells people."""

import io
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.channels import Channel
from agent.protocol.wire.ip import IPPacket, UDPDatagram, encode_udp
from agent.receive.output import NoOutput, OutputError, open_output
from agent.receive.progress import Progress, describe, summarise
from agent.receive.session import Ending, ReceiveOptions, Session
from agent.receive.stream import ChannelFilter, Flow, Measurement

CHANNEL = Channel.parse("198.51.100.7", "232.1.1.1")


def session():
    return Session(ReceiveOptions(CHANNEL), NoOutput(), lambda _session: None, lambda _text: None)


def stream(count, *, interval=0.001):
    measurement = Measurement()
    for number in range(count):
        measurement.add(Flow(CHANNEL.source, 5000), b"x" * 1250, 100.0 + number * interval)
    return measurement


def test_a_terminal_gets_one_line_that_is_overwritten():
    screen = io.StringIO()
    progress = Progress(screen, live=True)
    current = session()
    progress.show(current)
    current.measurement = stream(10)
    progress.show(current)
    progress.clear()
    assert "\n" not in screen.getvalue()
    assert screen.getvalue().count("\r") == 4
    assert screen.getvalue().endswith(" \r")


def test_anything_else_gets_a_line_each_time():
    lines = io.StringIO()
    progress = Progress(lines, live=False)
    progress.show(session())
    progress.show(session())
    assert lines.getvalue().splitlines() == ["(198.51.100.7,232.1.1.1) waiting for the first packet"] * 2


def test_the_rate_is_that_of_the_time_since_the_last_line(monkeypatch):
    lines = io.StringIO()
    progress = Progress(lines, live=False)
    times = iter([50.0, 52.0])
    monkeypatch.setattr("agent.receive.progress.time", SimpleNamespace(monotonic=lambda: next(times)))
    current = session()
    progress.show(current)
    current.measurement = stream(2000)
    progress.show(current)
    assert "10.00 Mbit/s 1000 packets/s" in lines.getvalue()


def test_the_summary_tells_rate_and_latencies():
    current = session()
    current.measurement = stream(1001)
    current.started_at, current.joined_at = 99.0, 99.75
    summary = summarise(current, Ending.FINISHED, NoOutput())
    assert (summary["packets"], summary["seconds"], summary["rate"]) == (1001, 1.0, 10_010_000)
    assert (summary["first_packet_after"], summary["join_latency"]) == (1.0, 0.25)
    assert (summary["media"], summary["lost"]) == ("unknown", None)
    assert "loss cannot be told" in describe(summary)


def test_a_summary_of_nothing_says_so():
    summary = summarise(session(), Ending.NOTHING_CAME, NoOutput())
    assert (summary["packets"], summary["rate"], summary["join_latency"]) == (0, None, None)
    assert describe(summary) == "(198.51.100.7,232.1.1.1): nothing came, no relay answered"


def test_flows_are_followed_up_to_a_bound():
    measurement = Measurement()
    for port in range(1, 1001):
        measurement.add(Flow(CHANNEL.source, port), b"x", 1.0)
    assert (len(measurement.flows), measurement.packets) == (32, 1000)


def test_a_checksum_of_zero_inside_is_taken():
    segment = bytearray(encode_udp(CHANNEL.source, CHANNEL.group, UDPDatagram(1, 5000, b"payload")))
    segment[6:8] = bytes(2)
    accepted = ChannelFilter(CHANNEL, 5000).accept(
        IPPacket(CHANNEL.source, CHANNEL.group, 17, bytes(segment)).encode(), 0.0
    )
    assert accepted == (Flow(CHANNEL.source, 5000), b"payload")


@pytest.mark.parametrize("inner", [b"", b"\x45", bytes(40), b"\xff" * 100, b"\x60" + bytes(60)])
def test_inner_bytes_that_are_no_packet_of_the_channel_are_counted(inner):
    packets = ChannelFilter(CHANNEL, None)
    assert packets.accept(inner, 0.0) is None
    assert sum(packets.refused.values()) == 1


@given(st.lists(st.binary(max_size=120), max_size=20), st.integers(0, 200))
def test_no_inner_bytes_ever_raise_or_pass_unchecked(inners, position):
    packets = ChannelFilter(CHANNEL, 5000)
    valid = IPPacket(
        CHANNEL.source,
        CHANNEL.group,
        17,
        encode_udp(CHANNEL.source, CHANNEL.group, UDPDatagram(1, 5000, b"payload")),
    ).encode()
    for inner in inners:
        damaged = bytearray(valid)
        damaged[position % len(damaged)] ^= inner[0] if inner else 0x10
        for candidate in (inner, valid[:20] + inner, bytes(damaged)):
            accepted = packets.accept(candidate, 0.0)
            assert accepted is None or candidate[:28] == valid[:28] or accepted[1] == b"payload"
    assert packets.reassembler.cost < 1 << 20


def test_any_source_takes_every_source():
    packets = ChannelFilter(Channel.parse("*", "239.1.1.1"), None)
    group = ip_address("239.1.1.1")
    for text in ("192.0.2.1", "192.0.2.2"):
        source = ip_address(text)
        packet = IPPacket(source, group, 17, encode_udp(source, group, UDPDatagram(1, 2, b"x")))
        assert packets.accept(packet.encode(), 0.0) == (Flow(source, 2), b"x")


@pytest.mark.parametrize("target", ["udp://", "udp://127.0.0.1", "udp://[::1", "udp://h:70000", "/nonexistent/file"])
def test_an_output_that_cannot_be_is_refused(target):
    with pytest.raises(OutputError, match=r"."):
        open_output(target)
