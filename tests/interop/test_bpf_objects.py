"""Programs of a small object: loaded, attached, run in network namespaces of their own, gone with their process."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from agent.net.bpf import (
    EXIST,
    NOEXIST,
    BpfError,
    BpfUnavailableError,
    MapKind,
    RingBuffer,
    attach_tc,
    attach_xdp,
    create_map,
    live_frames,
    load,
    test_run,
)
from agent.net.bpf.clsact import has_filter
from agent.net.bpf.support import missing_library, refused, tcx
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace

REPOSITORY = Path(__file__).parents[2]


def missing_here() -> str | None:
    if shutil.which("clang") is None:
        return "needs the program clang"
    return missing_for_own_namespace() or missing_library() or refused()


pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_here()), reason=f"{missing}"),
]

SOURCE = r"""
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#define TABLE(name, kind, count, value_type) struct { __uint(type, kind); __uint(max_entries, count); \
    __type(key, __u32); __type(value, value_type); } name SEC(".maps")
struct pair { __u64 packets, octets; };
TABLE(table, BPF_MAP_TYPE_HASH, 4, __u64);
TABLE(counted, BPF_MAP_TYPE_PERCPU_ARRAY, 5000, struct pair);
TABLE(tc_programs, BPF_MAP_TYPE_PROG_ARRAY, 1, __u32);
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct ports { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 8); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
    __array(values, struct ports); } sets SEC(".maps");
static __always_inline void count(__u32 index, __u32 octets) {
    struct pair *pair = bpf_map_lookup_elem(&counted, &index);
    if (pair) { pair->packets++; pair->octets += octets; }
}
SEC("xdp") int seen(struct xdp_md *context) {
    __u32 *event = bpf_ringbuf_reserve(&events, 4, 0);
    if (event) { *event = context->ingress_ifindex; bpf_ringbuf_submit(event, 0); }
    count(0, 64); /* the difference of two pointers takes CAP_PERFMON */
    return XDP_PASS;
}
SEC("xdp") int spread(struct xdp_md *context) {
    __u32 zero = 0;
    void *set = bpf_map_lookup_elem(&sets, &zero);
    return set ? bpf_redirect_map(set, 0, BPF_F_BROADCAST) : XDP_ABORTED;
}
SEC("tc") int judge(struct __sk_buff *skb) { count(1, skb->len); return TC_ACT_OK; }
SEC("tc") int judge_entry(struct __sk_buff *skb) { bpf_tail_call(skb, &tc_programs, 0); return TC_ACT_OK; }
char _license[] SEC("license") = "GPL";
"""
BROKEN = r"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int beyond(struct xdp_md *context) { return *(volatile char *)(long)context->data; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def compiled():
    """Compiles C text as the programs of the agent are; the objects are readable by anybody."""
    specification = importlib.util.spec_from_file_location("bpf_build", REPOSITORY / "bpf_build.py")
    builder = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(builder)
    directory = Path(tempfile.mkdtemp(prefix="isbpf-"))
    directory.chmod(0o755)

    def compile_text(name, text):
        source = directory / f"{name}.bpf.c"
        source.write_text(text)
        builder.compile_source(source, directory)
        return builder.object_of(source)

    yield compile_text
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def small(compiled):
    return compiled("small", SOURCE)


def keep_silent(interface):
    """Have the kernel send nothing of its own: no listener reports, no router solicitations."""
    Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")


def in_namespace(scenario):
    async def run():
        ip("link add dev a0 type veth peer name a1")
        keep_silent("a0")
        keep_silent("a1")
        ip("link set a0 up", "link set a1 up")
        scenario(socket.if_nametoindex("a0"))

    run_in_own_namespace(run)


def test_maps_are_written_read_and_walked(small):
    with load(small, entries={"table": 2}) as loaded:
        table = loaded.map("table")
        table.update(1, bytes(8), NOEXIST)
        table.update(2, b"12345678")
        assert table.entries == 2
        with pytest.raises(BpfError, match="the map is full"):
            table.update(3, bytes(8))
        with pytest.raises(BpfError):
            table.update(1, bytes(8), NOEXIST)
        with pytest.raises(BpfError):
            table.update(9, bytes(8), EXIST)
        assert table.lookup(2) == b"12345678"
        assert sorted(table.keys()) == [struct.pack("=I", 1), struct.pack("=I", 2)]
        assert (table.delete(1), table.delete(1), table.lookup(1)) == (True, False, None)


def test_counters_of_all_cpus_are_summed_at_once_and_one_by_one(small):
    with load(small) as loaded:
        counted = loaded.map("counted")
        test_run(loaded.program("seen"), bytes(64), repeat=5)
        test_run(loaded.program("judge"), bytes(64), repeat=3)
        assert [counted.sums(index) for index in (0, 1, 2)] == [(5, 320), (3, 192), (0, 0)]
        every = counted.all_sums()
        assert (len(every), every[:3]) == (5000, [(5, 320), (3, 192), (0, 0)])
        assert list(counted.all_sums(1, 2)) == [(3, 192), (0, 0)]
        counted._batches = False
        assert list(counted.all_sums()) == list(every)
        counted.zero(0)
        assert counted.sums(0) == (0, 0)


def test_events_are_taken_a_few_at_a_time_and_the_descriptor_tells_of_more(small):
    with load(small, programs={"seen"}) as loaded:
        taken = []
        buffer = RingBuffer(loaded.map("events"), taken.append)
        assert buffer.drain() == 0
        test_run(loaded.program("seen"), bytes(64), repeat=7)
        assert buffer.drain(3) == 3
        assert select.select([buffer], [], [], 0)[0] == [buffer]
        assert (buffer.drain(), buffer.drain(), len(taken)) == (4, 0, 7)
        assert select.select([buffer], [], [], 0)[0] == []
        buffer.close()
        assert buffer.drain() == 0


def test_frames_leave_by_the_interfaces_of_an_interned_set(small):
    def scenario(index):
        with load(small) as loaded, create_map(MapKind.DEVMAP, "two", 4, 8, 2) as ports:
            ports.update(0, struct.pack("=Ii", index, -1))
            loaded.map("sets").update(0, struct.pack("=i", ports.fd))
            with attach_xdp(loaded.program("seen"), socket.if_nametoindex("a1")):
                live_frames(loaded.program("spread"), bytes(64), 100)
                assert loaded.map("counted").sums(0)[0] == 100

    in_namespace(scenario)


@pytest.mark.parametrize("generic", [False, True])
def test_an_xdp_program_is_attached_until_its_link_closes(small, generic):
    def scenario(index):
        with load(small) as loaded:
            link = attach_xdp(loaded.program("seen"), index, generic=generic)
            assert link.kind == ("xdp-generic" if generic else "xdp")
            with pytest.raises(BpfError, match="busy"):
                attach_xdp(loaded.program("seen"), index, generic=generic)
            link.close()
            attach_xdp(loaded.program("seen"), index).close()
            with pytest.raises(BpfError, match="No such device"):
                attach_xdp(loaded.program("seen"), 4096)

    in_namespace(scenario)


@pytest.mark.parametrize("clsact", [False, True])
def test_a_tc_program_judges_what_comes_in_until_its_link_closes(small, clsact):
    if not clsact and not tcx():
        pytest.skip("this kernel has no tcx")

    def scenario(index):
        with load(small) as loaded, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("a1", 0))
            frame = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(50)

            def judged():
                before = loaded.map("counted").sums(1)[0]
                sender.send(frame)
                deadline = time.monotonic() + 0.5
                while loaded.map("counted").sums(1)[0] == before and time.monotonic() < deadline:
                    time.sleep(0.01)
                return loaded.map("counted").sums(1)[0] > before

            link = attach_tc(loaded, "judge", index, clsact=clsact)
            assert link.kind == ("clsact" if clsact else "tcx")
            assert has_filter(index) is clsact
            assert judged()
            link.close()
            assert (judged(), has_filter(index)) == (False, False)
            link.close()

    in_namespace(scenario)


CHILD = textwrap.dedent("""
    import pathlib, socket, sys, time
    from agent.net.bpf import attach_tc, attach_xdp, load
    loaded = load(pathlib.Path(sys.argv[1]))
    index = socket.if_nametoindex("a0")
    native = attach_xdp(loaded.program("seen"), index)
    judge = attach_tc(loaded, "judge", index, clsact=sys.argv[2] == "clsact" or None)
    print(open(f"/proc/self/fdinfo/{loaded.program('judge')}").read().replace(chr(10), " "), flush=True)
    time.sleep(60)
""")


def start_child(small, kind, *wrapper):
    command = [*wrapper, sys.executable, "-c", CHILD, str(small), kind]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
    )
    return child, child.stdout.readline()


def end(child):
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=10)


def wait_until_gone(present):
    deadline = time.monotonic() + 10
    while present():
        assert time.monotonic() < deadline, "the programs are still there"
        time.sleep(0.02)


def has_xdp(interface):
    shown = subprocess.run(["ip", "-j", "link", "show", interface], check=True, capture_output=True, text=True).stdout
    return "xdp" in json.loads(shown)[0]


@pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs the program bpftool")
@pytest.mark.parametrize("kind", ["any", "clsact"])
def test_nothing_runs_any_more_after_a_kill(small, kind):
    """A filter of clsact stays, but the program that does something is gone; the next agent replaces the filter."""

    def scenario(index):
        child, told = start_child(small, kind)
        try:
            words = told.split()
            assert "prog_id:" in words, told or child.stderr.read()
            program = words[words.index("prog_id:") + 1]
            assert has_xdp("a0")
        finally:
            end(child)
        wait_until_gone(lambda: has_xdp("a0"))
        show = ["bpftool", "prog", "show", "id", program]
        wait_until_gone(lambda: subprocess.run(show, capture_output=True, check=False).returncode == 0)
        with load(small) as loaded:
            attach_tc(loaded, "judge", index, clsact=kind == "clsact" or None).close()
        assert not has_filter(index)

    in_namespace(scenario)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs the program setpriv (util-linux)")
@pytest.mark.parametrize("lacking", ["", "bpf"])
def test_three_capabilities_are_enough_and_cap_bpf_is_one_of_them(small, lacking):
    names = [name for name in ("net_admin", "net_raw", "bpf") if name != lacking]
    capabilities = ",".join(["-all", *(f"+{name}" for name in names)])
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"]
    command += [f"--{kind}-caps={capabilities}" for kind in ("inh", "ambient")]
    command.append(f"--bounding-set={capabilities}")
    tried = subprocess.run([*command, sys.executable, "-c", "import cffi"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"nobody cannot run Python here: {tried.stderr[-200:]}")

    def scenario(_index):
        child, told = start_child(small, "any", *command)
        if told:
            child.kill()
        error = child.communicate(timeout=10)[1]
        assert ("prog_id:" in told) is (lacking == ""), error
        assert ("needs CAP_BPF" in error) is (lacking == "bpf"), error

    in_namespace(scenario)


def test_the_verifier_s_last_words_are_in_the_error(compiled):
    with pytest.raises(BpfUnavailableError, match=r"refuses broken\.bpf\.o: .*beyond.* invalid "):
        load(compiled("broken", BROKEN))


def test_a_program_not_chosen_is_not_there(small):
    with load(small, programs={"seen"}) as loaded:
        assert loaded.program("seen") >= 0
        with pytest.raises(KeyError):
            loaded.program("judge")
