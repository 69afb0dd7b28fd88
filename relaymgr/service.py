"""Wires the manager: database, sealing, devices, jobs, pollers, API. The only module that knows all of them."""
