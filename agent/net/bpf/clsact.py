"""TC filters with a program, for kernels before tcx. They belong to the interface: ours are known by their name."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from pyroute2 import IPRoute, NetlinkError

from agent.net.bpf.errors import BpfError
from agent.net.rtnetlink import with_rtnetlink

NAME: Final = "isthmus"
"""What our filters are called, in `tc filter show` too."""

_INGRESS: Final = 0xFFFF_FFF2  # TC_H_CLSACT with TC_H_MIN_INGRESS
_ALL_PROTOCOLS: Final = 3  # ETH_P_ALL
_PRIORITY: Final = 0xB000
_NO_MODULES: Final = "the kernel has not sch_ingress or cls_bpf, and cannot load them"
_NOTHING_THERE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL})


def add_filter(ifindex: int, program: int) -> None:
    """Let a program judge what comes in by an interface, in place of an earlier filter of ours.

    Raises:
        BpfError: the kernel refused.
    """

    def add(route: IPRoute) -> None:
        try:
            route.tc("add", "clsact", index=ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
        _remove(route, ifindex)
        where = {"index": ifindex, "parent": _INGRESS, "prio": _PRIORITY, "protocol": _ALL_PROTOCOLS}
        route.tc("add-filter", "bpf", handle=1, fd=program, name=NAME, direct_action=True, **where)

    try:
        with_rtnetlink(add)
    except NetlinkError as error:
        what = _NO_MODULES if error.code == errno.ENOENT else error.args[-1]
        raise BpfError(error.code, f"attaching a TC filter to interface {ifindex}: {what}") from error


def remove_filters(ifindex: int) -> None:
    """Take away our filters of an interface; the qdisc stays, for it may be another's, and costs nothing when empty.

    Raises:
        BpfError: the kernel refused.
    """
    try:
        with_rtnetlink(lambda route: _remove(route, ifindex))
    except NetlinkError as error:
        if error.code not in _NOTHING_THERE:
            raise BpfError(error.code, f"removing a TC filter of interface {ifindex}: {error.args[-1]}") from error


def has_filter(ifindex: int) -> bool:
    """Whether a filter of ours is at an interface, left over or in use."""

    def look(route: IPRoute) -> bool:
        return next(_ours(route, ifindex), None) is not None

    try:
        return with_rtnetlink(look)
    except NetlinkError:
        return False


def _remove(route: IPRoute, ifindex: int) -> None:
    for handle, info in list(_ours(route, ifindex)):
        route.tc("del-filter", "bpf", index=ifindex, parent=_INGRESS, handle=handle, info=info)


def _ours(route: IPRoute, ifindex: int) -> Iterator[tuple[int, int]]:
    """Handle, and priority with protocol, of each of our filters."""
    for message in route.get_filters(index=ifindex, parent=_INGRESS):
        options = message.get_attr("TCA_OPTIONS")
        if message.get_attr("TCA_KIND") == "bpf" and options is not None and options.get_attr("TCA_BPF_NAME") == NAME:
            yield message["handle"], message["info"]
