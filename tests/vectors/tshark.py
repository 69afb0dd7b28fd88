"""tshark on packets of ours: written to a file in the classic pcap format, read back as what tshark understood."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

TSHARK = shutil.which("tshark")
RAW_IP = 101
"""LINKTYPE_RAW: packets begin with an IP header."""


def write_pcap(path: Path, packets: list[bytes]) -> None:
    """One header, then a header and the bytes of each packet."""
    with path.open("wb") as file:
        file.write(struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, RAW_IP))
        for number, packet in enumerate(packets):
            file.write(struct.pack("!IIII", number, 0, len(packet), len(packet)) + packet)


def run_tshark(*arguments: str) -> str:
    """What tshark writes, checksums checked."""
    assert TSHARK is not None
    options = ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    result = subprocess.run(
        [TSHARK, "-n", *options, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
