"""Every test of the store runs on both databases."""

from __future__ import annotations

from databases import database, database_url, empty_database_url

__all__ = ["database", "database_url", "empty_database_url"]
