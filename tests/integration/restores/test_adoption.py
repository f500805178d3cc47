"""A backup of one tenant that becomes another tenant's database."""

from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from control_plane.adapters import scratch_examination, tenant_roles
from control_plane.adapters.adopt_roles import adopt_roles
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.schema_fingerprint import read_fingerprint, role_names
from control_plane.adapters.scratch_examination import Examination
from control_plane.adapters.tenant_schema import verify_tenant_database
from control_plane.domain.backups import differences
from control_plane.domain.errors import SchemaMismatch
from control_plane.domain.names import RoleSet
from tests.integration.restores.restoring import Scratch, back_up, drop, restore, serve
from tests.integration.tenant_server.clinic import LIMITS, REVISION, Clinic, Place, provision

DEPENDENTS = """
SELECT DISTINCT r.rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
 WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY ($1)
   AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
OWNERS = """
SELECT 'large object ' || oid, lomowner::regrole::text, lomacl::text FROM pg_largeobject_metadata
UNION ALL
SELECT 'mapping ' || srvname, umuser::regrole::text, NULL
  FROM pg_user_mapping JOIN pg_foreign_server s ON s.oid = umserver
UNION ALL
SELECT 'extension ' || extname, extowner::regrole::text, NULL FROM pg_extension
UNION ALL
SELECT 'wrapper ' || fdwname, fdwowner::regrole::text,
       coalesce(fdwacl, acldefault('F', fdwowner))::text FROM pg_foreign_data_wrapper
UNION ALL
SELECT 'server ' || srvname, srvowner::regrole::text, srvacl::text FROM pg_foreign_server
UNION ALL
SELECT oid::regprocedure::text, proowner::regrole::text,
       (SELECT string_agg(item::text, ',' ORDER BY item::text) FROM unnest(proacl) AS item)
  FROM pg_proc WHERE proacl IS NOT NULL
"""


async def new_roles(place: Place) -> RoleSet:
    roles = RoleSet(uuid4())
    admin = await place.server.admin()
    await tenant_roles.ensure_role_set(admin, roles, LIMITS)
    await admin.close()
    return roles


async def adopted(scratch: Scratch, times: int = 1) -> RoleSet:
    roles = await new_roles(scratch.place)
    async with scratch.inside() as inside:
        for _ in range(times):
            await adopt_roles(inside, scratch.backup.roles, roles)
    return roles


async def owners(scratch: Scratch | Clinic, roles: RoleSet) -> set[tuple[str, str, str]]:
    """What the fingerprint of the schema does not tell, in the words of no tenant."""
    async with scratch.inside() as inside:
        rows = await inside.fetch(OWNERS)
    return {tuple(str(value).replace(roles.prefix, "t") for value in row) for row in rows}  # type: ignore[misc]  # three columns


async def test_everything_changes_hands(
    place: Place, filled: dict[int, Clinic], store: FileStore, tmp_path: Path
) -> None:
    clinic = filled[place.server.version]
    before = await owners(clinic, clinic.roles)
    backup = await back_up(clinic, store)
    scratch = await restore(backup, place, tmp_path)
    assert await owners(scratch, clinic.roles) == before
    roles = await adopted(scratch, times=2)
    assert differences(backup.manifest.content, await scratch.content(roles)) == []
    async with scratch.inside() as inside:
        # The same schema, in the words that stand for a tenant's roles.
        found = await scratch_examination.examine(inside, backup.manifest, roles)
        assert found == Examination([], checked=True)
        assert await inside.fetch(DEPENDENTS, list(clinic.roles.every)) == []
        named = {row[0] for row in await inside.fetch(DEPENDENTS, list(roles.every))}
        assert named == {*roles.every} - {roles.login_b, roles.migrator}
    assert await owners(scratch, roles) == before
    # Its own tenant, on the same server, has lost nothing.
    async with clinic.inside() as inside:
        fingerprint = await read_fingerprint(inside, role_names(clinic.roles))
        assert fingerprint == backup.manifest.schema_fingerprint
    await drop(scratch)
    admin = await place.server.admin()
    await tenant_roles.drop_role_set(admin, roles, place.system_identifier)
    await admin.close()


async def test_the_new_tenant_is_a_clinic(place: Place, store: FileStore, tmp_path: Path) -> None:
    source = await provision(place)
    scratch = await restore(await back_up(source, store), place, tmp_path)
    roles = await adopted(scratch)
    await serve(scratch, roles, roles.key)
    identity = msgspec.structs.replace(source.identity, tenant_id=roles.key)
    async with scratch.inside() as inside:
        await verify_tenant_database(inside, roles, identity, REVISION)
    assert await owners(scratch, roles) == await owners(source, source.roles)


async def test_what_cannot_change_hands_is_said(
    place: Place, store: FileStore, tmp_path: Path
) -> None:
    source = await provision(place)
    scratch = await restore(await back_up(source, store), place, tmp_path)
    admin = await place.server.admin()
    await admin.execute(f"GRANT CONNECT ON DATABASE {scratch.database} TO {source.roles.app}")
    await admin.close()
    with pytest.raises(SchemaMismatch, match=f"{source.roles.app} database"):
        await adopted(scratch)
