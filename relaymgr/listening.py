"""Where the API may listen: in clear on loopback only, unless the operator says that a proxy in front ends TLS."""

from __future__ import annotations

from dataclasses import dataclass

from relaymgr.domain.loopback import is_loopback
from relaymgr.settings import Settings


class ListenRefused(ValueError):
    """The listening address is malformed, or would show tokens to a network."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Host, port and TLS files for uvicorn."""

    host: str
    port: int
    certificate: str | None
    key: str | None

    @property
    def url(self) -> str:
        """The base address for people."""
        scheme = "https" if self.certificate else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


def listening(settings: Settings) -> Listening:
    """Check `settings.listen` (HOST:PORT, IPv6 in brackets).

    Raises:
        ListenRefused: it cannot be understood, or it is not loopback and nothing protects it.
    """
    host, separator, port = settings.listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ListenRefused(f"--listen {settings.listen!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ListenRefused("TLS needs both a certificate and a key")
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and not is_loopback(host) and not settings.allow_clear_text:
        raise ListenRefused(
            f"{host} is not loopback, tokens would cross the network in clear: give --tls-certificate and --tls-key, "
            "or --allow-clear-text behind a proxy that ends TLS"
        )
    return Listening(host, int(port), str(certificate) if certificate else None, str(key) if key else None)
