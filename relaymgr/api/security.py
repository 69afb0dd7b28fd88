"""Who may do what: bearer tokens, roles declared by every route, the ADs a token is scoped to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from relaymgr.api.problems import Refused
from relaymgr.api.services import Services
from relaymgr.store import tokens
from relaymgr.store.principals import Principal, Role

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="API token, or the session token of a login.")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="relaymgr"'}


def services_of(request: Request) -> Services:
    """The services the application was made with."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(services_of)]


async def authenticated(
    services: ServicesOf, given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Principal:
    """Whoever the token belongs to."""
    if given is None:
        raise Refused("unauthorized", "send a token: `Authorization: Bearer …`", headers=_CHALLENGE)
    principal = await tokens.verify(services.database, given.credentials, services.clock())
    if principal is None:
        raise Refused("unauthorized", "the token is unknown, expired or revoked", headers=_CHALLENGE)
    return principal


Caller = Annotated[Principal, Depends(authenticated)]


@dataclass(frozen=True)
class RoleRequired:
    """The dependency in which a route declares its role; tests read it back from the route."""

    role: Role | None
    """None: everybody, without a token."""
    everywhere: bool = False
    """Only for tokens that are not scoped to ADs."""

    async def __call__(self, caller: Caller) -> None:
        """Refuse a caller whose role or scope is too small."""
        assert self.role is not None
        if not caller.role.includes(self.role):
            raise Refused(
                "forbidden",
                f"this needs the role {self.role}, the token has {caller.role}",
                required_role=self.role.value,
            )
        if self.everywhere and caller.scoped:
            raise Refused("outside_scope", "this reaches beyond the ADs the token is scoped to")


@dataclass(frozen=True)
class Public(RoleRequired):
    """Declares a route that needs no token."""

    role: Role | None = None

    async def __call__(self) -> None:  # type: ignore[override]
        """Let everybody in."""


VIEWER = Depends(RoleRequired(Role.VIEWER))
VIEWER_EVERYWHERE = Depends(RoleRequired(Role.VIEWER, everywhere=True))
OPERATOR = Depends(RoleRequired(Role.OPERATOR))
ADMIN = Depends(RoleRequired(Role.ADMIN))
ADMIN_EVERYWHERE = Depends(RoleRequired(Role.ADMIN, everywhere=True))
PUBLIC = Depends(Public())


def require_ad(caller: Principal, ad_id: str | None) -> None:
    """Refuse to give something to an AD (None: to everybody) beyond the caller's."""
    if not caller.sees_ad(ad_id):
        raise Refused("outside_scope", "ad_id must be one of the ADs the token is scoped to")
