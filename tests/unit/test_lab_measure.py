"""The lab's receiver counts what it should: tests that rest on it rest on these."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lab.measure import Measurement
from lab.traffic import HEADER, MAGIC, Stream


def numbered(sequence: int, sent: float = 0.0) -> bytes:
    return HEADER.pack(MAGIC, 0, sequence, int(sent * 1e9))


def measured(*sequences: int) -> Measurement:
    result = Measurement()
    result.start(10.0)
    for position, sequence in enumerate(sequences):
        result.count(numbered(sequence), 10.5 + position)
    return result


@pytest.mark.parametrize(
    ("sequences", "lost", "reordered", "duplicates"),
    [
        ((5, 6, 7), 0, 0, 0),
        ((5, 8), 2, 0, 0),
        ((5, 7, 6), 0, 1, 0),
        ((5, 6, 6, 5), 0, 0, 2),
        ((5, 9, 7, 7), 2, 1, 1),
        ((5, 4, 6), 0, 1, 0),
    ],
)
def test_loss_reorder_and_duplicates_are_told_apart(sequences, lost, reordered, duplicates):
    report = measured(*sequences).report()
    assert (report["lost"], report["reordered"], report["duplicates"]) == (lost, reordered, duplicates)
    assert report["received"] == len(sequences)


def test_join_latency_and_longest_gap_are_seconds():
    result = Measurement()
    result.start(10.0)
    for now in (10.25, 10.5, 11.5):
        result.count(numbered(int(now * 4), sent=now - 0.002), now)
    report = result.report()
    assert report["join_seconds"] == 0.25
    assert report["longest_gap_seconds"] == 1.0
    assert report["latency_p50_milliseconds"] == pytest.approx(2.0, abs=0.01)


def test_video_is_counted_by_its_continuity():
    def transport(counter: int) -> bytes:
        return bytes((0x47, 0x01, 0x00, 0x10 | counter)) + bytes(184)

    result = Measurement()
    for counter in (3, 4, 7):
        result.count(transport(counter), 1.0)
    report = result.report()
    assert (report["received"], report["foreign"], report["transport_packets"]) == (3, 3, 3)
    assert report["continuity_errors"] == 1


def test_a_huge_gap_does_not_grow_memory():
    result = measured(0, 1 << 60)
    assert result.report()["lost"] == (1 << 60) - 1
    assert not result._missing


def test_a_stream_too_small_for_its_numbers_is_refused():
    with pytest.raises(ValueError, match="24 bytes"):
        Stream(ip_address("232.1.1.1"), 5004, size=23)
