"""What things cost: packets per second, CPU time, latency and memory, measured in namespaces."""
