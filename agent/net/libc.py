"""The C library's calls that move many datagrams at once (sendmmsg(2), recvmmsg(2)), in cffi's ABI mode. Linux only."""

from __future__ import annotations

from typing import Any, Final

from cffi import FFI

ffi: Final[Any] = FFI()
ffi.cdef(
    """
    struct iovec { void *iov_base; size_t iov_len; };
    struct msghdr { void *msg_name; unsigned msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
                    void *msg_control; size_t msg_controllen; int msg_flags; };
    struct mmsghdr { struct msghdr msg_hdr; unsigned msg_len; };
    int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
    int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, void *timeout);
    """
)

libc: Final[Any] = ffi.dlopen(None)
"""The C library this process already has."""
