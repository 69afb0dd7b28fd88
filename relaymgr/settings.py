"""Settings of the service: flags over environment (ISTHMUS_…) over defaults. Secrets only from environment or files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything `relaymgr serve` and `worker` can be told."""

    model_config = SettingsConfigDict(env_prefix="ISTHMUS_", extra="ignore", use_attribute_docstrings=True)

    database_url: str = "sqlite+aiosqlite:///relaymgr.db"
    """`sqlite+aiosqlite:///FILE` or `postgresql+psycopg://user@host/name`; `postgresql://` is understood too."""
    listen: str = "127.0.0.1:8080"
    key_file: Path | None = None
    """File with the key that seals secrets (32 bytes, base64); made next to an SQLite database when absent."""
    key: SecretStr | None = None
    """The same key, from the environment; over `key_file`."""
    credential_directory: Path | None = None
    """Folder that credentials of source `file` lie in; without one they are refused. References are relative to it."""
    credential_environment_prefix: str = Field(default="ISTHMUS_CREDENTIAL_", min_length=1)
    """What environment variables of credentials of source `env` begin with; no others can be named."""
    engine: str = "auto"
    """embedded, procrastinate, or auto: procrastinate on PostgreSQL."""
    workers: int = Field(default=16, ge=1, le=256)
    """Jobs at a time in one process."""
    device_threads: int = Field(default=32, ge=1, le=512)
    """Threads for synchronous device libraries in one process."""
    run_jobs: bool = True
    """Whether this process runs jobs, or leaves them to `relaymgr worker` processes."""
    poll: bool = True
    """Whether this process polls."""
    poll_concurrency: int = Field(default=200, ge=1, le=5000)
    drift_interval_seconds: int = Field(default=900, ge=30)
    backup_interval_seconds: int = Field(default=3600, ge=60)
    plan_lifetime_seconds: int = Field(default=3600, ge=60)
    job_lease_seconds: float = Field(default=30.0, ge=1.0)
    statistics_retention_hours: int = Field(default=72, ge=1)
    event_retention_days: int = Field(default=90, ge=1)
    session_lifetime_hours: int = Field(default=12, ge=1)
    vault_address: str | None = None
    vault_token: SecretStr | None = None
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_role_claim: str = "isthmus_role"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: str | None = None
    """Addresses of proxies, separated by commas, whose X-Forwarded-For is believed; nobody's by default."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe record that is written to standard error."""
    log_json: bool = False
    """Write records as JSON instead of logfmt."""
    allow_clear_text: bool = False
    """Serve plain HTTP on an address that is not loopback (behind a proxy that ends TLS)."""
