"""Each check of the doctor on hosts made up for it; every file of a host here is synthetic."""

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.net.link_query import XdpFeatures
from agent.service.doctor import Verdict, examine
from agent.service.doctor.host import Host

HEALTHY = {
    "proc/self/status": "Name:\tpython\nCapEff:\t000001ffffffffff\n",
    "proc/net/ip_mr_vif": "Interface      BytesIn  PktsIn  BytesOut PktsOut Flags Local    Remote\n",
    "proc/net/ip6_mr_vif": "Interface      BytesIn  PktsIn  BytesOut PktsOut Flags\n",
    "proc/sys/net/ipv4/igmp_max_memberships": "20\n",
    "proc/sys/net/ipv4/igmp_max_msf": "10\n",
    "proc/sys/net/ipv4/conf/all/rp_filter": "0\n",
    "proc/sys/net/ipv4/conf/amt0/rp_filter": "0\n",
    "proc/sys/net/core/bpf_jit_enable": "1\n",
    "proc/7/comm": "systemd\n",
    "etc/resolv.conf": "search example\nnameserver 192.0.2.53\n",
    **{f"sys/class/net/{name}/flags": "0x1003\n" for name in ("eth0", "eth1")},
    **{f"sys/class/net/{name}/mtu": "1500\n" for name in ("eth0", "eth1")},
    **{f"sys/class/net/{name}/operstate": "up\n" for name in ("eth0", "eth1")},
}
NFT_EMPTY = json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}]})
ETHTOOL = "Features for eth0:\ntx-checksumming: on\ngeneric-receive-offload: on\ntx-udp-segmentation: off\n"
TRAINS = ETHTOOL.replace("segmentation: off", "segmentation: on") + "driver: veth\n"
BASE = {
    "kernel": "6.18.1",
    "tap": None,
    "udp_gro": True,
    "missing_libbpf": None,
    "missing_programs": [],
    "refuses_bpf": None,
    "refused_programs": {},
    "tcx": True,
    "clock_synchronised": True,
    "name_server_answers": True,
    "is_root": True,
    "processors": 2,
    "driver": "mlx5_core",
    "xdp_features": XdpFeatures(7),
    "link": {},
    "route": ip_address("192.0.2.1"),
    "nft": NFT_EMPTY,
    "ethtool": ETHTOOL,
    "ip": "7: amt0 inet 192.0.0.8/32 scope global amt0\n",
}


class MadeUpHost(Host):
    """Files below a directory, and fixed answers."""

    def __init__(self, root, **answers):
        super().__init__(root)
        self.answers = BASE | answers
        for name in set(BASE) - {"nft", "ethtool", "ip"}:
            setattr(self, name, lambda *_, name=name: self.answers[name])

    def run(self, *command):
        return self.answers.get(command[0])


@pytest.fixture
def check(tmp_path):
    """Verdicts by name on a host that differs from a healthy one."""

    def examined(files=None, role="gateway", more="", **answers):
        root = tmp_path / "root"
        for path, text in (HEALTHY | (files or {})).items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                target.unlink(missing_ok=True)
            else:
                target.write_text(text)
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        config = tmp_path / "agent.toml"
        if role == "gateway":
            config.write_text(
                f'role = "gateway"\n[gateway]\nuplink = "eth0"\ndownstream = "eth1"\nstate_dir = "{state}"\n'
                f'[[gateway.relay]]\naddress = "203.0.113.1"\n{more}'
            )
        else:
            config.write_text(
                f'role = "relay"\n[relay]\ninterfaces = "eth1"\naddress = "192.0.2.1"\nstate_dir = "{state}"\n'
            )
        return {finding.name: finding for finding in examine(config, MadeUpHost(root, **answers))}

    return examined


@pytest.mark.parametrize("role", ["gateway", "relay"])
def test_a_healthy_host_passes_everything(check, role):
    findings = check(role=role)
    assert {name: finding.verdict for name, finding in findings.items() if finding.verdict is not Verdict.OK} == {}
    assert all(finding.seen and not finding.advice for finding in findings.values())


DROP = {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}


def ruleset(*expressions):
    rules = [{"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": item}} for item in expressions]
    return json.dumps({"nftables": [{"chain": DROP}, *rules]})


NAMES_PORT = [{"match": {"left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 2268}}, {"accept": None}]
ESTABLISHED = [{"match": {"left": {"ct": {"key": "state"}}, "right": ["established"]}}, {"accept": None}]
VIF = "Interface BytesIn\n 0 eth1 0 0 0 0 00000 0A010101 00000000\n"


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"files": {"proc/self/status": "CapEff:\t0000000000000000\n"}}, "capabilities", Verdict.FAIL),
        ({"files": {"proc/self/status": "CapEff:\t0000000000003000\n"}}, "capabilities", Verdict.WARN),
        ({"files": {"proc/self/status": "CapEff:\t0000008000003000\n"}}, "capabilities", Verdict.OK),
        (
            {"files": {"proc/self/status": "CapEff:\t0000008000003000\n"}, "kernel": "6.12.9-amd64"},
            "capabilities",
            Verdict.WARN,
        ),
        (
            {"files": {"proc/self/status": "CapEff:\t000000c000003000\n"}, "kernel": "6.12.9-amd64"},
            "capabilities",
            Verdict.OK,
        ),
        (
            {"files": {"proc/self/status": "CapEff:\t0000000000000000\n"}, "is_root": False},
            "capabilities",
            Verdict.UNKNOWN,
        ),
        ({"files": {"proc/self/status": None}}, "capabilities", Verdict.UNKNOWN),
        ({"tap": "cannot be opened"}, "tap", Verdict.FAIL),
        ({"tap": "cannot be opened", "is_root": False}, "tap", Verdict.UNKNOWN),
        ({"kernel": "6.1.0-18-amd64"}, "tap", Verdict.WARN),
        ({"kernel": "6.2.0"}, "tap", Verdict.OK),
        ({"udp_gro": False}, "udp-gro", Verdict.WARN),
        ({"missing_libbpf": "libbpf.so.1 cannot be loaded"}, "bpf-library", Verdict.WARN),
        ({"missing_programs": ["gateway.bpf.o"]}, "bpf-programs", Verdict.WARN),
        ({"refused_programs": {"relay": "the kernel refuses relay.bpf.o"}}, "bpf-verifier", Verdict.WARN),
        ({"refuses_bpf": "Operation not permitted"}, "bpf-syscall", Verdict.WARN),
        ({"refuses_bpf": "Operation not permitted", "is_root": False}, "bpf-syscall", Verdict.UNKNOWN),
        ({"tcx": False}, "bpf-tc", Verdict.OK),
        ({"tcx": None}, "bpf-tc", Verdict.WARN),
        ({"files": {"proc/sys/net/core/bpf_jit_enable": "0"}}, "bpf-jit", Verdict.WARN),
        ({"files": {"proc/sys/net/core/bpf_jit_enable": None}}, "bpf-jit", Verdict.UNKNOWN),
        ({"files": {"proc/net/ip_mr_vif": None}}, "multicast-routing-ipv4", Verdict.FAIL),
        ({"files": {"proc/net/ip6_mr_vif": None}}, "multicast-routing-ipv6", Verdict.FAIL),
        ({"files": {"proc/net/ip_mr_vif": VIF}}, "multicast-routing-ipv4", Verdict.WARN),
        (
            {"files": {"proc/net/ip_mr_vif": VIF, "proc/8/comm": "pimd\n"}},
            "multicast-routing-ipv4",
            Verdict.FAIL,
        ),
        (
            {"files": {"proc/net/ip_mr_vif": VIF, "proc/8/comm": "amt-agent\n"}},
            "multicast-routing-ipv4",
            Verdict.OK,
        ),
        ({"files": {"proc/8/comm": "smcrouted\n"}}, "multicast-routing-ipv6", Verdict.WARN),
        ({"files": {"proc/sys/net/ipv4/conf/all/rp_filter": "1"}}, "rp-filter", Verdict.FAIL),
        ({"files": {"proc/sys/net/ipv4/conf/amt0/rp_filter": "1"}}, "rp-filter", Verdict.FAIL),
        (
            {
                "files": {
                    "proc/sys/net/ipv4/conf/all/rp_filter": "1",
                    "proc/sys/net/ipv4/conf/amt0/rp_filter": "2",
                }
            },
            "rp-filter",
            Verdict.OK,
        ),
        ({"files": {"proc/sys/net/ipv4/conf/amt0/rp_filter": "2"}, "ip": ""}, "rp-filter", Verdict.FAIL),
        (
            {
                "files": {
                    "proc/sys/net/ipv4/conf/all/rp_filter": "1",
                    "proc/sys/net/ipv4/conf/amt0/rp_filter": None,
                }
            },
            "rp-filter",
            Verdict.OK,
        ),
        (
            {"files": {f"sys/class/net/eth0/{name}": None for name in ("flags", "mtu", "operstate")}},
            "interface-eth0",
            Verdict.FAIL,
        ),
        ({"files": {"sys/class/net/eth1/flags": "0x1002"}}, "interface-eth1", Verdict.FAIL),
        ({"files": {"sys/class/net/eth1/flags": "0x3"}}, "interface-eth1", Verdict.FAIL),
        ({"files": {"sys/class/net/eth1/operstate": "down"}}, "interface-eth1", Verdict.WARN),
        ({"files": {"sys/class/net/eth0/mtu": "1400"}}, "interface-eth0", Verdict.WARN),
        ({"route": None}, "route-203.0.113.1", Verdict.FAIL),
        ({"route": ip_address("192.0.2.9"), "role": "relay"}, "address-192.0.2.1", Verdict.FAIL),
        ({"nft": None}, "firewall", Verdict.UNKNOWN),
        ({"nft": "nonsense"}, "firewall", Verdict.UNKNOWN),
        ({"nft": ruleset()}, "firewall", Verdict.WARN),
        ({"nft": ruleset(NAMES_PORT)}, "firewall", Verdict.OK),
        ({"nft": ruleset(ESTABLISHED)}, "firewall", Verdict.OK),
        ({"nft": ruleset(ESTABLISHED), "role": "relay"}, "firewall", Verdict.WARN),
        ({"files": {"proc/net/ip_tables_names": "filter\n"}}, "firewall", Verdict.UNKNOWN),
        ({"ethtool": None}, "offloads-eth0", Verdict.UNKNOWN),
        ({"ethtool": ETHTOOL.replace("receive-offload: on", "receive-offload: off")}, "offloads-eth0", Verdict.WARN),
        ({"ethtool": TRAINS}, "trains-eth1", Verdict.WARN),
        ({"ethtool": TRAINS.replace("veth", "virtio_net")}, "trains-eth1", Verdict.WARN),
        ({"ethtool": TRAINS.replace("segmentation: on", "segmentation: off")}, "trains-eth1", Verdict.OK),
        ({"clock_synchronised": False}, "clock", Verdict.WARN),
        ({"clock_synchronised": None}, "clock", Verdict.UNKNOWN),
        ({"files": {"etc/resolv.conf": "# none\n"}}, "names", Verdict.WARN),
        ({"name_server_answers": False}, "names", Verdict.WARN),
        ({"files": {"proc/sys/net/ipv4/igmp_max_memberships": "5"}, "role": "relay"}, "memberships", Verdict.WARN),
        (
            {"files": {"proc/sys/net/ipv4/igmp_max_memberships": None}, "role": "relay"},
            "memberships",
            Verdict.UNKNOWN,
        ),
    ],
)
def test_what_is_wrong_is_seen_alone_and_with_advice(check, changes, name, verdict):
    findings = check(**changes)
    assert findings[name].verdict is verdict, findings[name]
    if verdict in {Verdict.FAIL, Verdict.WARN}:
        assert findings[name].advice
    expected = {name} | ({"multicast-routing-ipv4", "multicast-routing-ipv6"} if "multicast" in name else set())
    assert {key for key, finding in findings.items() if finding.verdict is not Verdict.OK} <= expected | {
        "offloads-eth1"
    }


def test_only_downstream_interfaces_without_a_wire_are_told_of_trains(check):
    assert "trains-eth0" not in check(ethtool=TRAINS)
    assert "trains-eth1" not in check(ethtool=TRAINS.replace("veth", "mlx5_core"))
    assert "trains-eth1" not in check(ethtool=TRAINS, role="relay")
    found = check(ethtool=TRAINS)["trains-eth1"]
    assert found.advice.startswith("ethtool -K eth1 tx-udp-segmentation off")


def test_an_invalid_file_is_told_and_the_host_is_checked_all_the_same(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text('role = "gateway"\n[gatway]\n')
    root = tmp_path / "root"
    for name, text in HEALTHY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    findings = examine(path, MadeUpHost(root))
    assert findings[0].verdict is Verdict.FAIL
    assert f"{path}:2:" in findings[0].seen
    assert {"capabilities", "memberships", "multicast-routing-ipv4"} <= {finding.name for finding in findings}


def test_the_command_works_on_this_host_and_changes_nothing(tmp_path):
    def settings():
        return [Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").read_text() for name in ("all", "default", "lo")]

    before = settings()
    result = CliRunner().invoke(main, ["doctor", "--json", "--config", str(tmp_path / "missing.toml")])
    findings = json.loads(result.stdout)
    assert result.exit_code == 1
    assert findings[0]["verdict"] == "fail"
    assert {"name", "verdict", "seen", "advice"} == set(findings[0])
    assert {finding["verdict"] for finding in findings} <= {"ok", "warn", "fail", "unknown"}
    assert settings() == before


def test_text_tells_verdict_and_advice(tmp_path):
    result = CliRunner().invoke(main, ["doctor", "--config", str(tmp_path / "missing.toml")])
    first, second = result.stdout.splitlines()[:2]
    assert first.startswith("fail    configuration: ")
    assert "amt-agent config check" in second


VETH = {"driver": "veth", "xdp_features": XdpFeatures(3)}
NO_XDP = {"driver": "r8169", "xdp_features": XdpFeatures(0)}
JUMBO = {f"sys/class/net/{name}/mtu": "9000\n" for name in ("eth0", "eth1")}
VIRTIO = "Pre-set maximums:\nCombined:\t2\nCurrent hardware settings:\nCombined:\t2\n"


def engine(name, more=""):
    return f'[dataplane]\nengine = "{name}"\n{more}'


@pytest.mark.parametrize(
    ("changes", "name", "verdict", "words"),
    [
        ({}, "planes-eth0", Verdict.OK, "xdp"),
        ({}, "planes-eth1", Verdict.OK, "seen to leave"),
        (VETH, "planes-eth1", Verdict.WARN, "ethtool -K PEER gro on"),
        (VETH, "planes-eth0", Verdict.OK, "xdp"),
        (VETH | {"more": engine("xdp")}, "planes-eth1", Verdict.FAIL, "userspace with engine xdp"),
        (VETH | {"more": engine("tc")}, "planes-eth1", Verdict.OK, "tc, as configured"),
        (VETH | {"more": engine("xdp-mfc")}, "planes-eth1", Verdict.OK, "xdp-mfc, as configured"),
        ({"files": JUMBO}, "planes-eth0", Verdict.WARN, "ip link set eth0 mtu 3498"),
        (
            NO_XDP,
            "planes-eth0",
            Verdict.OK,
            "r8169) has none; its channels",
        ),
        (NO_XDP, "planes-eth1", Verdict.OK, "takes no redirected frames"),
        ({"xdp_features": XdpFeatures(0), "more": engine("xdp")}, "planes-eth0", Verdict.FAIL, '"auto" or "tc"'),
        ({"xdp_features": None}, "planes-eth1", Verdict.OK, "xdp"),
        ({"link": {"linkinfo": {"info_kind": "vlan"}}}, "planes-eth1", Verdict.OK, "a vlan device is no target"),
        ({"link": {"linkinfo": {"info_kind": "bridge"}}}, "planes-eth0", Verdict.OK, "take tc"),
        ({"link": {"xdp": {"prog": {"id": 12}}}}, "planes-eth0", Verdict.WARN, "(id 12) is attached"),
        (
            {"link": {"xdp": {"prog": {"id": 12}}}, "files": {"proc/8/comm": "amt-agent\n"}},
            "planes-eth0",
            Verdict.OK,
            "xdp",
        ),
        ({"driver": "virtio_net", "ethtool": VIRTIO}, "planes-eth1", Verdict.WARN, "queues=4"),
        ({"more": engine("xdp", "receive_cores = 9\n")}, "receive-cores", Verdict.WARN, "2 processors"),
    ],
)
def test_each_interface_is_told_what_it_could_carry(check, changes, name, verdict, words):
    finding = check(**changes)[name]
    assert finding.verdict is verdict
    assert words in f"{finding.seen} {finding.advice}"


@pytest.mark.parametrize("changes", [{"role": "relay"}, {"more": engine("userspace")}])
def test_without_fast_planes_interfaces_are_not_examined_for_them(check, changes):
    assert not [name for name in check(**changes) if name.startswith("planes-")]
