"""Programs in the kernel: load them, fill their maps, attach them so that they go with the process."""

from agent.net.bpf.errors import BpfError, BpfUnavailableError
from agent.net.bpf.links import Link, attach_tc, attach_xdp
from agent.net.bpf.maps import ANY, EXIST, NOEXIST, BpfMap, MapKind, create_map
from agent.net.bpf.objects import BpfObject, load, object_path
from agent.net.bpf.ring_buffer import RingBuffer
from agent.net.bpf.trial import TestRun, live_frames, test_run

__all__ = [
    "ANY",
    "EXIST",
    "NOEXIST",
    "BpfError",
    "BpfMap",
    "BpfObject",
    "BpfUnavailableError",
    "Link",
    "MapKind",
    "RingBuffer",
    "TestRun",
    "attach_tc",
    "attach_xdp",
    "create_map",
    "live_frames",
    "load",
    "object_path",
    "test_run",
]
