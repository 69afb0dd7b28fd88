"""The host role of RFC 8313 §3.4: one channel through AMT to this host, without root."""
