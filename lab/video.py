"""A test picture that moves and shows its time, as MPEG-TS over multicast, and a receiver that keeps its last frame."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import IO, Any, Final

from agent.protocol.channels import Address
from lab.namespaces import Lab
from lab.topology import PAYLOAD_PORT

PAYLOAD_BYTES: Final = 1316  # seven transport packets
_QUIET: Final = ("ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "warning")
# Constant rate, so that a gap is a loss and not a pause; MPEG-2, because every player has it and it costs little.
_ENCODING: Final = ("-c:v", "mpeg2video", "-b:v", "3M", "-g", "25", "-c:a", "mp2", "-b:a", "128k")
_STREAM: Final = (*_ENCODING, "-f", "mpegts", "-muxrate", "4M")
_PACING: Final = 4_200_000
_DAMAGE: Final = re.compile(r"corrupt|continuity|circular buffer overrun", re.IGNORECASE)


def start_source(lab: Lab, group: Address, local: Address, log: IO[Any]) -> subprocess.Popen[str]:
    """Send the test picture and a tone to `group` from the source's namespace until stopped."""
    target = f"udp://{_host(group)}:{PAYLOAD_PORT}?pkt_size={PAYLOAD_BYTES}&ttl=16&localaddr={local}&bitrate={_PACING}"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-f", "lavfi", "-i", "sine=frequency=440")
    return lab.start(lab.topology.source, *_QUIET, "-re", *picture, *_STREAM, target, stderr=log)


def start_receiver(
    lab: Lab, namespace: str, source: Address, group: Address, local: Address, frame: Path, log: IO[Any]
) -> subprocess.Popen[str]:
    """An unmodified ffmpeg that joins (`source`,`group`) by IGMPv3 and writes one frame a second to `frame` (PNG)."""
    joined = f"udp://{_host(group)}:{PAYLOAD_PORT}?sources={source}&localaddr={local}&fifo_size=50000"
    picture = ("-map", "0:v", "-vf", "fps=1", "-update", "1", "-atomic_writing", "1", str(frame))
    return lab.start(namespace, *_QUIET, "-y", "-i", joined, *picture, stderr=log)


def damage(log: str) -> int:
    """Lines of a receiver's log that tell of lost or broken packets."""
    return sum(1 for line in log.splitlines() if _DAMAGE.search(line))


def decodes(frame: Path) -> bool:
    """Whether a picture is there and ffmpeg can read it whole."""
    if not frame.exists():
        return False
    command = [*_QUIET, "-xerror", "-i", str(frame), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and not done.stderr.strip()


def _host(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
