"""The application: every resource of the manager over HTTP."""

from __future__ import annotations

from fastapi import FastAPI

from relaymgr.api.services import Services


def create_app(services: Services) -> FastAPI:
    """The API over `services`."""
    app = FastAPI(title="relaymgr", version="1")
    app.state.services = services
    return app
