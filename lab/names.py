"""A DNS server of the lab: bind9's named, in a namespace or on loopback, with zones in which relays are published.

Its files are in a directory of its own, nothing of /etc/bind is read. It answers for its zones; asked to, it resolves
for others too, among its own zones.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import dns.rdata

from lab.namespaces import Lab, LabError, stop, wait_until

Address: TypeAlias = IPv4Address | IPv6Address

SERVICE: Final = "_amt._udp"
_START_SECONDS: Final = 15.0


def missing_for_names() -> list[str]:
    """What this machine lacks for a name server, in words; empty when it can be run."""
    return [] if shutil.which("named") else ["named"]


class Delegation(Enum):
    """How a reverse zone leads to the records of a source."""

    DIRECT = "direct"
    """They stand in it."""
    CNAME = "cname"
    """Each address has an alias into a zone of its holder (RFC 2317 §4)."""
    DNAME = "dname"
    """The whole prefix has one (RFC 6672)."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone.

    Attributes:
        origin: its name, with the dot of the root.
        lines: of the zone file, but for SOA and NS.
        ttl: of records without their own, in seconds.
        negative_ttl: SOA minimum: how long "there is none" counts, in seconds.
        serial: of the SOA.
    """

    origin: str
    lines: tuple[str, ...]
    ttl: int = 300
    negative_ttl: int = 60
    serial: int = 1

    @property
    def text(self) -> str:
        """The zone file."""
        head = (
            f"$ORIGIN {self.origin}",
            f"$TTL {self.ttl}",
            f"@ IN SOA ns.{self.origin} admin.{self.origin} {self.serial} 3600 600 86400 {self.negative_ttl}",
            f"@ IN NS ns.{self.origin}",
            "ns IN A 127.0.0.1",
        )
        return "\n".join((*head, *self.lines)) + "\n"


def source_zones(
    source: Address,
    records: Sequence[str],
    *,
    delegation: Delegation = Delegation.DIRECT,
    generic: bool = False,
    ttl: int = 300,
    negative_ttl: int = 60,
) -> list[Zone]:
    """The zones that publish the relays of a source.

    Args:
        source: its address.
        records: AMTRELAY data such as `10 0 1 192.0.2.1` (RFC 8777 §4.3.1).
        delegation: how they are found.
        generic: write them as servers need it that do not know the type (RFC 3597 §5).
        ttl: of the records, in seconds.
        negative_ttl: of the zones, in seconds.
    """
    owner, _, parent = f"{source.reverse_pointer}.".partition(".")
    if source.version == 6:  # the zone is the /64
        labels = f"{source.reverse_pointer}.".split(".")
        owner, parent = ".".join(labels[:16]), ".".join(labels[16:])
    lines = [f"IN AMTRELAY {record}" if not generic else f"IN TYPE260 {_generic(record)}" for record in records]
    held = tuple(f"{owner} {line}" for line in lines)

    def zone(origin: str, *content: str) -> Zone:
        return Zone(origin, content, ttl, negative_ttl)

    if delegation is Delegation.DIRECT:
        return [zone(parent, *held)]
    if delegation is Delegation.CNAME:
        return [zone(parent, f"{owner} IN CNAME {owner}.holder.{parent}"), zone(f"holder.{parent}", *held)]
    label, _, above = parent.partition(".")
    holder = f"reverse{source.version}.example."
    return [zone(above, f"{label} IN DNAME {holder}"), zone(holder, *held)]


def service_zone(domain: str, relays: Mapping[str, str], *more: str, ttl: int = 300) -> Zone:
    """The zone of a domain in which relays are found by DNS-SD (RFC 6763).

    Args:
        domain: with the dot of the root.
        relays: SRV data such as `0 0 2268 relay` by the names of the instances.
        more: other lines, such as addresses of the relays.
        ttl: in seconds.
    """
    lines = [f"{SERVICE} IN PTR {name}.{SERVICE}" for name in relays]
    lines += [f"{name}.{SERVICE} IN SRV {data}" for name, data in relays.items()]
    lines += [f'{name}.{SERVICE} IN TXT ""' for name in relays]
    return Zone(domain, (*lines, *more), ttl)


class NameServer:
    """One named; a context manager that ends it.

    Attributes:
        directory: its files: configuration, zones, log.
        log: what it said.
        port: it is asked at.
    """

    def __init__(
        self,
        lab: Lab | None,
        namespace: str | None,
        directory: Path,
        zones: Iterable[Zone],
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        port: int = 53,
        recursion: bool = False,
    ) -> None:
        """Prepare it; nothing runs yet.

        Args:
            lab: the running lab, None to run here.
            namespace: a namespace of it.
            directory: for its files, made when it is not there.
            zones: it answers for.
            addresses: it is asked at.
            port: it is asked at; below 1024 is root's.
            recursion: resolve for whoever asks; aliases are then followed from zone to zone.
        """
        self.directory = directory
        self.log = directory / "named.log"
        self._lab = lab
        self._namespace = namespace
        self._zones = {zone.origin: zone for zone in zones}
        self._addresses = addresses
        self.port = port
        self._recursion = recursion
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            LabError: there is no named, or it refuses its configuration or a zone.
        """
        if missing := missing_for_names():
            raise LabError(f"a name server needs {', '.join(missing)}")
        self.directory.mkdir(parents=True, exist_ok=True)
        for zone in self._zones.values():
            self._file(zone).write_text(zone.text)
        configuration = self.directory / "named.conf"
        configuration.write_text(self._configuration())
        command = ["named", "-g", "-n", "1", "-c", str(configuration)]
        with self.log.open("w") as log:
            if self._lab is not None and self._namespace is not None:
                self._process = self._lab.start(self._namespace, *command, stderr=log)
            else:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_for(" running\n", f"named runs ({self.log})")
            self._expect_every_zone()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it; safe to call twice."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def reload(self, zone: Zone) -> None:
        """Serve another text of one of its zones; its serial goes up by itself.

        Raises:
            LabError: it does not run, or refuses the zone.
        """
        if self._process is None:
            raise LabError("no named runs")
        newer = replace(zone, serial=self._zones[zone.origin].serial + 1)
        self._zones[zone.origin] = newer
        self._file(newer).write_text(newer.text)
        self._process.send_signal(signal.SIGHUP)
        loaded = f"zone {zone.origin.removesuffix('.')}/IN: loaded serial {newer.serial}"
        self._wait_for(loaded, f"{loaded} ({self.log})")

    def _expect_every_zone(self) -> None:
        said = self.log.read_text()
        if "not loaded due to errors" in said:
            raise LabError(f"named refuses a zone: {said[-2000:]}")

    def _wait_for(self, text: str, what: str) -> None:
        def is_there() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise LabError(f"named ended: {self.log.read_text()[-2000:]}")
            return text in self.log.read_text()

        wait_until(is_there, _START_SECONDS, what)

    def _file(self, zone: Zone) -> Path:
        return self.directory / f"{zone.origin.replace('/', '-')}zone"

    def _configuration(self) -> str:
        listen = {
            version: " ".join(f"{address};" for address in self._addresses if (":" in address) is (version == 6))
            for version in (4, 6)
        }
        zones = "\n".join(
            f'zone "{zone.origin}" {{ type primary; file "{self._file(zone)}"; }};' for zone in self._zones.values()
        )
        recursion = "yes; allow-recursion { any; }" if self._recursion else "no"
        return f"""options {{
    directory "{self.directory}";
    pid-file "{self.directory}/named.pid";
    session-keyfile "{self.directory}/session.key";
    bindkeys-file "{self.directory}/bind.keys";
    managed-keys-directory "{self.directory}";
    listen-on port {self.port} {{ {listen[4] or "none;"} }};
    listen-on-v6 port {self.port} {{ {listen[6] or "none;"} }};
    allow-query {{ any; }};
    recursion {recursion};
    dnssec-validation no;
    empty-zones-enable no;
    max-cache-size 16M;
    notify no;
    querylog yes;
}};
controls {{ }};
zone "." {{ type primary; file "{self._root().name}"; }};
{zones}
"""

    def _root(self) -> Path:
        """An empty root: nobody on the Internet is asked."""
        path = self.directory / "root.zone"
        path.write_text(Zone(".", ()).text.replace("ns..", "ns.").replace("admin..", "admin."))
        return path


def _generic(record: str) -> str:
    """Data of a record in the form for unknown types: its length and its bytes in hexadecimal."""
    data = dns.rdata.from_text("IN", "AMTRELAY", record).to_wire()
    assert data is not None
    return f"\\# {len(data)} {data.hex()}"
