"""The least that a role-aware environment is."""

from alembic import context
from sqlalchemy import Connection


def configure(connection: Connection | None) -> None:
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        transaction_per_migration=True,
        version_table_schema="public",
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online(connection: Connection) -> None:
    owner = context.config.attributes["roles"]["owner"]
    connection.exec_driver_sql("SET search_path = pg_catalog")
    connection.exec_driver_sql(f"SET ROLE {owner}")
    connection.commit()
    configure(connection)


if context.is_offline_mode():
    configure(None)
else:
    run_online(context.config.attributes["connection"])
