"""The backup login of a tenant: opened for the time of a dump or a comparison, closed otherwise.

It reads everything in its own database, row security and large objects of any owner included, and
may change nothing. What a tenant left behind can run with these rights at most (S-08).
"""

from control_plane.adapters import scram
from control_plane.adapters.admin_sessions import terminate_logins
from control_plane.adapters.administrator import abilities, attributes, guarded_settings
from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import fill
from control_plane.config import Secret
from control_plane.domain.errors import ObjectInUse
from control_plane.domain.names import RoleSet

# A password of 256 random bits that lives for minutes; see migrator_lease.
_ITERATIONS = 8
# Sessions that have begun by then go on for as long as they need.
_MINUTES = 30

_UNTIL = "SELECT (clock_timestamp() + make_interval(mins => $1))::text"
# Set each time, for roles that an older version made. lc_messages: pg_dump tells what went wrong
# in the server's words only.
_SETTINGS: dict[str, str | int] = {"lo_compat_privileges": "on", "lc_messages": "C"}
_OPEN = """
ALTER ROLE {backup} SET client_connection_check_interval = '1s';
ALTER ROLE {backup} LOGIN PASSWORD {verifier} VALID UNTIL '%s' {past_policies};
"""
# It has one password at a time: a copy of the tenant may be compared while the tenant is dumped.
_TAKE = "SELECT pg_try_advisory_lock(hashtextextended('cp:backup_login:' || $1, 0))"
_GIVE_BACK = "SELECT pg_advisory_unlock(hashtextextended('cp:backup_login:' || $1, 0))"
_CLOSE = "ALTER ROLE {backup} NOLOGIN PASSWORD NULL;"


async def open_backup_login(admin: Connection, roles: RoleSet) -> Secret:
    """Let the backup login in; its password until ``close_backup_login``, or for half an hour.

    ``admin`` is an administrator's, to ``postgres``; it is the only one that has the login until
    it closes it, or ends.

    Raises:
        ObjectInUse: somebody else has it.
    """
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    with translated():
        if not await admin.fetchval(_TAKE, roles.backup):
            raise ObjectInUse(
                "the tenant's backup login is in use: it is being dumped, copied or compared"
            )
        until = await admin.fetchval(_UNTIL, _MINUTES)
        may = await abilities(admin)
        opened = fill(
            _OPEN,
            backup=roles.backup,
            verifier=verifier,
            past_policies=attributes(may, past_policies=True),
        )
        await admin.execute(guarded_settings(may, roles.backup, _SETTINGS) + opened % until)
    return password


async def close_backup_login(admin: Connection, roles: RoleSet) -> None:
    """Keep the backup login out and end its sessions.

    Raises:
        ObjectInUse: a session of it does not end.
    """
    with translated():
        await admin.execute(fill(_CLOSE, backup=roles.backup))
    await terminate_logins(admin, [roles.backup])
    with translated():
        await admin.fetchval(_GIVE_BACK, roles.backup)
