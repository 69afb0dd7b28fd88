"""Relays: where they are, what they were told, what is known of them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from relaymgr.api.schemas.common import Identifier, IdentifierInput, Input, Moment, Name, Output, Page, Version

PlatformName = Literal["junos", "iosxe", "ios", "isthmus"]
Port = Annotated[int, Field(ge=1, le=65535, examples=[830])]
Seconds = Annotated[float, Field(ge=1, le=600, examples=[30.0])]
Host = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=r"^(https?://|unix:///)?[A-Za-z0-9._:/\[\]%-]+$")
]
Labels = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")],
        Annotated[str, StringConstraints(max_length=256)],
    ],
    Field(max_length=64, examples=[{"region": "eu"}]),
]
Options = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=1024)]],
    Field(max_length=32, examples=[{}]),
]


def _known_key(line: str) -> str:
    if not re.fullmatch(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}", line):
        raise ValueError("a host key is written as in known_hosts, `ssh-ed25519 AAAA…`, without host and comment")
    return line


HostKeyLine = Annotated[
    str,
    StringConstraints(max_length=4096, strip_whitespace=True),
    AfterValidator(_known_key),
    Field(examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH9mT1Zb0nDhWlRLxqnKrJXGwL4nS0VZ5cWnXH2cPq7K"]),
]


def check_host(platform: str, host: str) -> None:
    """Raise ValueError for a host the platform's driver cannot use."""
    if "/" in host and platform != "isthmus":
        raise ValueError("host is a name or an address; only Isthmus's own relay has an URL")


class RelaySettings(Input):
    """What an operator tells about a relay."""

    host: Host = Field(examples=["mx1.example.net"])
    """Name or address; for Isthmus's own relay an URL, `https://…` or `unix:///path`."""
    port: Port | None = None
    """SSH port, 22 when absent; Junos: port of NETCONF, 830 when absent."""
    netconf_port: Port | None = None
    """IOS-XE: port of NETCONF; absent where it is off."""
    legacy_ssh: bool = Field(default=False, examples=[False])
    """Offer diffie-hellman-group14-sha1 and ssh-rsa too, for aged MX80 releases."""
    options: Options = Field(default_factory=dict)
    """Switches of the platform's driver."""
    connect_timeout_seconds: Seconds = 30.0
    """Deadline for a session, seconds."""
    rpc_timeout_seconds: Seconds = 30.0
    """Deadline for one request to the device, seconds."""
    commit_timeout_seconds: Seconds = 120.0
    """Deadline for a commit, seconds."""
    poll_interval_seconds: int = Field(default=30, ge=5, le=86400, examples=[30])
    """Seconds between two polls."""
    ad_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """AD that owns it."""
    site_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293b"])
    """Where it stands."""
    credential_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293c"])
    """How to log in."""
    host_key: HostKeyLine | None = None
    """Pinned host key. Absent: the relay is kept, but nothing connects to it until one is pinned."""
    enabled: bool = Field(default=True, examples=[True])
    """Whether it is polled and may be changed."""
    labels: Labels = Field(default_factory=dict)
    """Names and values for people and inventories."""


class RelayCreate(RelaySettings):
    """A new relay."""

    name: Name = Field(examples=["mx1"])
    """Unique name."""
    platform: PlatformName = Field(examples=["junos"])
    """Which driver talks to it; stays for good."""

    @model_validator(mode="after")
    def _host_fits(self) -> Self:
        check_host(self.platform, self.host)
        return self


class RelayPatch(Input):
    """What changes of a relay; members left out stay, null clears what may be absent."""

    name: Name = Field(default="", examples=["mx1"])
    """Unique name."""
    host: Host = Field(default="", examples=["mx1.example.net"])
    """Name or address; for Isthmus's own relay an URL."""
    port: Port | None = None
    """SSH port; Junos: port of NETCONF."""
    netconf_port: Port | None = None
    """IOS-XE: port of NETCONF."""
    legacy_ssh: bool = Field(default=False, examples=[False])
    """Offer diffie-hellman-group14-sha1 and ssh-rsa too."""
    options: Options = Field(default_factory=dict)
    """Switches of the platform's driver."""
    connect_timeout_seconds: Seconds = 30.0
    """Deadline for a session, seconds."""
    rpc_timeout_seconds: Seconds = 30.0
    """Deadline for one request to the device, seconds."""
    commit_timeout_seconds: Seconds = 120.0
    """Deadline for a commit, seconds."""
    poll_interval_seconds: int = Field(default=30, ge=5, le=86400, examples=[30])
    """Seconds between two polls."""
    ad_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """AD that owns it."""
    site_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293b"])
    """Where it stands."""
    credential_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293c"])
    """How to log in."""
    host_key: HostKeyLine | None = None
    """Pinned host key."""
    enabled: bool = Field(default=True, examples=[True])
    """Whether it is polled and may be changed."""
    labels: Labels = Field(default_factory=dict)
    """Names and values for people and inventories."""


class Relay(Output):
    """A relay."""

    id: Identifier
    """Stable identifier."""
    name: str = Field(examples=["mx1"])
    """Unique name."""
    platform: str = Field(examples=["junos"])
    """junos, iosxe, ios or isthmus."""
    host: str = Field(examples=["mx1.example.net"])
    """Name, address or URL."""
    port: int | None = Field(examples=[830])
    """SSH port; Junos: port of NETCONF; null: the platform's own."""
    netconf_port: int | None = Field(examples=[830])
    """IOS-XE: port of NETCONF; null where it is off."""
    legacy_ssh: bool = Field(examples=[False])
    """Whether aged algorithms are offered too."""
    options: dict[str, str] = Field(examples=[{}])
    """Switches of the platform's driver."""
    connect_timeout_seconds: float = Field(examples=[30.0])
    """Deadline for a session, seconds."""
    rpc_timeout_seconds: float = Field(examples=[30.0])
    """Deadline for one request to the device, seconds."""
    commit_timeout_seconds: float = Field(examples=[120.0])
    """Deadline for a commit, seconds."""
    poll_interval_seconds: int = Field(examples=[30])
    """Seconds between two polls."""
    ad_id: Identifier | None
    """AD that owns it."""
    site_id: Identifier | None
    """Where it stands."""
    credential_id: Identifier | None
    """How to log in."""
    host_key: str | None = Field(examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH9mT1Zb0n…"])
    """Pinned host key."""
    host_key_fingerprint: str | None = Field(examples=["SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDbUZLDQfKtNuHCXKU"])
    """Fingerprint of the pinned key, for people to compare."""
    enabled: bool = Field(examples=[True])
    """Whether it is polled and may be changed."""
    drained: bool = Field(examples=[False])
    """What the last confirmed change left it as."""
    labels: dict[str, str] = Field(examples=[{"region": "eu"}])
    """Names and values for people and inventories."""
    version: Version
    """Number in the ETag."""
    created_at: Moment
    """When it was made, UTC."""
    updated_at: Moment
    """When it was last edited, UTC."""
    intent_version: Version
    """Version of its intent; 0: it was never given one."""
    applied_intent_version: int | None = Field(examples=[3])
    """Version of the intent that the last confirmed change brought; null: none was."""
    facts: dict[str, Any] | None = Field(examples=[{"model": "MX80", "version": "20.2R3"}])
    """hostname, model, version, serial and uptime_seconds as the device tells them; null: never read."""
    capabilities: dict[str, Any] | None = Field(
        examples=[{"supported": ["amt-ipv4", "confirmed-commit"], "reasons": {}}]
    )
    """What the device can be asked for, and why not the rest; null: never read."""
    reachability: str = Field(examples=["reachable"])
    """unknown, reachable or unreachable."""
    reachability_reason: str | None = Field(examples=["connection refused"])
    """Why it is unreachable."""
    polled_at: Moment | None
    """Last poll that succeeded, UTC; null: none did."""
    age_seconds: float | None = Field(examples=[12.5])
    """Seconds since that poll; null: none did."""
    poll_seconds: float | None = Field(examples=[0.41])
    """What that poll took, seconds."""
    stale: dict[str, str] = Field(examples=[{"tunnels": "the device did not answer in time"}])
    """Part (tunnels, channels, pim_neighbors, statistics) and why what is shown of it is not fresh."""
    active_tunnels: int | None = Field(examples=[118])
    """Tunnels at the last poll; null: unknown."""
    active_channels: int | None = Field(examples=[42])
    """Channels at the last poll; null: unknown."""
    drift_state: str = Field(examples=["none"])
    """unknown, none, drifted or unmanaged."""
    drift_checked_at: Moment | None
    """When drift was last looked for, UTC."""
    window_job_id: Identifier | None
    """Job whose confirm window is open on the device; nothing else of ours changes it meanwhile."""
    window_until: Moment | None
    """When that window ends at the latest, UTC."""


class RelayPage(Page[Relay]):
    """Relays."""


class HostKeyScan(Input):
    """A device to ask for its host key, without logging in."""

    host: str = Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._:%-]+$", examples=["mx1.example.net"])
    """Name or address."""
    port: int = Field(default=22, ge=1, le=65535, examples=[830])
    """TCP port of SSH."""
    legacy_ssh: bool = Field(default=False, examples=[False])
    """Offer diffie-hellman-group14-sha1 and ssh-rsa too."""
    timeout_seconds: float = Field(default=10.0, ge=1, le=60, examples=[10.0])
    """Deadline, seconds."""


class HostKey(Output):
    """A host key somebody presented. Compare the fingerprint with the device's console before pinning the key."""

    host_key: str = Field(examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH9mT1Zb0n…"])
    """What goes into `host_key` of a relay."""
    fingerprint: str = Field(examples=["SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDbUZLDQfKtNuHCXKU"])
    """SHA-256 fingerprint as `ssh-keygen -l` prints it."""


class RelayBulk(Input):
    """Relays to make or to bring to this state, by name."""

    relays: list[RelayCreate] = Field(min_length=1, max_length=1000)
    """Up to 1 000; each succeeds or fails by itself. Members left out take defaults; a pinned `host_key` stays."""
