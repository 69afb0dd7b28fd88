"""The HTTP application: routes, errors, token."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import Depends, FastAPI, Security
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer

from agent.service.api import configuring, observing, steering
from agent.service.api.limits import RequestLimits
from agent.service.api.metrics import CONTENT_TYPE, render_metrics
from agent.service.api.problems import install, problems_as_problems, responses
from agent.service.api.security import RequireToken, TokenFile
from agent.service.configuration_store import ConfigurationStore
from agent.service.port import AgentService

_DESCRIPTION: Final = """\
Observe and steer one amt-agent. Served on a unix socket or a loopback address in clear, on anything else with TLS and a
bearer token. Times are UTC, durations seconds. Errors are problem+json with a stable `code`.
"""


def program_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("isthmus")
    except PackageNotFoundError:
        return "0"


def create_app(service: AgentService, store: ConfigurationStore, token: TokenFile | None = None) -> FastAPI:
    """The application over a running agent.

    Args:
        service: the daemon.
        store: its configuration.
        token: bearer token every route but /healthz needs; None where the listener itself keeps strangers out.
    """
    app = FastAPI(
        title="amt-agent",
        version="1",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    install(app)
    app.add_middleware(RequestLimits)
    bearer = HTTPBearer(auto_error=False, description="Token of `[api] token_file`; not needed on a unix socket.")
    guarded = [Security(bearer), Depends(RequireToken(token))]
    for routes in (observing.router(service), steering.router(service), configuring.router(store)):
        app.include_router(routes, dependencies=guarded)

    @app.get(
        "/metrics",
        operation_id="get_metrics",
        summary="Metrics for Prometheus",
        tags=["observing"],
        dependencies=guarded,
        response_class=PlainTextResponse,
        responses=responses(),
    )
    async def get_metrics() -> Response:
        return Response(await render_metrics(service), media_type=CONTENT_TYPE)

    @app.get(
        "/healthz",
        operation_id="get_health",
        summary="Whether the agent is ready",
        tags=["observing"],
        responses={503: {"description": "Not ready: interfaces, sockets or engine are not all up."}},
    )
    async def get_health() -> JSONResponse:
        ready = service.status().ready
        return JSONResponse({"status": "ok" if ready else "starting"}, 200 if ready else 503)

    def openapi() -> dict[str, Any]:
        return problems_as_problems(FastAPI.openapi(app))

    app.openapi = openapi  # type: ignore[method-assign]
    return app
