"""The host as the doctor sees it: files, commands and harmless system calls. Nothing here changes anything."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any, Final

from agent.net.bpf import BpfUnavailableError, load, object_path, support
from agent.net.ethtool import Ethtool
from agent.net.link_query import LinkQuery, XdpFeatures
from agent.net.routing import local_address_towards
from agent.protocol.channels import Address

_OBJECTS: Final = ("gateway", "relay")
_UDP_GRO: Final = 104  # linux/udp.h
_TUNGETFEATURES: Final = 0x800454CF  # linux/if_tun.h
_IFF_VNET_HDR: Final = 0x4000
_STA_UNSYNC: Final = 0x40  # linux/timex.h
_ROOT_QUERY: Final = struct.pack(">6HBHH", 0x1517, 0x0100, 1, 0, 0, 0, 0, 2, 1)  # NS records of "." (RFC 1035 §4)


class Host:
    """This machine; tests replace it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """Text of a file, or None when it cannot be read."""
        try:
            return (self._root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file that holds one number."""
        try:
            return int(self.text(path) or "")
        except ValueError:
            return None

    def names(self, path: str) -> list[str]:
        """Entries of a directory, none when it is not there."""
        try:
            return sorted(entry.name for entry in (self._root / path.lstrip("/")).iterdir())
        except OSError:
            return []

    def writable(self, path: Path) -> bool | None:
        """Whether we may write to a directory; None when it is not there."""
        return os.access(path, os.W_OK | os.X_OK) if path.is_dir() else None

    def run(self, *command: str) -> str | None:
        """Standard output of a command that only looks; None when it is missing, fails or takes too long."""
        environment = os.environ | {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=5, check=True, env=environment, errors="replace"
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    def commands(self) -> dict[int, str]:
        """Name of every process we can see."""
        found = {}
        for entry in self.names("/proc"):
            name = self.text(f"/proc/{entry}/comm") if entry.isdigit() else None
            if name:
                found[int(entry)] = name.strip()
        return found

    def kernel(self) -> str:
        """Release of the kernel."""
        return os.uname().release

    def is_root(self) -> bool:
        """Whether we run as root."""
        return os.geteuid() == 0

    def route(self, destination: Address) -> Address | None:
        """Local address the kernel would use towards `destination`; None without a route."""
        return local_address_towards(destination)

    def udp_gro(self) -> bool:
        """Whether the kernel can join datagrams on receipt."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
            except OSError:
                return False
        return True

    def tap(self) -> str | None:
        """Why there can be no tap device with virtio-net header; None when there can."""
        try:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            return f"/dev/net/tun cannot be opened: {error.strerror}"
        try:
            features = struct.unpack("I", fcntl.ioctl(descriptor, _TUNGETFEATURES, bytes(4)))[0]
        except OSError as error:
            return f"/dev/net/tun does not answer: {error.strerror}"
        finally:
            os.close(descriptor)
        return None if features & _IFF_VNET_HDR else "tap devices have no virtio-net header here"

    def missing_libbpf(self) -> str | None:
        """Why there is no libbpf to use; None when there is."""
        return support.missing_library()

    def missing_programs(self) -> list[str]:
        """Names of the agent's objects that were not built."""
        return [path.name for path in map(object_path, _OBJECTS) if not path.is_file()]

    def refused_programs(self) -> dict[str, str]:
        """Why the kernel does not take objects of the agent's that were built, by name; they are loaded and let go."""
        refused = {}
        for name in _OBJECTS:
            if object_path(name).is_file():
                try:
                    load(name).close()
                except BpfUnavailableError as error:
                    refused[name] = str(error)
        return refused

    def refuses_bpf(self) -> str | None:
        """Why the kernel does not take maps of ours; None when it does."""
        try:
            return support.refused()
        except BpfUnavailableError as error:
            return str(error)

    def tcx(self) -> bool | None:
        """Whether the kernel has tcx; None when it takes no TC program."""
        try:
            return support.tcx()
        except BpfUnavailableError:
            return None

    def processors(self) -> int:
        """How many this host has."""
        return os.cpu_count() or 1

    def driver(self, name: str) -> str:
        """Driver of an interface, empty when it does not tell."""
        try:
            ethtool = Ethtool()
        except OSError:
            return ""
        try:
            return ethtool.driver(name)
        except OSError:
            return ""
        finally:
            ethtool.close()

    def xdp_features(self, name: str) -> XdpFeatures | None:
        """What an interface's driver does in XDP; None where the kernel (before Linux 6.3) does not tell."""
        try:
            query = LinkQuery()
        except OSError:
            return None
        try:
            return query.xdp_features(socket.if_nametoindex(name))
        except OSError:
            return None
        finally:
            query.close()

    def link(self, name: str) -> dict[str, Any]:
        """An interface as `ip -details -json link` shows it; empty when it does not."""
        try:
            shown = json.loads(self.run("ip", "-d", "-j", "link", "show", "dev", name) or "")
            return dict(shown[0])
        except (ValueError, TypeError, LookupError):
            return {}

    def clock_synchronised(self) -> bool | None:
        """Whether the kernel believes its clock (adjtimex(2)); None when it does not say."""
        fields = ctypes.create_string_buffer(256)  # struct timex is 208 bytes; modes 0 only reads
        try:
            state = ctypes.CDLL(None, use_errno=True).adjtimex(fields)
        except (OSError, AttributeError):
            return None
        if state < 0:
            return None
        status = struct.unpack_from("i", fields, struct.calcsize("illll"))[0]
        return state != 5 and not status & _STA_UNSYNC

    def name_server_answers(self, address: str) -> bool:
        """Whether a name server answers a query for the root within two seconds."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect((address, 53))
                probe.send(_ROOT_QUERY)
                return probe.recv(512)[:2] == _ROOT_QUERY[:2]
            except OSError:
                return False
