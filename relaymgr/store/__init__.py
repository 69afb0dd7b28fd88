"""The database: tables, sessions, migrations, sealed secrets, and one module of queries for each concern."""
