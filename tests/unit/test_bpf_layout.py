"""What the agent packs against what the gateway's object says of its types (BTF)."""

import json
import shutil
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.dataplane.engine import Refusal
from agent.dataplane.fast import layout
from agent.net.bpf import object_path
from agent.protocol.channels import Channel, Endpoint

OBJECT = object_path("gateway")
pytestmark = [
    pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs the program bpftool"),
    pytest.mark.skipif(not OBJECT.exists(), reason="needs gateway.bpf.o, which `make bpf` builds"),
]
RELAY = {version: Endpoint(ip_address(address), 2268) for version, address in ((4, "192.0.2.1"), (6, "2001:db8::1"))}


@pytest.fixture(scope="module")
def types():
    return read_types(OBJECT)


def read_types(path):
    command = ["bpftool", "btf", "dump", "-j", "file", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return {item["id"]: item for item in json.loads(done.stdout)["types"]}


def resolved(types, number):
    item = types[number]
    return resolved(types, item["type_id"]) if item["kind"] in {"TYPEDEF", "CONST", "VOLATILE"} else item


def size_of(types, number):
    item = resolved(types, number)
    if item["kind"] == "ARRAY":
        return item["nr_elems"] * size_of(types, item["type_id"])
    return item["size"]


def fields(types, name, value):
    """Every member of a struct out of octets: numbers as the host has them, arrays as octets."""
    (item,) = [item for item in types.values() if item["kind"] == "STRUCT" and item["name"] == name]
    assert len(value) == item["size"]
    found = {}
    for member in item["members"]:
        at, size = member["bits_offset"] // 8, size_of(types, member["type_id"])
        octets = value[at : at + size]
        is_array = resolved(types, member["type_id"])["kind"] == "ARRAY"
        found[member["name"]] = (
            octets if is_array else struct.unpack({1: "=B", 2: "=H", 4: "=I", 8: "=Q"}[size], octets)[0]
        )
    return found


def test_a_channel_is_what_the_programs_read(types):
    entry = layout.ChannelEntry(1, 2, 3, 4, 5, layout.Plane.XDP_MFC, announce=True, refuse=Refusal.WRONG_RELAY)
    found = fields(types, "channel", entry.pack())
    expected = {"slot": 1, "tunnel": 2, "set": 3, "single": 4, "limit": 5, "plane": 2, "announce": 1, "refuse": 2}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("version", [4, 6])
def test_keys_are_what_the_programs_look_up(types, version):
    local = RELAY[version]
    found = fields(types, f"tunnel{version}_key", layout.tunnel_key(local))
    address = found["local"] if version == 6 else struct.pack("=I", found["local"])
    assert address == local.address.packed
    assert struct.pack("=H", found["port"]) == local.port.to_bytes(2, "big")
    group = ip_address("232.1.2.3" if version == 4 else "ff3e::8000:1")
    found = fields(types, f"channel{version}_key", layout.channel_key(Channel(local.address, group)))
    octets = [part if version == 6 else struct.pack("=I", part) for part in (found["source"], found["group"])]
    assert octets == [local.address.packed, group.packed]


@pytest.mark.parametrize("version", [4, 6])
def test_a_tunnel_is_what_the_programs_compare(types, version):
    relay = RELAY[version]
    found = fields(types, "tunnel", layout.tunnel_value(relay, 7, strict_port=True, vlans=(10, 20), station=b"abcdef"))
    assert found["relay"] == relay.address.packed.ljust(16, b"\0")
    assert struct.pack("=H", found["relay_port"]) == relay.port.to_bytes(2, "big")
    assert (found["strict_port"], found["slot"], found["vlans"]) == (1, 7, 10 << 16 | 20)
    assert found["station"] == b"abcdef"


def test_interfaces_ports_and_settings_are_what_the_programs_use(types):
    found = fields(types, "interface_list", layout.interface_list((5, 6)))
    assert found == {"count": 2, "index": struct.pack("=32I", 5, 6, *(0,) * 30)}
    assert fields(types, "port", layout.port_value(b"abcdef"))["address"] == b"abcdef"
    addresses = [bytes([number]) * 6 for number in range(1, 5)]
    found = fields(types, "settings", layout.settings_value(8, 9, *addresses))
    names = ["plain_source", "keep_whole_source", "secret_plain", "secret_keep_whole"]
    assert (found["tunnel_interface"], found["receive_cores"]) == (8, 9)
    assert [found[name] for name in names] == addresses


def test_counters_have_the_size_the_agent_reads(types):
    assert fields(types, "traffic", layout.TRAFFIC.pack(1, 2)) == {"packets": 1, "octets": 2}


@pytest.fixture(scope="module")
def header_types(tmp_path_factory):
    """The header alone: the object does not name what is never a value of a map."""
    if shutil.which("clang") is None:
        pytest.skip("needs the program clang")
    made = tmp_path_factory.mktemp("layout") / "layout.o"
    text = f'#include "{OBJECT.parent}/layout.h"\nstruct event a; enum refusal b; enum exception c; enum plane d;\n'
    include = [f"-isystem{path}" for path in sorted(Path("/usr/include").glob("*-linux-gnu*"))]
    command = ["clang", "-g", "-target", "bpf", *include, "-x", "c", "-c", "-o", str(made), "-"]
    subprocess.run(command, input=text, text=True, check=True, timeout=30)
    return read_types(made)


def test_events_have_the_size_the_agent_reads(header_types):
    found = fields(header_types, "event", layout.EVENT.pack(layout.FIRST_PACKET, 2, 3, 0))
    assert (found["kind"], found["slot"], found["tunnel"]) == (1, 2, 3)


def names_of(types, kind):
    (item,) = [item for item in types.values() if item["kind"] == "ENUM" and item["name"] == kind]
    return [value["name"].lower() for value in sorted(item["values"], key=lambda value: value["val"])]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("refusal", [reason.value for reason in layout.REFUSALS]),
        ("exception", list(layout.EXCEPTIONS)),
        ("plane", [f"plane_{plane.name.lower()}" for plane in layout.Plane]),
    ],
)
def test_reasons_and_planes_have_the_programs_numbers(header_types, kind, expected):
    assert names_of(header_types, kind)[: len(expected)] == expected
