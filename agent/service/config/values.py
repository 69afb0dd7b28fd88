"""Field types of the configuration: what a TOML value must look like, and one value where a list is allowed."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

Element = TypeVar("Element")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 pydantic reports ValueError only
    return value


def _address(value: object) -> IPv4Address | IPv6Address:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    parsed = ip_address(_text(value))
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        raise ValueError("must not carry a zone")
    return parsed


def _network(value: object) -> IPv4Network | IPv6Network:
    return value if isinstance(value, IPv4Network | IPv6Network) else ip_network(_text(value))


def _interface_address(value: object) -> IPv4Interface | IPv6Interface:
    return value if isinstance(value, IPv4Interface | IPv6Interface) else ip_interface(_text(value))


def _interface_name(value: str) -> str:
    """Name the kernel accepts (net/core/dev.c, dev_valid_name)."""
    if not 0 < len(value) <= 15 or value in {".", ".."} or any(c in "/:" or c.isspace() for c in value):
        raise ValueError("is not an interface name: 1 to 15 characters, no space, slash or colon")
    return value


def _absolute(value: object) -> Path:
    path = value if isinstance(value, Path) else Path(_text(value))
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("must be an absolute path")
    return path


def _as_list(value: object) -> object:
    """One value stands for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


_text_form = PlainSerializer(str, return_type=str)

AnyAddress: TypeAlias = Annotated[IPv4Address | IPv6Address, BeforeValidator(_address), _text_form]
AnyNetwork: TypeAlias = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network), _text_form]
AnyInterfaceAddress: TypeAlias = Annotated[
    IPv4Interface | IPv6Interface, BeforeValidator(_interface_address), _text_form
]
InterfaceName: TypeAlias = Annotated[str, Field(strict=True), AfterValidator(_interface_name)]
AbsolutePath: TypeAlias = Annotated[Path, BeforeValidator(_absolute), _text_form]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Port: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=65535)]
Seconds: TypeAlias = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
SecondsOrNone: TypeAlias = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
OneOrMany: TypeAlias = Annotated[tuple[Element, ...], BeforeValidator(_as_list)]
