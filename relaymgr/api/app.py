"""The application: every resource of the manager over HTTP."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI

from relaymgr.api.boundary import Boundary
from relaymgr.api.description import DESCRIPTION, describe
from relaymgr.api.limits import LoginLimiter
from relaymgr.api.metrics import RequestMetrics, StateMetrics
from relaymgr.api.problems import install
from relaymgr.api.routes import (
    ads,
    backups,
    changes,
    credentials,
    events,
    history,
    intents,
    jobs,
    login,
    observed,
    plans,
    relays,
    rollouts,
    sites,
    system,
    tokens,
    users,
)
from relaymgr.api.services import Services

ROUTERS: Final[tuple[APIRouter, ...]] = (
    system.router,
    login.router,
    ads.router,
    sites.router,
    credentials.router,
    relays.router,
    intents.router,
    changes.router,
    plans.router,
    jobs.router,
    rollouts.router,
    observed.router,
    history.router,
    backups.router,
    events.router,
    tokens.router,
    users.router,
)


def create_app(services: Services) -> FastAPI:
    """The API over `services`; the caller starts and stops what is in them."""
    app = FastAPI(
        title="relaymgr",
        version="1",
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.login_limiter = LoginLimiter()
    app.state.state_metrics = StateMetrics(services.metrics)
    install(app)
    secure = services.settings.tls_certificate is not None
    app.add_middleware(Boundary, observe=RequestMetrics(services.metrics).observe, secure=secure)
    for router in ROUTERS:
        app.include_router(router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(FastAPI.openapi(app))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
