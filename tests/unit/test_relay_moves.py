"""What the log says of channels that move."""

from __future__ import annotations

import logging

import pytest

from agent.protocol.channels import Channel
from agent.service.relay_moves import RelayMoves, Signal

CHANNEL = Channel.parse("10.0.0.1", "232.1.1.1")
SIGNAL = Signal("icmp", 10.0)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.message for record in caplog.records]


def test_a_move_and_the_first_packet_from_there_are_told(lines):
    moves = RelayMoves()
    moves.moved(CHANNEL, ("a",), ("b",), "request_unanswered", SIGNAL)
    moves.first_packet(CHANNEL, "a", 10.2)
    moves.first_packet(CHANNEL, "b", 10.5)
    moves.first_packet(CHANNEL, "b", 11.0)
    assert lines() == [
        f"channel moved channel={CHANNEL} from=a to=b reason=request_unanswered",
        f"channel flows again channel={CHANNEL} tunnel=b signal=icmp seconds=0.500",
    ]


def test_nothing_is_awaited_where_no_tunnel_is_new(lines):
    moves = RelayMoves()
    moves.moved(CHANNEL, ("a", "b"), ("b",), "request_unanswered", SIGNAL)
    moves.moved(CHANNEL, ("b",), (), "request_unanswered", SIGNAL)
    moves.first_packet(CHANNEL, "b", 10.5)
    assert [line.partition(" channel=")[0] for line in lines()] == ["channel moved", "channel moved"]
    assert "to=nowhere" in lines()[1]


def test_a_forgotten_channel_is_awaited_no_more(lines):
    moves = RelayMoves()
    moves.moved(CHANNEL, ("a",), ("b",), "channel_silent", SIGNAL)
    moves.forget(CHANNEL)
    moves.first_packet(CHANNEL, "b", 10.5)
    assert len(lines()) == 1
