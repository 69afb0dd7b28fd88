"""tshark, which knows nothing of our codecs, reads the vector files as we do.

The vectors are wrapped in a pcap file written here: AMT messages in UDP to port 2268, IGMP, MLD and IP packets as they
are. So the bytes in the vector files are checked by somebody else, and with them whatever the codecs do to those bytes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from fuzzing.strategies import ones_complement
from vectors.loader import Vector, load_vectors
from vectors.tshark import TSHARK, run_tshark, write_pcap

VECTORS = {name: vector for name, vector in load_vectors().items() if vector.expect}

pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")


def in_udp(payload: bytes) -> bytes:
    """An AMT message in UDP over IPv4, from a gateway to a relay."""
    source, destination = bytes((192, 0, 2, 10)), bytes((198, 51, 100, 1))
    length = len(payload) + 8
    ports = struct.pack("!HHH", 40000, 2268, length)
    pseudo = source + destination + struct.pack("!BBH", 0, 17, length)
    checksum = 0xFFFF ^ ones_complement(pseudo + ports + b"\0\0" + payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, length + 20, 0, 0x4000, 64, 17, 0) + source + destination
    header = header[:10] + struct.pack("!H", 0xFFFF ^ ones_complement(header)) + header[12:]
    return header + ports + struct.pack("!H", checksum or 0xFFFF) + payload


@pytest.fixture(scope="module")
def dissected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """Every field tshark shows of every vector, by vector and field."""
    path = tmp_path_factory.mktemp("vectors") / "vectors.pcap"
    packets = [in_udp(vector.data) if vector.decoder == "amt" else vector.data for vector in VECTORS.values()]
    write_pcap(path, packets)
    shown = sorted({field for vector in VECTORS.values() for field, _ in vector.tshark})
    names = [*shown, "_ws.malformed", "_ws.expert.severity", "_ws.expert.message", "ip.checksum.status"]
    names += ["igmp.checksum.status", "icmpv6.checksum.status", "udp.checksum.status", "frame.protocols"]
    names += ["pim.cksum.status"]
    fields = [part for name in names for part in ("-e", name)]
    layers = json.loads(run_tshark("-r", str(path), "-T", "json", *fields))
    assert len(layers) == len(VECTORS)
    return {name: layer["_source"]["layers"] for name, layer in zip(VECTORS, layers, strict=True)}


def chosen(*, with_fields: bool) -> list[object]:
    return [pytest.param(vector, id=name) for name, vector in VECTORS.items() if bool(vector.tshark) or not with_fields]


def as_numbers(text: str) -> str | int:
    """tshark shows numbers as 1, 0x01, True or 00:01, by the whim of each field."""
    if text in {"True", "False"}:
        return int(text == "True")
    try:
        return int(text, 0)
    except ValueError:
        return text


@pytest.mark.parametrize("vector", chosen(with_fields=True))
def test_tshark_shows_the_field_values_meant(vector: Vector, dissected: dict[str, dict[str, list[str]]]) -> None:
    layers = dissected[vector.name]
    for field, expected in vector.tshark:
        shown = [as_numbers(value) for value in layers.get(field, [])]
        assert shown == [as_numbers(value) for value in expected.split(",")], field


NOT_WHOLE = {"ipv4-first-fragment", "ipv4-last-fragment", "ipv6-fragment", "ipv6-hop-by-hop", "ipv4-options"}
"""Fragments, and stand-ins for OSPF that are only about their IP headers."""


OTHERWISE_SUMMED = {"pim-register-summed-whole", "pim-frr-8.4.4-register", "pim-frr-8.4.4-null-register"}
"""A Register summed as some peers do; one whose inner UDP checksum its host had left to an interface; one whose inner
header has no checksum at all."""


@pytest.mark.parametrize("vector", chosen(with_fields=False))
def test_tshark_finds_nothing_malformed(vector: Vector, dissected: dict[str, dict[str, list[str]]]) -> None:
    layers = dissected[vector.name]
    statuses = {name: values for name, values in layers.items() if name.endswith(("checksum.status", "cksum.status"))}
    good, unverified, not_present = "1", "2", "3"
    for name, values in statuses.items() if vector.name not in OTHERWISE_SUMMED else ():
        assert set(values) <= {good, unverified, not_present}, name
    if vector.name not in NOT_WHOLE:
        assert "_ws.malformed" not in layers, layers
    if vector.decoder == "group":
        checksum = "igmp.checksum.status" if vector.data[0] >> 4 == 4 else "icmpv6.checksum.status"
        assert statuses[checksum] == [good]
    if vector.decoder == "pim" and vector.name not in OTHERWISE_SUMMED:
        assert statuses["pim.cksum.status"][0] == good
        assert "_ws.expert.severity" not in layers, layers
    if vector.decoder == "amt":
        assert "amt" in layers["frame.protocols"][0].split(":")


def test_tshark_notices_a_spoilt_checksum(tmp_path: Path) -> None:
    """The check above can fail."""
    packet = bytearray(VECTORS["igmpv3-report-allow"].data)
    packet[-1] ^= 1
    write_pcap(tmp_path / "spoilt.pcap", [bytes(packet)])
    shown = run_tshark("-r", str(tmp_path / "spoilt.pcap"), "-T", "fields", "-e", "igmp.checksum.status")
    assert shown.strip() == "0"
