"""Login by an identity provider: OpenID Connect's code flow with PKCE, state and nonce.

What the flow must remember between its two requests travels in a sealed cookie of the browser, so that any process may
end what another began. The role is in the claim of `oidc_role_claim`: viewer, operator or admin, or a list of which the
highest counts. The claim `isthmus_ads` may bind a user to ADs by name; without it the user sees every AD.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
from authlib.common.security import generate_token
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import URL

from relaymgr.api.problems import Refused
from relaymgr.api.services import Services
from relaymgr.store.envelope import SealBroken
from relaymgr.store.principals import Role
from relaymgr.store.tables import Ad

COOKIE: Final = "isthmus_login"
LIFETIME_SECONDS: Final = 600
ADS_CLAIM: Final = "isthmus_ads"
_CONTEXT: Final = "oidc-login"
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
"""Signatures with the provider's own key; never `none`, never the client's secret."""
_SECONDS: Final = 10.0
_LEEWAY: Final = 60


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in, by the provider's word."""

    subject: str
    """`issuer|sub`."""
    name: str
    role: Role
    ads: tuple[str, ...] | None
    """Names of ADs; None: every AD."""


def provider_of(services: Services) -> Provider:
    """The provider of the settings; 404 when there is none."""
    settings = services.settings
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        raise Refused("oidc_not_configured", "the service has no identity provider")
    return Provider(services, settings.oidc_issuer, settings.oidc_client_id)


async def ads_named(session: AsyncSession, names: tuple[str, ...] | None) -> list[str]:
    """Ids of the ADs; refuses names there are not: an empty scope would be every AD."""
    if names is None:
        return []
    found = {ad.name: ad.id for ad in await session.scalars(select(Ad).where(Ad.name.in_(names)))}
    if not names or len(found) != len(set(names)):
        raise Refused("oidc_refused", f"the claim {ADS_CLAIM} names no AD, or one there is not")
    return sorted(found.values())


class Provider:
    """One identity provider, for one request."""

    def __init__(self, services: Services, issuer: str, client_id: str) -> None:
        self._services = services
        self._issuer = issuer
        self._client_id = client_id

    async def begin(self, callback: str, now: datetime) -> tuple[str, str]:
        """Address to send the browser to, and the cookie it has to bring back."""
        metadata = await self._metadata()
        state, nonce, verifier = generate_token(32), generate_token(32), generate_token(64)
        address = prepare_grant_uri(
            metadata["authorization_endpoint"],
            self._client_id,
            "code",
            redirect_uri=callback,
            scope="openid profile",
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        ends = (now + timedelta(seconds=LIFETIME_SECONDS)).timestamp()
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "callback": callback, "ends": ends}
        sealed = self._services.sealer.seal(json.dumps(kept).encode(), _CONTEXT)
        return str(address), base64.urlsafe_b64encode(sealed).decode()

    async def end(self, returned: URL, cookie: str, now: datetime) -> Identity:
        """Who came back. Refuses whatever does not fit what was begun."""
        kept = self._kept(cookie, now)
        parameters = httpx.QueryParams(returned.query)
        if parameters.get("state") != kept["state"]:
            raise Refused("oidc_refused", "the answer does not belong to a login begun in this browser")
        code = parameters.get("code")
        if not code:
            raise Refused("oidc_refused", f"the identity provider said {parameters.get('error', 'nothing')[:100]}")
        metadata = await self._metadata()
        token = await self._exchange(metadata, code, kept)
        return self._identity(await self._claims(metadata, token, kept["nonce"], now))

    def _kept(self, cookie: str, now: datetime) -> dict[str, Any]:
        try:
            sealed = base64.urlsafe_b64decode(cookie.encode())
            kept: dict[str, Any] = json.loads(self._services.sealer.open(sealed, _CONTEXT))
        except (ValueError, SealBroken):
            raise Refused("oidc_refused", "no login was begun in this browser") from None
        if kept["ends"] < now.timestamp():
            raise Refused("oidc_refused", "the login took too long")
        return kept

    async def _metadata(self) -> dict[str, Any]:
        address = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        metadata = await self._ask("GET", address)
        if metadata.get("issuer") != self._issuer:
            raise Refused("oidc_unavailable", "the identity provider calls itself otherwise than configured")
        return metadata

    async def _exchange(self, metadata: dict[str, Any], code: str, kept: dict[str, Any]) -> str:
        secret = self._services.settings.oidc_client_secret
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": kept["callback"],
            "client_id": self._client_id,
            "code_verifier": kept["verifier"],
        }
        if secret is not None:
            form["client_secret"] = secret.get_secret_value()
        answer = await self._ask("POST", metadata.get("token_endpoint"), form)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Refused("oidc_refused", "the identity provider gave no identity")
        return token

    async def _claims(self, metadata: dict[str, Any], token: str, nonce: str, now: datetime) -> dict[str, Any]:
        keys = await self._ask("GET", metadata.get("jwks_uri"))
        try:
            decoded = jwt.decode(token, KeySet.import_key_set({"keys": keys["keys"]}), algorithms=list(_ALGORITHMS))
            options = {"iss": {"value": self._issuer}, "aud": {"value": self._client_id}}
            claims = CodeIDToken(
                decoded.claims, decoded.header, options, {"nonce": nonce, "client_id": self._client_id}
            )
            claims.validate(now=int(now.timestamp()), leeway=_LEEWAY)
        except (JoseError, KeyError, TypeError, ValueError) as error:
            raise Refused("oidc_refused", f"the identity does not hold: {type(error).__name__}") from None
        return dict(claims)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        given = claims.get(self._services.settings.oidc_role_claim)
        named = given if isinstance(given, list) else [given]
        roles = [Role(name) for name in named if name in list(Role)]
        if not roles:
            claim = self._services.settings.oidc_role_claim
            raise Refused("oidc_refused", f"the claim {claim} names none of viewer, operator and admin")
        ads = claims.get(ADS_CLAIM)
        if ads is not None and not (isinstance(ads, list) and all(isinstance(name, str) for name in ads)):
            raise Refused("oidc_refused", f"the claim {ADS_CLAIM} is a list of names")
        name = str(claims.get("preferred_username") or claims.get("name") or claims["sub"])[:128]
        return Identity(
            subject=f"{self._issuer}|{claims['sub']}",
            name=name.replace("\0", ""),
            role=max(roles, key=lambda role: role.rank),
            ads=None if ads is None else tuple(ads),
        )

    async def _ask(self, method: str, address: object, form: dict[str, str] | None = None) -> dict[str, Any]:
        """JSON of the provider; what goes wrong never shows what was sent."""
        if not isinstance(address, str):
            raise Refused("oidc_unavailable", "the identity provider does not say where to ask")
        try:
            async with httpx.AsyncClient(timeout=_SECONDS, transport=self._services.http_transport) as client:
                answer = await client.request(method, address, data=form)
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Refused("oidc_unavailable", f"the identity provider failed: {type(error).__name__}") from None
        if answer.status_code >= 500 or not isinstance(body, dict):
            raise Refused("oidc_unavailable", f"the identity provider answered {answer.status_code}")
        if answer.status_code >= 400:
            raise Refused("oidc_refused", f"the identity provider answered {answer.status_code}")
        return body
