"""Flags that mirror `relaymgr.settings`: one for each setting that is no secret, with the setting's own bounds."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Le
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.options import Command
from relaymgr.settings import Settings

_MEANING: Final = {
    "listen": "HOST:PORT to serve on.",
    "poll_concurrency": "Devices polled at a time.",
    "drift_interval_seconds": "Seconds between two looks for drift at a relay.",
    "backup_interval_seconds": "Seconds between two looks for a changed configuration.",
    "plan_lifetime_seconds": "Seconds a plan can be applied.",
    "job_lease_seconds": "Seconds after which the job of a silent worker is looked at by another.",
    "statistics_retention_hours": "Hours that statistics are kept.",
    "event_retention_days": "Days that events are kept.",
    "session_lifetime_hours": "Hours that a login lasts.",
    "vault_address": "Address of Vault, for credentials kept there.",
    "oidc_issuer": "Identity provider for the dashboard.",
    "oidc_client_id": "Client id at the identity provider.",
    "oidc_role_claim": "Claim that carries the role.",
    "tls_certificate": "Certificate to serve with.",
    "tls_key": "Its key.",
}
SECRET_VARIABLES: Final = "\n".join(
    f"  ISTHMUS_{name.upper()}"
    for name, field in Settings.model_fields.items()
    if SecretStr in get_args(field.annotation)
)


def settings_options(*names: str, leave_out: frozenset[str] | set[str] = frozenset()) -> Callable[[Command], Command]:
    """A flag for each setting that is no secret (all of them, or those named), without a default of its own."""

    def give(command: Command) -> Command:
        for name, field in reversed(Settings.model_fields.items()):
            secret = field.annotation is SecretStr or SecretStr in get_args(field.annotation)
            if not secret and name not in leave_out and (not names or name in names):
                command = _option(name, field)(command)
        return command

    return give


def make_settings(**given: Any) -> Settings:  # noqa: ANN401 values of any setting
    """Settings from flags over environment over defaults; raises Failure that names a bad one, never its value."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise Failure("bad settings: " + "; ".join(faults), EXIT_USAGE) from None


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    kind = _plain(field.annotation)
    flag = "--" + name.replace("_", "-")
    help_text = _MEANING.get(name) or (field.description or "").replace("`", "")
    shown = "none" if field.default is None else str(field.default).lower() if kind is bool else field.default
    help_text = f"{help_text}  [default: {shown}]"
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    return click.option(flag, name, type=_type(kind, field), default=None, help=help_text)


def _type(kind: Any, field: FieldInfo) -> click.ParamType[Any] | type:  # noqa: ANN401 an annotation
    bounds: dict[str, Any] = {}
    for rule in field.metadata:
        if isinstance(rule, Ge):
            bounds["min"] = rule.ge
        if isinstance(rule, Le):
            bounds["max"] = rule.le
    if kind is int:
        return click.IntRange(**bounds)
    if kind is float:
        return click.FloatRange(**bounds)
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    return click.Path(path_type=Path) if kind is Path else str


def _plain(annotation: Any) -> Any:  # noqa: ANN401 an annotation
    """The type itself, of `X | None`."""
    if get_origin(annotation) in {Union, types.UnionType}:
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation
