"""The configuration file: contract names, one value or a list, every fault with its line."""

import itertools
import tomllib
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.service.config import (
    Configuration,
    ConfigurationError,
    EngineChoice,
    Role,
    load,
    parse,
    render,
    show_defaults,
)
from agent.service.config.lines import locate
from agent.service.config.render import table_text

GATEWAY = """
role = "gateway"
[gateway]
uplink = "eth0"
downstream = ["eth1", "eth2"]
port = 40000
state_dir = "/var/lib/x"
[[gateway.relay]]
address = "192.0.2.1"
sources = ["198.51.100.0/24", "2001:db8::/32"]
[[gateway.relay]]
address = ["192.0.2.2", "2001:db8::2"]
"""
RELAY = """
role = "relay"
[relay]
interfaces = "eth1"
address = ["192.0.2.1", "2001:db8::1"]
discovery_address = "192.52.193.1"
tunnel_limit = 5
query_interval = 60
gateway_address_in_query = false
"""


def faults(text: str, **options: bool) -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, **options)
    return [(fault.line, fault.key, fault.message) for fault in caught.value.faults]


def test_contract_names_of_a_gateway_are_read():
    configuration = parse(GATEWAY)
    gateway = configuration.gateway
    assert configuration.role is Role.GATEWAY
    assert (gateway.uplink, gateway.downstream, gateway.port) == (("eth0",), ("eth1", "eth2"), (40000,))
    assert str(configuration.state_dir) == "/var/lib/x"
    assert gateway.relay[0].sources == (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))
    assert gateway.relay[1].address == (ip_address("192.0.2.2"), ip_address("2001:db8::2"))
    assert gateway.tunnel_addresses == (ip_interface("192.0.0.8/32"),)


def test_contract_names_of_a_relay_are_read():
    relay = parse(RELAY).relay
    assert relay.interfaces == ("eth1",)
    assert relay.discovery_address == (ip_address("192.52.193.1"),)
    assert (relay.tunnel_limit, relay.query_interval, relay.gateway_address_in_query) == (5, 60.0, False)


def test_contract_names_of_the_other_sections_are_read():
    configuration = parse(
        GATEWAY
        + """
[igmp]
robustness_variable = 3
last_member_query_interval = 0.5
[mld]
last_listener_query_interval = 0.25
last_listener_query_count = 4
[dataplane]
engine = "userspace"
[api]
listen = "0.0.0.0:8443"
token_file = "/t"
tls_cert = "/c"
tls_key = "/k"
"""
    )
    assert configuration.igmp.effective_last_member_query_count == 3
    assert configuration.mld.last_member_query_interval == 0.25
    assert configuration.mld.effective_last_member_query_count == 4
    assert configuration.igmp.effective_startup_query_interval == 31.25
    assert configuration.dataplane.engine is EngineChoice.USERSPACE
    assert str(configuration.api.tls_key) == "/k"


@pytest.mark.parametrize("key", ["uplink", "downstream"])
def test_one_value_stands_for_a_list_of_one(key):
    text = GATEWAY.replace('uplink = "eth0"\ndownstream = ["eth1", "eth2"]', "downstream = 'eth9'")
    alone = text.replace("downstream = 'eth9'", f"{key} = 'eth9'" + ("\ndownstream='eth8'" if key == "uplink" else ""))
    many = alone.replace("'eth9'", "['eth9']")
    assert parse(alone) == parse(many)


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_valid_key():
    text = GATEWAY.replace("uplink", "uplnik")
    assert faults(text) == [(4, "gateway.uplnik", "unknown key; the nearest valid one is 'uplink'")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[gatway]", "gateway"),
        ("[api]\nlisten_on = '/x'", "listen"),
        ("[dataplane]\nsend_bufer = 65536", "send_buffer"),
        ("[igmp]\nrobustness = 2", "robustness_variable"),
    ],
)
def test_the_nearest_key_is_found_in_every_table(line, expected):
    ((_, _, message),) = faults(GATEWAY + line)
    assert message == f"unknown key; the nearest valid one is {expected!r}"


def test_all_faults_of_a_file_are_told_at_once_each_with_its_line():
    text = """role = "router"
[gateway]
downstream = ["eth1", "an interface"]
port = "x"
ipv4 = 1
[[gateway.relay]]
address = "192.0.2.1"
[[gateway.relay]]
address = "192.0.2.300"
sources = [
  "10.0.0.0/8",
  "10.0.0.1/8",
]
colour = "red"
[igmp]
query_interval = 5
query_response_interval = 6
[api]
listen = "somewhere"
"""
    found = faults(text)
    assert [(line, key) for line, key, _ in found] == [
        (1, "role"),
        (3, "gateway.downstream[1]"),
        (4, "gateway.port[0]"),
        (5, "gateway.ipv4"),
        (9, "gateway.relay[1].address[0]"),
        (12, "gateway.relay[1].sources[1]"),
        (14, "gateway.relay[1].colour"),
        (17, "igmp.query_response_interval"),
        (19, "api.listen"),
    ]
    assert all(message and "Input" not in message for _, _, message in found)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('uplink = "eth0"', 'uplink = "eth1"', 5, "is an uplink"),
        ('"eth2"]', '"eth1"]', 5, "listed twice"),
        ('"eth2"]', '"amt0"]', 5, "tunnel_interface"),
        ('"198.51.100.0/24", ', '"198.51.0.0/16", "198.51.100.0/24", ', 10, "overlaps 198.51.0.0/16"),
        ('"198.51.100.0/24"', '"232.0.0.0/8"', 10, "is multicast"),
        ('address = "192.0.2.1"', 'address = "239.1.1.1"', 9, "cannot be the address of a relay"),
        ('address = "192.0.2.1"', 'address = "240.0.0.1"', 9, "cannot be the address of a relay"),
        ('address = "192.0.2.1"', 'address = "192.0.2.2"', 12, "already relay number 1"),
        ('["192.0.2.2", "2001:db8::2"]', '["192.0.2.2", "192.0.2.3"]', 12, "one address of each IP version"),
        ("port = 40000", "port = [1, 2, 1]", 6, "listed twice"),
        ("port = 40000", "ipv4 = false\nipv6 = false", 7, "at least one of ipv4 and ipv6"),
        ('downstream = ["eth1", "eth2"]', "", 3, "needs at least one downstream"),
    ],
)
def test_meaning_is_checked_too(old, new, line, message):
    assert old in GATEWAY
    ((found_line, _, found),) = faults(GATEWAY.replace(old, new))
    assert message in found
    assert found_line == line


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ('group = "10.0.0.1"', "not a multicast group"),
        ('group = "224.0.0.5"', "link-local scope"),
        ('group = "232.1.1.1"', "needs a source"),
        ('source = "2001:db8::1"\ngroup = "232.1.1.1"', "different families"),
        ('source = "10.1.1.1"\ngroup = "232.1.1.1"\ninterface = "eth7"', "not a downstream interface"),
    ],
)
def test_a_static_join_that_cannot_be_is_refused(join, message):
    ((line, key, found),) = faults(GATEWAY + "[[gateway.join]]\n" + join)
    assert message in found
    assert (line, key) == (13, "gateway.join[0]")


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('[dataplane]\nengine = "xdp-mfc"\nreceive_cores = 2', "dataplane.receive_cores", "engine is xdp-mfc"),
        ('[dataplane]\nengine = "userspace"\nreceive_cores = 1', "dataplane.receive_cores", "engine is userspace"),
        ('[dataplane]\nengine = "dpdk"', "dataplane.engine", "'xdp-mfc'"),
        ("[dataplane]\nreceive_cores = 129", "dataplane.receive_cores", "128"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(text, key, message):
    ((_, found, told),) = faults(GATEWAY + text)
    assert (found, message in told) == (key, True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('engine = "xdp"', "dataplane.engine"),
        ('engine = "xdp-mfc"', "dataplane.engine"),
        ("receive_cores = 1", "dataplane.receive_cores"),
    ],
)
def test_a_relay_has_no_engine_of_gateways(text, key):
    relay = 'role = "relay"\n[relay]\ninterfaces = "eth1"\naddress = "192.0.2.1"\n[dataplane]\n'
    ((_, found, told),) = faults(relay + text)
    assert (found, "for gateways" in told) == (key, True)


def test_a_gateway_without_a_relay_and_a_relay_without_interfaces_are_refused():
    assert [key for _, key, _ in faults('role = "gateway"')] == ["gateway.downstream", "gateway.relay"]
    assert [key for _, key, _ in faults('role = "relay"')] == ["relay.address", "relay.interfaces"]
    assert [key for _, key, _ in faults("")] == ["role"]


@pytest.mark.parametrize(
    ("section", "allowed"),
    [
        ('listen = "/run/x.sock"', True),
        ('listen = "127.0.0.1:8080"', True),
        ('listen = "[::1]:8080"', True),
        ('listen = "localhost:8080"', True),
        ('listen = "192.0.2.9:8080"', False),
        ('listen = "[::]:8080"', False),
        ('listen = "0.0.0.0:8080"\ntoken_file = "/t"', False),
        ('listen = "0.0.0.0:8080"\ntls_cert = "/c"\ntls_key = "/k"', False),
        ('listen = "0.0.0.0:8080"\ntoken_file = "/t"\ntls_cert = "/c"\ntls_key = "/k"', True),
        ('listen = "127.0.0.1:8080"\ntls_cert = "/c"', False),
        ('listen = "host.example:8080"', False),
        ('listen = "127.0.0.1:99999"', False),
        (f'listen = "/{"x" * 110}"', False),
    ],
)
def test_the_api_listens_in_clear_only_on_this_host(section, allowed):
    text = GATEWAY + "[api]\n" + section
    if allowed:
        parse(text)
    else:
        assert faults(text)[0][1].startswith("api.")


def test_files_that_cannot_be_read_are_told_when_loading(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(GATEWAY + '[api]\nlisten = "127.0.0.1:1"\ntoken_file = "/nonexistent/token"\n')
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.lines() == [
        f"{path}:15: api.token_file: cannot read /nonexistent/token: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"role = ", 1, "is not TOML"),
        (b"role = 'gateway'\n\n[gateway\n", 3, "is not TOML"),
        (b"role = 'a'\nrole = 'b'\n", 2, "is not TOML"),
        (b"a = 1\nb = '\xff'\n", 2, "is not UTF-8"),
        (b"a = " + b"[" * 5000, 1, "nested too deeply"),
        (b"#" * 1_100_000, 1, "larger than"),
    ],
)
def test_what_is_not_a_configuration_at_all_is_told_with_its_line(tmp_path, content, line, message):
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (fault,) = caught.value.faults
    assert message in fault.message
    assert fault.line == line


def test_the_groups_of_a_relay_are_multicast():
    assert [(key, why) for _, key, why in faults(GATEWAY + 'groups = ["239.0.0.0/8", "198.51.100.0/24"]')] == [
        ("gateway.relay[1].groups[1]", "198.51.100.0/24 is not multicast")
    ]


def test_a_missing_file_is_told():
    from pathlib import Path

    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load(Path("/nonexistent/agent.toml"))


@pytest.mark.parametrize("role", Role)
def test_shown_defaults_are_the_defaults_and_parse(role):
    text = show_defaults(role)
    configuration = parse(text)
    assert configuration.role is role
    needed = {"role": role, "gateway": configuration.gateway, "relay": configuration.relay}
    assert configuration == Configuration.model_validate(needed)
    described = {line.split(" = ")[0].lstrip("# ") for line in text.splitlines() if " = " in line}
    section = type(getattr(configuration, role.value))
    assert set(section.model_fields) - {"relay", "join"} <= described


@pytest.mark.parametrize("role", Role)
def test_every_key_of_the_shown_defaults_is_preceded_by_its_meaning(role):
    lines = show_defaults(role).splitlines()
    for previous, line in itertools.pairwise(lines):
        if " = " in line and not line.startswith("# "):
            assert previous.startswith("# "), line


@pytest.mark.parametrize("text", [GATEWAY, RELAY, show_defaults(Role.GATEWAY), show_defaults(Role.RELAY)])
def test_a_rendered_configuration_parses_to_the_same(text):
    configuration = parse(text)
    assert parse(render(configuration)) == configuration


def test_lines_are_found_whatever_the_syntax():
    text = '''a = """
x ]  = "
"""" # comment
"b.c".d = [ # "
  1,
  { x = 1, "y" = [2,
    3] },
]
[t."u v"]
k = \'\'\'it's\'\'\'
[[s]]
n.m = 1979-05-27 07:32:00
[s.p]
q = "\\\\"
[[s]]
r = '#'
[[s.p2]]
z = true
'''
    lines = locate(text)
    assert {key: lines[key] for key in lines if len(key) > 1 or key == ("a",)} == {
        ("a",): 1,
        ("b.c", "d"): 4,
        ("b.c", "d", 0): 5,
        ("b.c", "d", 1): 6,
        ("b.c", "d", 1, "x"): 6,
        ("b.c", "d", 1, "y"): 6,
        ("b.c", "d", 1, "y", 0): 6,
        ("b.c", "d", 1, "y", 1): 7,
        ("t", "u v"): 9,
        ("t", "u v", "k"): 10,
        ("s", 0): 11,
        ("s", 0, "n"): 12,
        ("s", 0, "n", "m"): 12,
        ("s", 0, "p"): 13,
        ("s", 0, "p", "q"): 14,
        ("s", 1): 15,
        ("s", 1, "r"): 16,
        ("s", 1, "p2"): 17,
        ("s", 1, "p2", 0): 17,
        ("s", 1, "p2", 0, "z"): 18,
    }


toml_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), toml_values, max_size=5))
def test_any_table_written_reads_back_and_every_key_has_a_line(values):
    text = table_text(values)
    assert tomllib.loads(text) == values
    lines = locate(text)
    assert {(key,) for key in values} <= set(lines)


@given(st.text())
def test_any_text_is_parsed_or_refused_with_a_line(text):
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert all(1 <= fault.line <= text.count("\n") + 1 for fault in caught.value.faults)
