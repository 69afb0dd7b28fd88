"""Three namespaces around a relay's data plane: a native source, the relay, and a host that stands for all gateways."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_CLONE_NEWNET: Final = 0x4000_0000
_SELF: Final = Path("/proc/thread-self/ns/net")

SOURCE_IPV4: Final = "10.71.0.1"
RELAY_IPV4: Final = "10.72.0.1"
GATEWAY_IPV4: Final = "10.72.0.2"
SOURCE_IPV6: Final = "fd71::1"
RELAY_IPV6: Final = "fd72::1"
GATEWAY_IPV6: Final = "fd72::2"
NATIVE_AT_SOURCE: Final = "native0"
NATIVE_AT_RELAY: Final = "native1"
UPLINK_AT_RELAY: Final = "uplink0"
UPLINK_AT_GATEWAY: Final = "uplink1"


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The calling thread is in `namespace` until the block ends; sockets it opens there stay there."""
    with _SELF.open("rb") as home, (Path("/run/netns") / namespace).open("rb") as target:
        _set_namespace(target.fileno())
        try:
            yield
        finally:
            _set_namespace(home.fileno())


def _set_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True)
class RelayTopology:
    """The namespaces, named after `prefix`; a context manager that deletes them on the way out."""

    prefix: str
    mtu: int = 1500
    native_mtu: int = 9000

    @property
    def source(self) -> str:
        """Where native multicast comes from."""
        return f"{self.prefix}-source"

    @property
    def relay(self) -> str:
        """Where the data plane runs."""
        return f"{self.prefix}-relay"

    @property
    def gateway(self) -> str:
        """Where tunnels end."""
        return f"{self.prefix}-gateway"

    def __enter__(self) -> Self:
        """Make it."""
        self.delete()
        try:
            for name in (self.source, self.relay, self.gateway):
                run("ip", "netns", "add", name)
                ip_lines(name, "link set lo up")
                for scope in ("all", "default"):
                    self.sysctl(name, f"net.ipv6.conf.{scope}.accept_dad", "0")
            self.connect_native()
            self._connect(
                (self.relay, UPLINK_AT_RELAY, RELAY_IPV4, RELAY_IPV6),
                (self.gateway, UPLINK_AT_GATEWAY, GATEWAY_IPV4, GATEWAY_IPV6),
                self.mtu,
            )
        except BaseException:
            self.delete()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Delete it."""
        self.delete()

    def connect_native(self) -> None:
        """Make the native link; after `disconnect_native`, one of the same names and another interface index."""
        self._connect(
            (self.source, NATIVE_AT_SOURCE, SOURCE_IPV4, SOURCE_IPV6),
            (self.relay, NATIVE_AT_RELAY, "10.71.0.2", "fd71::2"),
            self.native_mtu,
        )
        routes = [f"route replace {destination} dev {NATIVE_AT_SOURCE}" for destination in ("224.0.0.0/4", "ff00::/8")]
        ip_lines(self.source, *routes)

    def disconnect_native(self) -> None:
        """Delete the native link."""
        ip(self.source, "link", "delete", NATIVE_AT_SOURCE)

    def sysctl(self, namespace: str, name: str, value: str) -> None:
        """Set a kernel setting in a namespace."""
        with inside(namespace):
            Path("/proc/sys", *name.split(".")).write_text(value, encoding="ascii")

    def delete(self) -> None:
        """Delete the namespaces."""
        for name in (self.source, self.relay, self.gateway):
            if Path("/run/netns", name).exists():
                run("ip", "netns", "delete", name)

    def _connect(self, one: tuple[str, str, str, str], other: tuple[str, str, str, str], mtu: int) -> None:
        run(
            *("ip", "link", "add", one[1], "mtu", str(mtu), "netns", one[0], "type", "veth"),
            *("peer", "name", other[1], "mtu", str(mtu), "netns", other[0]),
        )
        for namespace, interface, ipv4, ipv6 in (one, other):
            ip_lines(
                namespace,
                f"address add {ipv4}/16 dev {interface}",
                f"address add {ipv6}/64 dev {interface} nodad",
                f"link set {interface} up",
            )


def ip(namespace: str, *arguments: str) -> str:
    """Run `ip` in a namespace; `ip -n` would remount /sys, which a chroot refuses.

    Raises:
        RuntimeError: it failed.
    """
    with inside(namespace):
        return run("ip", *arguments)


def ip_lines(namespace: str, *lines: str) -> None:
    """Run `ip` once on all lines of arguments in a namespace; it stops at the first it cannot do.

    Raises:
        RuntimeError: that one failed.
    """
    with inside(namespace):
        run("ip", "-batch", "-", text="".join(f"{line}\n" for line in lines))


def run(*command: str, text: str | None = None) -> str:
    """Run a program to its end, `text` being its standard input, and return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
