"""How revisions reach one tenant database, or are written down as SQL.

In a program: ``config.attributes["connection"]`` is an open SQLAlchemy connection to the tenant's
database, and ``config.attributes["roles"]`` maps ``owner``, ``app``, ``auditor`` and ``reader`` to
roles that exist; everything is made as ``owner``. By hand: ``alembic -x url=… [-x owner=… -x
app=…]``, where a role that is not named is the one that connects. ``alembic -x owner=… upgrade
head --sql`` prints the SQL: a role that is not named is the owner.
"""

from collections.abc import Callable, Iterable, Iterator

from alembic import context
from alembic.runtime.migration import MigrationContext, RevisionStep
from sqlalchemy import Connection, create_engine, pool

ROLES = ("owner", "app", "auditor", "reader")
VERSION_SCHEMA = "public"
Steps = Callable[[tuple[str, ...], MigrationContext], Iterable[RevisionStep]]
# A revision that waits for a lock would stop every query behind it; it gives up and is tried again.
SESSION = (
    "SET lock_timeout = '5s'",
    "SET statement_timeout = '10min'",
    "SET idle_in_transaction_session_timeout = '1min'",
    # Nothing a tenant made is found by an unqualified name: revisions name the schema.
    "SET search_path = pg_catalog",
)


def run_offline(roles: dict[str, str]) -> None:
    """Write the SQL down; whoever runs it chooses the role, the timeouts and the search_path."""
    if "owner" not in roles:
        raise SystemExit("there is no connection to ask; name the owner: alembic -x owner=ROLE …")
    context.config.attributes["roles"] = {role: roles.get(role, roles["owner"]) for role in ROLES}
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        transaction_per_migration=True,
        version_table_schema=VERSION_SCHEMA,
    )
    with context.begin_transaction():
        context.run_migrations()


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
    if "owner" in roles:
        choose_role_per_revision(connection, named["owner"])
    with context.begin_transaction():
        context.run_migrations()


def choose_role_per_revision(connection: Connection, owner: str) -> None:
    """The owner makes everything, but a revision marked ``privileged`` runs as who connects."""
    migrations = context.get_context()
    # Alembic has no public hook that runs before a revision.
    steps: Steps = migrations._migrations_fn  # type: ignore[assignment]  # noqa: SLF001
    owner = connection.dialect.identifier_preparer.quote(owner)

    def announced(heads: tuple[str, ...], place: MigrationContext) -> Iterator[RevisionStep]:
        for step in steps(heads, place):
            privileged = getattr(step.revision.module, "privileged", False)
            connection.exec_driver_sql("RESET ROLE" if privileged else f"SET ROLE {owner}")
            connection.commit()
            yield step

    migrations._migrations_fn = announced  # noqa: SLF001


def run_by_hand(arguments: dict[str, str], roles: dict[str, str]) -> None:
    """Connect to the ``url`` given with ``-x`` and bring it to the wanted revision."""
    if "url" not in arguments:
        raise SystemExit("name the database: alembic -x url=postgresql+psycopg://… upgrade head")
    engine = create_engine(arguments["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        run_online(connection, roles)


said = context.get_x_argument(as_dictionary=True)
given_roles = context.config.attributes.get("roles")
if given_roles is None:
    given_roles = {role: said[role] for role in ROLES if role in said}
given = context.config.attributes.get("connection")
if context.is_offline_mode():
    run_offline(given_roles)
elif given is None:
    run_by_hand(said, given_roles)
else:
    run_online(given, given_roles)
