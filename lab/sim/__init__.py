"""Simulated routers on real SSH: an MX80 (NETCONF), an IOS-XE (CLI and NETCONF) and a classic IOS (CLI).

What no public document tells (state strings, comments of commits) is synthetic: plausible, not recorded from a device.
"""
