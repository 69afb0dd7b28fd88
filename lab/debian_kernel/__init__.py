"""Debian's own kernel, as its package brings it, booted under QEMU.

The User Mode Linux guest of `lab.kernel_amt` has a driver of AMT but no compiler for BPF programs and no IPv6 multicast
routing; this kernel has both, and not the driver. It is emulated, so that no machine lacks what it takes, and slow.
"""
