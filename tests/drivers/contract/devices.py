"""One device of each kind for the contract suite: simulators over real SSH, and the agent's own API over real TLS."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from drivers.contract.relay_stand_in import RelayStandIn

from agent.service.api.server import ApiServer
from agent.service.configuration_store import ConfigurationStore
from lab.sim import ios, iosxe, mx80
from lab.sim.options import SimOptions
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Platform
from relaymgr.drivers.protocol import Credential, Deadlines, DeviceTarget, Driver, DriverContext
from relaymgr.drivers.registry import make_driver

RELAYS = ("junos", "iosxe", "iosxe-cli", "isthmus")
CHANGED = (*RELAYS, "junos-pyez", "iosxe-16")
"""Besides, MX80 through PyEZ, which is slow (with an RSA host key the driver's own session is used), and a release
without config-ios-cli-rpc, configured on its command line and watched over NETCONF."""
EVERY = (*RELAYS, "ios")

SECRET = "synthetic-secret-of-the-contract"
FAST = Deadlines(connect=3, rpc=3, commit=3)
PATIENT = Deadlines(connect=20, rpc=20, commit=30)

AMT = {"inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"}}
INTENTS: dict[str, dict[str, Any]] = {
    "junos": AMT | {"tunnel_limit": 500, "igmp": {"query_interval_seconds": 60}},
    "iosxe": AMT
    | {
        "igmp": {"query_interval_seconds": 90},
        "group_policy": {"name": "AMT-GROUPS", "permit": ["232.0.0.0/8"]},
        "protection_filter": {"name": "AMT-PROTECT", "permit_from": ["203.0.113.0/24"]},
        "pim_interfaces": [{"name": "GigabitEthernet1", "priority": 10}],
        "advertise": {"protocol": "bgp", "policy": "AMT-ANYCAST"},
    },
    "isthmus": AMT | {"tunnel_limit": 500, "igmp": {"query_interval_seconds": 60}},
}
AGENT_TEXT = """# A relay of the contract suite; nothing of this comment may go.
role = "relay"

[relay]
interfaces = "eth1"   # native
address = "198.51.100.7"
discovery_address = ["192.0.2.1"]
gateway_address_in_query = false
state_dir = "{folder}/state"

[dataplane]
send_buffer = 8_388_608

[api]
listen = "127.0.0.1:0"
tls_cert = "{folder}/certificate.pem"
tls_key = "{folder}/key.pem"
token_file = "{folder}/token"
"""


@dataclass
class Bench:
    """A device, and drivers to it."""

    name: str
    target: DeviceTarget
    credential: Credential
    executor: Executor
    intent: RelayIntent | None
    """None: the platform has no AMT."""
    minutes: Any
    """What to give a change so that its window lasts seconds here."""
    other_key: dict[str, Any]
    """Changes of the target that make it expect another device."""
    foreign: tuple[str, ...]
    """Lines of its configuration that are nobody's business."""
    set_fault: Callable[[str | None], None] | None = None
    pass_time: Callable[[], None] = lambda: None
    """Let the window of an IOS-XE router end now."""
    drivers: list[Driver] = field(default_factory=list)

    def driver(self, credential: Credential | None = None, **changes: Any) -> Driver:
        """Another driver, to the same device or to `changes` of its target."""
        made = make_driver(replace(self.target, **changes), credential or self.credential, DriverContext(self.executor))
        self.drivers.append(made)
        return made

    async def close(self) -> None:
        for made in self.drivers:
            await made.close()


@asynccontextmanager
async def bench(name: str, folder: Path, *, minute_seconds: float = 60.0) -> AsyncIterator[Bench]:
    """The device called `name`: one of CHANGED, or ios."""
    executor = ThreadPoolExecutor(8)
    opened = (
        _isthmus(folder, executor, minute_seconds) if name == "isthmus" else _simulated(name, executor, minute_seconds)
    )
    async with opened as made:
        try:
            yield made
        finally:
            await made.close()
            executor.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def _simulated(name: str, executor: Executor, minute_seconds: float) -> AsyncIterator[Bench]:
    key = _rsa_key() if name == "junos" else None
    options = SimOptions(password=SECRET, minute_seconds=minute_seconds, tunnels=3, host_key=key)
    platform = Platform(name.partition("-")[0])
    configured = replace(options, configured=True)
    started = {
        "junos": lambda: mx80.start(options),
        "junos-pyez": lambda: mx80.start(options),
        "iosxe": lambda: iosxe.start(configured),
        "iosxe-bare": lambda: iosxe.start(options),
        "iosxe-16": lambda: iosxe.start(configured, ios_version="16.12.5"),
        "iosxe-cli": lambda: iosxe.start(replace(configured, netconf_port=None)),
        "ios": lambda: ios.start(options),
    }[name]()
    foreign = {Platform.JUNOS: ("root-authentication",)}.get(
        platform, (" description core", "router bgp 65000", "hostname ")
    )
    async with started as sim:
        yield Bench(
            name=name,
            target=DeviceTarget(
                name=name,
                platform=platform,
                host=sim.host,
                port=sim.port,
                netconf_port=sim.netconf_port if platform is Platform.IOSXE else None,
                host_key=sim.host_key_line,
                deadlines=PATIENT,
            ),
            credential=Credential("isthmus", SECRET),
            executor=executor,
            intent=RelayIntent.model_validate(INTENTS[platform]) if platform in INTENTS else None,
            minutes=1,
            other_key={"host_key": _another_host_key()},
            foreign=foreign,
            set_fault=sim.set_fault,
            pass_time=lambda: _end_of_window(sim.device) if platform is Platform.IOSXE else None,
        )


@asynccontextmanager
async def _isthmus(folder: Path, executor: Executor, minute_seconds: float) -> AsyncIterator[Bench]:
    """The agent's configuration store and API as they are; the relay machine behind them is a stand-in."""
    _certificate(folder)
    (folder / "token").write_text(SECRET)
    path = folder / "agent.toml"
    path.write_text(AGENT_TEXT.format(folder=folder))
    store = ConfigurationStore(path)
    relay = RelayStandIn(store)
    store.start(relay.apply)
    server = ApiServer(store.configuration.api, relay, store)
    await server.start()
    assert server.address is not None
    other = folder / "other"
    other.mkdir()
    _certificate(other)
    try:
        yield Bench(
            name="isthmus",
            target=DeviceTarget(
                name="isthmus",
                platform=Platform.ISTHMUS,
                host=f"https://127.0.0.1:{server.address[1]}",
                deadlines=PATIENT,
                options={"ca": str(folder / "certificate.pem")},
            ),
            credential=Credential("", token=SECRET),
            executor=executor,
            intent=RelayIntent.model_validate(INTENTS["isthmus"]),
            minutes=minute_seconds / 60,  # the agent counts seconds
            other_key={"options": {"ca": str(other / "certificate.pem")}},
            foreign=("nothing of this comment may go", "send_buffer = 8_388_608", 'interfaces = "eth1"   # native'),
        )
    finally:
        await server.stop()
        store.close()


def _end_of_window(device: Any) -> None:
    device.revert.deadline = device.clock()
    device.resume()


@functools.cache
def _rsa_key() -> asyncssh.SSHKey:
    """One for all tests: making one takes longer than a test."""
    return asyncssh.generate_private_key("ssh-rsa")


def _another_host_key() -> str:
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    return " ".join(key.split()[:2])


def _certificate(folder: Path) -> None:
    """A certificate of 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "synthetic agent")])
    address = x509.IPAddress(IPv4Address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
