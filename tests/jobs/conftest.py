"""Databases for the tests of jobs."""

from __future__ import annotations

from databases import database, database_url, empty_database_url

__all__ = ["database", "database_url", "empty_database_url"]
