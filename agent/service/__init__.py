"""The daemon: wires protocol machines, tree, engines and the API together."""
