"""Capture files and what tshark makes of them: a dissector this project did not write."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lab.namespaces import LabError

_MAGIC: Final = 0xA1B2C3D4
_LINKTYPE_RAW: Final = 101  # IPv4 or IPv6, no link header
_BAD: Final = ("_ws.malformed", "_ws.unreassembled", "_ws.expert.severity")
_WARNING: Final = 6291456  # PI_WARN; PI_ERROR is above it

Fields = dict[str, list[str]]
"""Field name to its values in one frame, in the order of the packet."""


def missing_for_dissection() -> list[str]:
    """What this machine lacks to dissect, in words."""
    return [] if shutil.which("tshark") else ["the program tshark"]


def write_capture(path: Path, packets: Iterable[bytes]) -> None:
    """Write IP packets as a capture file."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, 65535, _LINKTYPE_RAW))
        for number, packet in enumerate(packets):
            file.write(struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet)


def dissect(path: Path, fields: Iterable[str], display_filter: str = "") -> list[Fields]:
    """Frames of a capture with the values tshark sees in them; checksums verified.

    Raises:
        LabError: tshark failed.
    """
    command = ["tshark", "-n", "-r", str(path), "-T", "json"]
    for preference in ("ip.check_checksum:TRUE", "udp.check_checksum:TRUE", "udp.ignore_ipv6_zero_checksum:FALSE"):
        command += ["-o", preference]
    for field in (*fields, *_BAD):
        command += ["-e", field]
    if display_filter:
        command += ["-Y", display_filter]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise LabError(f"tshark: {done.stderr.strip()}")
    return [frame["_source"].get("layers", {}) for frame in json.loads(done.stdout)]


def complaints(frames: Iterable[Fields]) -> list[Fields]:
    """The frames tshark calls malformed, or warns about."""
    return [
        frame
        for frame in frames
        if "_ws.malformed" in frame or any(int(severity) >= _WARNING for severity in frame.get(_BAD[2], ()))
    ]
