"""The backup role's login: opened for the time of a dump or a copy, closed otherwise.

It may read everything of its tenant and write nothing, so that whatever runs while rows are read
runs without an administrator's rights (S-08).
"""

from control_plane.adapters import scram
from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import fill
from control_plane.config import Secret
from control_plane.domain.names import RoleSet

# A password of 256 random bits that lives for one dump; see migrator_lease.
_ITERATIONS = 8

_OPEN = "ALTER ROLE {backup} LOGIN PASSWORD {verifier};"
_CLOSE = "ALTER ROLE {backup} NOLOGIN PASSWORD NULL;"


async def open_backup_login(admin: Connection, roles: RoleSet) -> Secret:
    """Let the tenant's backup role in; its password until ``close_backup_login``."""
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    with translated():
        await admin.execute(fill(_OPEN, backup=roles.backup, verifier=verifier))
    return password


async def close_backup_login(admin: Connection, roles: RoleSet) -> None:
    """Keep the backup role out from now on; sessions it still has go on."""
    with translated():
        await admin.execute(fill(_CLOSE, backup=roles.backup))
