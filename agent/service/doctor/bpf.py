"""What the fast engines need. Without it the agent forwards in userspace, so that nothing here is fatal."""

from __future__ import annotations

from collections.abc import Iterator

from agent.service.doctor.finding import Finding, ok, unknown, warn
from agent.service.doctor.host import Host

_WITHOUT = "the agent forwards in userspace"


def check_bpf(host: Host) -> Iterator[Finding]:
    """The library, the programs, the kernel's consent, its compiler, and how TC programs are attached."""
    missing = host.missing_libbpf()
    if missing is not None:
        yield warn("bpf-library", f"{missing}; {_WITHOUT}", "apt install libbpf1 (1.1 or later).")
    else:
        yield ok("bpf-library", "libbpf.so.1")
    yield _programs(host)
    if missing is None:
        yield from _kernel(host)
    yield _compiler(host)


def _programs(host: Host) -> Finding:
    absent = host.missing_programs()
    if not absent:
        return ok("bpf-programs", "compiled")
    advice = "Install a wheel built where clang and libbpf-dev were, or run make bpf in the checkout."
    return warn("bpf-programs", f"{', '.join(absent)} not there; {_WITHOUT}", advice)


def _kernel(host: Host) -> Iterator[Finding]:
    reason = host.refuses_bpf()
    if reason is not None and not host.is_root():
        yield unknown("bpf-syscall", f"refused to this user: {reason}", "Run the doctor as root.")
        return
    if reason is not None:
        advice = "Give CAP_BPF and CAP_NET_ADMIN, and let seccomp pass bpf(2) (SystemCallFilter=bpf in a unit)."
        yield warn("bpf-syscall", f"{reason}; {_WITHOUT}", advice)
        return
    yield ok("bpf-syscall", "the kernel takes maps")
    yield _verifier(host)
    tcx = host.tcx()
    if tcx is None:
        advice = "Give CAP_NET_ADMIN next to CAP_BPF; the kernel needs CONFIG_NET_CLS_ACT."
        yield warn("bpf-tc", "the kernel takes no TC program", advice)
    elif tcx:
        yield ok("bpf-tc", "links (tcx), gone with the agent")
    else:
        yield ok("bpf-tc", "filters (clsact; links need Linux 6.6), which a killed agent leaves behind empty")


def _verifier(host: Host) -> Finding:
    refused = host.refused_programs()
    if not refused:
        return ok("bpf-verifier", "the kernel takes the programs")
    advice = "Linux 6.1 or later takes them with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN."
    return warn("bpf-verifier", f"{'; '.join(refused.values())}; {_WITHOUT}", advice)


def _compiler(host: Host) -> Finding:
    """Whether programs run as machine code; only the first network namespace shows the setting."""
    setting = host.number("/proc/sys/net/core/bpf_jit_enable")
    if setting is None:
        return unknown("bpf-jit", "net.core.bpf_jit_enable cannot be read", "Read it as root, outside of containers.")
    if setting == 0:
        return warn("bpf-jit", "programs are interpreted, several times slower", "sysctl -w net.core.bpf_jit_enable=1")
    return ok("bpf-jit", "programs run as machine code")
