"""The migrators' logins: opened for the minutes of a migration, closed otherwise.

A migration runs as the tenant's own ``…_mig``, which may become the owner and nothing else, so
that nothing a tenant left in its database can run as an administrator (S-08).
"""

from collections.abc import Mapping, Sequence

from control_plane.adapters import scram
from control_plane.adapters.postgres_server import Connection, ServerAddress, connect, translated
from control_plane.adapters.sql_text import fill
from control_plane.config import Secret
from control_plane.domain.names import RoleSet

# A password of 256 random bits that lives for minutes: iterations would only cost time, on both
# sides, for ALTER ROLE spends them too, to refuse an empty password.
_ITERATIONS = 8
_MINUTES = 30

_UNTIL = "SELECT (clock_timestamp() + make_interval(mins => $1))::text"
_OPEN = "ALTER ROLE {migrator} LOGIN PASSWORD {verifier} VALID UNTIL '%s';"
_CLOSE = "ALTER ROLE {migrator} NOLOGIN PASSWORD NULL;"
_OPEN_ONES = "SELECT rolname FROM pg_roles WHERE rolname = ANY ($1::text[]) AND rolcanlogin"
_LACKING = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regrole(name) IS NULL"


async def open_migrators(connection: Connection, role_sets: Sequence[RoleSet]) -> Secret:
    """Let these migrators in for half an hour; the password they share until then.

    ``connection`` is an administrator's, to any database of their server.
    """
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    with translated():
        until = await connection.fetchval(_UNTIL, _MINUTES)
        await connection.execute(
            "".join(
                fill(_OPEN, migrator=roles.migrator, verifier=verifier) % until
                for roles in role_sets
            )
        )
    return password


async def close_migrators(connection: Connection, role_sets: Sequence[RoleSet]) -> None:
    """Keep these migrators out from now on; sessions they still have go on."""
    if role_sets:
        with translated():
            await connection.execute(
                "".join(fill(_CLOSE, migrator=roles.migrator) for roles in role_sets)
            )


async def open_ones(connection: Connection, role_sets: Sequence[RoleSet]) -> list[RoleSet]:
    """Those whose migrator may log in."""
    named = {roles.migrator: roles for roles in role_sets}
    with translated():
        rows = await connection.fetch(_OPEN_ONES, list(named))
    return [named[row["rolname"]] for row in rows]


async def lacking_roles(connection: Connection, role_sets: Sequence[RoleSet]) -> list[RoleSet]:
    """Those whose roles were made before one of the roles of today was thought of."""
    named = {name: roles for roles in role_sets for name in roles.every}
    with translated():
        rows = await connection.fetch(_LACKING, list(named))
    return list(dict.fromkeys(named[row["name"]] for row in rows))


async def connect_as_owner(
    address: ServerAddress,
    database: str,
    roles: RoleSet,
    password: Secret,
    session_name: str,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """A session of the migrator that acts as the owner of the tenant's objects.

    Raises:
        ServerUnavailable, ServerRefused: see ``connect``.
    """
    return await connect(
        address.for_login(roles.migrator, password),
        database,
        session_name,
        settings={"role": roles.owner, **(settings or {})},
    )
