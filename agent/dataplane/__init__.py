"""Forwarding engines behind one Protocol."""
