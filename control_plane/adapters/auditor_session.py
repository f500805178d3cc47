"""Sessions of a tenant's auditor, who may do with its audit log what is done there, and no more.

The log's functions and tables are in the tenant's database: whoever loaded it or applied changes to
it may have put others in their place (S-08), so that no administrator calls them or reads them.
"""

from control_plane.adapters import scram
from control_plane.adapters.postgres_server import Connection, ServerAddress, connect, translated
from control_plane.adapters.sql_text import fill
from control_plane.domain.names import RoleSet

# A password of 256 random bits that lives for a moment; see migrator_lease.
_ITERATIONS = 8
_MINUTES = 5

_UNTIL = "SELECT (clock_timestamp() + make_interval(mins => $1))::text"
_OPEN = """
GRANT CONNECT ON DATABASE {database} TO {auditor};
ALTER ROLE {auditor} LOGIN PASSWORD {verifier} VALID UNTIL '%s';
"""
_CLOSE = """
ALTER ROLE {auditor} NOLOGIN PASSWORD NULL;
REVOKE CONNECT ON DATABASE {database} FROM {auditor};
"""
# It has one password at a time, for as long as it takes to connect.
_TAKE = "SELECT pg_advisory_lock(hashtextextended('cp:auditor:' || $1, 0))"
_GIVE_BACK = "SELECT pg_advisory_unlock(hashtextextended('cp:auditor:' || $1, 0))"


async def connect_as_auditor(
    admin: Connection, address: ServerAddress, database: str, roles: RoleSet, session_name: str
) -> Connection:
    """A session of the auditor in a tenant's database.

    ``admin`` is an administrator's, to ``postgres`` on the server at ``address``. The auditor can
    log in only until it has.

    Raises:
        ObjectInUse: somebody else keeps the auditor's login for longer than a lock is waited for.
        ServerUnavailable, ServerRefused: see ``connect``.
    """
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    opened = fill(_OPEN, database=database, auditor=roles.auditor, verifier=verifier)
    with translated():
        await admin.execute(_TAKE, roles.auditor)
        try:
            until = await admin.fetchval(_UNTIL, _MINUTES)
            await admin.execute(opened % until)
            login = address.for_login(roles.auditor, password)
            return await connect(login, database, session_name)
        finally:
            await _close(admin, database, roles)


async def _close(admin: Connection, database: str, roles: RoleSet) -> None:
    if admin.is_closed():
        return
    try:
        await admin.execute(fill(_CLOSE, database=database, auditor=roles.auditor))
    finally:
        await admin.execute(_GIVE_BACK, roles.auditor)
