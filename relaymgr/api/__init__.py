"""The HTTP API: FastAPI application, version 1."""
