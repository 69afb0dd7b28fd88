"""Logins: local users, an identity provider, who one is."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from relaymgr.api import oidc
from relaymgr.api.listings import json_response
from relaymgr.api.problems import Refused, responses
from relaymgr.api.recording import record
from relaymgr.api.schemas.access import Login, Session, WhoAmI
from relaymgr.api.security import PUBLIC, VIEWER, Caller, ServicesOf
from relaymgr.api.services import Services
from relaymgr.store import tables, tokens, users
from relaymgr.store.principals import Role

router = APIRouter(prefix="/api/v1", tags=["access"])


@router.get("/whoami", operation_id="who_am_i", dependencies=[VIEWER], response_model=WhoAmI)
async def who_am_i(caller: Caller) -> WhoAmI:
    """Whoever the token belongs to, and what it may do."""
    return WhoAmI(actor=caller.actor, role=caller.role.value, ad_ids=sorted(caller.ad_ids), token_id=caller.token_id)


async def _begin_session(services: Services, user: tables.User, action: str) -> Response:
    now = services.clock()
    expires_at = now + timedelta(hours=services.settings.session_lifetime_hours)
    actor = f"user:{user.name}"
    async with services.database.begin() as session:
        made = await tokens.create(
            session,
            name="session",
            role=Role(user.role),
            created_by=actor,
            now=now,
            ad_ids=user.ad_ids,
            expires_at=expires_at,
            user_id=user.id,
        )
        await record(session, services, actor, action, ("user", user.id), after={"token_id": made.row.id})
    body = {
        "token": made.text,
        "expires_at": expires_at,
        "actor": actor,
        "role": user.role,
        "ad_ids": user.ad_ids,
    }
    return json_response(body)


@router.post(
    "/login",
    operation_id="log_in",
    dependencies=[PUBLIC],
    response_model=Session,
    responses=responses("login_refused", "rate_limited"),
)
async def log_in(request: Request, services: ServicesOf, body: Login) -> Response:
    """Log a local user in. After too many failures for a name or from an address, `Retry-After` says how long."""
    limiter = request.app.state.login_limiter
    keys = (f"name:{body.name.casefold()}", f"address:{request.client.host if request.client else ''}")
    if (wait := limiter.take(*keys)) > 0:
        raise Refused("rate_limited", f"try again in {wait} s", headers={"Retry-After": str(wait)})
    user = await users.authenticate(services.database, body.name, body.password.get_secret_value(), services.clock())
    if user is None:
        async with services.database.begin() as session:
            name = f"user:{body.name}"
            await record(session, services, name, "user.login", ("user", None), outcome="login_refused")
        raise Refused("login_refused", "name and password do not belong together")
    limiter.succeeded(*keys)
    return await _begin_session(services, user, "user.login")


@router.post("/logout", operation_id="log_out", status_code=204, dependencies=[VIEWER])
async def log_out(services: ServicesOf, caller: Caller) -> None:
    """End the session. A token that is no session stays; revoke it instead."""
    if caller.user_id is None or caller.token_id is None:
        return
    async with services.database.begin() as session:
        await tokens.revoke(session, caller.token_id, services.clock())
        await record(session, services, caller, "user.logout", ("user", caller.user_id))


@router.get(
    "/login/oidc",
    operation_id="begin_oidc_login",
    status_code=302,
    dependencies=[PUBLIC],
    response_class=RedirectResponse,
    responses=responses("oidc_not_configured", "oidc_unavailable"),
)
async def begin_oidc_login(request: Request, services: ServicesOf) -> Response:
    """Send the browser to the identity provider."""
    provider = oidc.provider_of(services)
    address, cookie = await provider.begin(_callback(request), services.clock())
    answer = RedirectResponse(address, 302)
    secure = request.url.scheme == "https"
    answer.set_cookie(
        oidc.COOKIE,
        cookie,
        max_age=oidc.LIFETIME_SECONDS,
        path="/api/v1/login/oidc",
        secure=secure,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get(
    "/login/oidc/callback",
    operation_id="end_oidc_login",
    dependencies=[PUBLIC],
    response_model=Session,
    responses=responses("oidc_not_configured", "oidc_refused", "oidc_unavailable"),
)
async def end_oidc_login(request: Request, services: ServicesOf) -> Response:
    """Where the identity provider sends the browser back to; answers the session."""
    provider = oidc.provider_of(services)
    identity = await provider.end(request.url, request.cookies.get(oidc.COOKIE, ""), services.clock())
    async with services.database.begin() as session:
        user = await users.from_identity_provider(
            session,
            subject=identity.subject,
            name=identity.name,
            role=identity.role,
            ad_ids=await oidc.ads_named(session, identity.ads),
            now=services.clock(),
        )
    if user is None:
        raise Refused("oidc_refused", "the user is disabled here")
    answer = await _begin_session(services, user, "user.login")
    answer.delete_cookie(oidc.COOKIE, path="/api/v1/login/oidc")
    return answer


def _callback(request: Request) -> str:
    return str(request.url_for("end_oidc_login"))
