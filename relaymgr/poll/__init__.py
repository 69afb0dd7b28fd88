"""Sharded pollers: tunnels, channels, neighbours and statistics of every relay, and how fresh they are."""
