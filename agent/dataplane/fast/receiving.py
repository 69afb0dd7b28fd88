"""Packets of one receive queue spread over processors, each channel always to the same."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Final

from agent.dataplane.fast.layout import index_key
from agent.net.bpf import BpfObject
from agent.net.bpf.maps import possible_cpus

_ONLINE: Final = Path("/sys/devices/system/cpu/online")
_QUEUE: Final = 2048
"""Frames that may wait for a processor; some milliseconds of them at a million a second."""

_cpumap_value = struct.Struct("=II")  # struct bpf_cpumap_val: length of the queue, the program run behind it

_log = logging.getLogger(__name__)


def receive_cores(wanted: int) -> int:
    """How many processors, from the first one on, packets can be spread over here: `wanted` at most.

    The programs number them without a gap, and one that is offline must not get a queue.
    """
    try:
        first, _, last = _ONLINE.read_text(encoding="ascii").strip().split(",")[0].partition("-")
    except OSError:
        return 0
    return min(wanted, possible_cpus(), int(last or first) + 1 if first == "0" else 0)


def open_queues(gateway: BpfObject, cores: int) -> int:
    """Have the first processors take packets from others; how many do.

    Fewer than two are of use where another processor takes the interrupts. A kernel that refuses gets none: packets
    stay where they came in.
    """
    queues = gateway.map("receive_cpus")
    for core in range(cores):
        try:
            queues.update(index_key(core), _cpumap_value.pack(_QUEUE, gateway.program("gateway_cpu")))
        except OSError as error:
            _log.warning("packets are not spread over processors: %s", error.strerror or error)
            for opened in range(core):
                queues.delete(index_key(opened))
            return 0
    return cores
