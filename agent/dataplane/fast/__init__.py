"""Forwarding in the kernel: maps filled from the same tree as the userspace engine, which takes what they leave."""
