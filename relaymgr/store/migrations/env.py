"""What Alembic runs: the migrations on the connection, and within the transaction, of `relaymgr.store.migrations`."""

from __future__ import annotations

from alembic import context

from relaymgr.store.tables import Table

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations with `relaymgr db upgrade`")
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
context.run_migrations()
