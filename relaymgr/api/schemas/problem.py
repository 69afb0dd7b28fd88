"""Errors (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Fault(BaseModel):
    """One thing wrong in a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    key: str = Field(examples=["inet.local_address"])
    """Dotted name of the member or parameter; empty for the whole."""
    location: str = Field(default="body", examples=["body"])
    """body, query, path or header."""
    message: str = Field(examples=["local_address 192.0.2.7 lies inside 192.0.2.0/24"])
    """What is wrong with it."""


class Problem(BaseModel):
    """What every error answers."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = Field(examples=["urn:isthmus:problem:etag_mismatch"])
    """`urn:isthmus:problem:` and the code."""
    title: str = Field(examples=["Etag mismatch"])
    """The code in words."""
    status: int = Field(examples=[412])
    """HTTP status."""
    code: str = Field(examples=["etag_mismatch"])
    """Stable code, one of those in docs/manager-api.md."""
    detail: str = Field(examples=["the relay is at version 4 now"])
    """What happened, in one sentence."""
    faults: list[Fault] = Field(default_factory=list)
    """Everything wrong with the request, place by place."""
    request_id: str | None = Field(default=None, examples=["5f2b7c1e0d9a"])
    """Also in the header X-Request-Id and in the service's log."""
    capability: str | None = Field(default=None, examples=["amt-ipv6"])
    """With `capability_missing`: what the device lacks."""
    job_id: str | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """With `confirm_window_open`: the job that waits."""
    required_role: str | None = Field(default=None, examples=["operator"])
    """With `forbidden`: the lowest role that may."""
    presented_fingerprint: str | None = Field(default=None, examples=["SHA256:0Gx1y2…"])
    """With `device_host_key_mismatch`: what the device showed."""
    holder: str | None = Field(default=None, examples=["netops"])
    """With `device_busy`: who holds the lock, where the device tells."""
