"""What is inside a tenant's database: who owns it, and the proof that it is what it must be."""

from control_plane.adapters.adopt_roles import hand_over
from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.powerless import read_powerless
from control_plane.adapters.sql_text import load
from control_plane.adapters.tenant_database import Identity, read_identity
from control_plane.domain import names
from control_plane.domain.errors import SchemaMismatch, ServerRefused, TenantMismatch

_REVISION = """
SELECT to_jsonb(string_agg(version_num::text, ',' ORDER BY version_num))
  FROM public.alembic_version
"""
_PLACEHOLDERS = (
    names.TEMPLATE_OWNER,
    names.TEMPLATE_APP,
    names.TEMPLATE_AUDITOR,
    names.TEMPLATE_READER,
)


async def adopt_template(connection: Connection, roles: names.RoleSet) -> None:
    """Hand the database ``connection`` is in from the template's placeholders to the tenant.

    Ownership, every privilege, default privilege and policy that names a placeholder is given to
    the tenant's role instead, and the backup role may read everything. One transaction; a second
    call changes nothing.
    """
    heirs = (roles.owner, roles.app, roles.auditor, roles.reader)
    await hand_over(connection, dict(zip(_PLACEHOLDERS, heirs, strict=True)), roles)


async def verify_tenant_database(
    connection: Connection, roles: names.RoleSet, expected: Identity, revision: str
) -> None:
    """Compare the database ``connection`` is in with what the catalog says it must be.

    Raises:
        TenantMismatch: it is another tenant's, another generation, or on another server.
        SchemaMismatch: revision, owners, privileges, roles or indexes differ; the message lists
            every difference.
    """
    found = await read_identity(connection)
    with translated():
        differences = await _differences(connection, roles)
        # Without our own schema there is no safe way to ask, and nothing is right anyway.
        if found is not None:
            differences += await _revision_differences(connection, roles, revision)
        server = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    if found != expected or server != expected.system_identifier:
        differences.insert(0, f"expected {expected}, found {found} on server {server}")
        raise TenantMismatch("; ".join(differences))
    if differences:
        raise SchemaMismatch("; ".join(differences))


async def _differences(connection: Connection, roles: names.RoleSet) -> list[str]:
    rows = await connection.fetch(
        load("tenant_differences"),
        roles.owner,
        roles.app,
        list(roles.logins),
        roles.migrator,
        roles.backup,
        roles.auditor,
        names.DATABASE_OWNER,
        list(_PLACEHOLDERS),
        roles.reader,
    )
    return [row["difference"] for row in rows]


async def _revision_differences(
    connection: Connection, roles: names.RoleSet, revision: str
) -> list[str]:
    try:
        found = await _revision(connection, roles)
    except ServerRefused as error:
        return [f"its revision cannot be read: {error.message}"]
    return [] if found == revision else [f"revision {found or 'none'}, not {revision}"]


async def _revision(connection: Connection, roles: names.RoleSet) -> str | None:
    if await connection.fetchval("SELECT to_regclass('public.alembic_version') IS NULL"):
        return None
    return await read_powerless(connection, roles.backup, _REVISION, str)
