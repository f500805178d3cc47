"""How revisions reach one tenant database.

In a program: ``config.attributes["connection"]`` is an open SQLAlchemy connection to the tenant's
database, and ``config.attributes["roles"]`` maps ``owner``, ``app`` and ``auditor`` to roles that
exist; everything is made as ``owner``. By hand: ``alembic -x url=… [-x owner=… -x app=…]``, where
a role that is not named is the one that connects.
"""

from alembic import context
from sqlalchemy import Connection, create_engine, pool

ROLES = ("owner", "app", "auditor")
VERSION_SCHEMA = "public"
# A revision that waits for a lock would stop every query behind it; it gives up and is tried again.
SESSION = (
    "SET lock_timeout = '5s'",
    "SET statement_timeout = '10min'",
    "SET idle_in_transaction_session_timeout = '1min'",
    # Nothing a tenant made is found by an unqualified name: revisions name the schema.
    "SET search_path = pg_catalog",
)


def run_online(connection: Connection, roles: dict[str, str]) -> None:
    """Bring the database behind ``connection`` to the wanted revision, each in a transaction."""
    for statement in SESSION:
        connection.exec_driver_sql(statement)
    who = str(connection.exec_driver_sql("SELECT current_user").scalar_one())
    if "owner" in roles:
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"SET ROLE {quote(roles['owner'])}")
    connection.commit()
    named = {role: roles.get(role, roles.get("owner", who)) for role in ROLES}
    context.config.attributes["roles"] = named
    context.configure(
        connection=connection,
        transaction_per_migration=True,
        version_table_schema=VERSION_SCHEMA,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_by_hand() -> None:
    """Connect to the ``url`` given with ``-x`` and bring it to the wanted revision."""
    arguments = context.get_x_argument(as_dictionary=True)
    if "url" not in arguments:
        raise SystemExit("name the database: alembic -x url=postgresql+psycopg://… upgrade head")
    engine = create_engine(arguments["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        run_online(connection, {role: arguments[role] for role in ROLES if role in arguments})


if context.is_offline_mode():
    raise SystemExit("revisions look at the database they change; give a connection, not --sql")
given = context.config.attributes.get("connection")
if given is None:
    run_by_hand()
else:
    run_online(given, context.config.attributes["roles"])
