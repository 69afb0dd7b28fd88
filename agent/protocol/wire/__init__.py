"""Codecs between bytes and frozen dataclasses."""
