"""Sans-IO protocol machines: bytes and time in, datagrams and events out."""
