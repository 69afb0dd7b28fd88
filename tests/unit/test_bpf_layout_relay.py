"""What the agent packs against what the relay's object says of its types (BTF)."""

import shutil
import struct
from ipaddress import ip_address

import pytest

from agent.dataplane import fanout_kernel_layout as layout
from agent.net.bpf import object_path
from agent.protocol.channels import Endpoint
from tests.unit.test_bpf_layout import fields, read_types

OBJECT = object_path("relay")
pytestmark = [
    pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs the program bpftool"),
    pytest.mark.skipif(not OBJECT.exists(), reason="needs relay.bpf.o, which `make bpf` builds"),
]


@pytest.fixture(scope="module")
def types():
    return read_types(OBJECT)


def test_channels_and_lists_are_what_the_programs_read(types):
    assert fields(types, "channel", layout.channel_value(1, 2)) == {"list": 1, "slot": 2}
    expected = {"first": 1, "ipv4": 2, "ipv6": 3, "limit": 4}
    assert fields(types, "list", layout.list_value(1, 2, 3, 4)) == expected
    assert fields(types, "list", layout.list_value(1, 2, 3, 65_535))["limit"] == layout.LONGEST_PACKET
    assert fields(types, "member", layout.member_values([7, 8])[8:])["tunnel"] == 8


@pytest.mark.parametrize(("local", "gateway"), [("192.0.2.1", "198.51.100.9"), ("2001:db8::1", "2001:db8:9::9")])
def test_a_tunnel_is_what_the_programs_write_into_headers(types, local, gateway):
    endpoint = Endpoint(ip_address(gateway), 0xABCD)
    found = fields(types, "tunnel", layout.tunnel_value(ip_address(local), endpoint, 5))
    octets = ip_address(local).packed + endpoint.address.packed
    assert found["local"] == ip_address(local).packed.ljust(16, b"\0")
    assert found["gateway"] == endpoint.address.packed.ljust(16, b"\0")
    assert struct.pack("=H", found["port"]) == b"\xab\xcd"
    assert found["adjacency"] == 5
    assert found["address_sum"] % 0xFFFF == sum(struct.unpack(f"={len(octets) // 2}H", octets)) % 0xFFFF
    label = int.from_bytes(struct.pack("=I", found["flow"]), "big")
    assert label >> 20 == 0x600
    assert label & 0xFFFFF


def test_adjacencies_and_settings_are_what_the_programs_use(types):
    found = fields(types, "adjacency", layout.adjacency_value(b"abcdef", b"ghijkl", 9, layout.AdjacencyState.FAILED))
    assert (found["link"], found["interface"], found["state"]) == (b"abcdefghijkl", 9, 2)
    value = layout.settings_value(3, 2268, dont_fragment=True, ttl=64, hop_limit=65, chunk=66)
    found = fields(types, "settings", value)
    assert (found["mark"], found["chunk"], found["ttl"], found["hop_limit"]) == (3, 66, 64, 65)
    assert struct.pack("=HH", found["port"], found["fragment"]) == (2268).to_bytes(2, "big") + b"\x40\0"


def test_counters_have_the_size_the_agent_reads(types):
    assert fields(types, "traffic", struct.pack("=2Q", 1, 2)) == {"packets": 1, "octets": 2}
    found = fields(types, "losses", struct.pack("=4Q", 1, 2, 3, 4))
    assert list(found.values()) == [1, 2, 3, 4]
