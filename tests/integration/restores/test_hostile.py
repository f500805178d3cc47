"""Backups of tenants that want to do something to whoever restores them (S-08, S-09)."""

from pathlib import Path

import asyncpg
import pytest

from control_plane.adapters import scratch_examination
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.postgres_server import Connection
from tests.integration.restores.restoring import HERE, back_up, drop, restore
from tests.integration.tenant_server.clinic import Clinic, Place, leased, provision

SETTINGS = """
SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
 WHERE datname = current_database()
"""


MEMBERS = """
SELECT pg_get_userbyid(member) FROM pg_auth_members
 WHERE pg_get_userbyid(roleid) = ANY ($1) AND pg_get_userbyid(member) = ANY ($2)
"""


async def plant(clinic: Clinic, file: str, **values: object) -> None:
    """As the tenant's own migrations would: nothing of it may work for an administrator."""
    roles = {"owner": clinic.roles.owner, "login_a": clinic.roles.login_a}
    admin = await clinic.place.server.admin()
    async with leased(admin, clinic, clinic.roles.migrator) as migrator:
        await migrator.execute((HERE / file).read_text() % (roles | values))
    await admin.close()


async def called(inside: Connection, sequence: str) -> int:
    """How often a sequence of the trap was asked."""
    found = await inside.fetchval(
        "SELECT coalesce(pg_sequence_last_value($1::text::regclass), 0)", f"trap.{sequence}"
    )
    assert isinstance(found, int)
    return found


async def test_what_is_planted_runs_without_rights(
    place: Place, store: FileStore, tmp_path: Path
) -> None:
    clinic = await provision(place)
    mark = tmp_path / "touched"
    tmp_path.chmod(0o777)
    async with clinic.inside() as inside:
        await inside.execute("CREATE EXTENSION dblink SCHEMA public")
    await plant(clinic, "hostile.sql", mark=mark, port=place.server.port)
    backup = await back_up(clinic, store)
    async with clinic.inside() as inside:
        # Neither does a dump run anything.
        assert await called(inside, "calls") == 0
    scratch = await restore(backup, place, tmp_path)
    async with scratch.inside() as inside:
        seen = await inside.fetch("SELECT place, who = session, who FROM trap.seen")
        assert {tuple(row) for row in seen} == {
            *((place, True, scratch.loader) for place in ("check", "domain", "generated")),
            *((place, False, clinic.roles.owner) for place in ("index", "predicate", "view")),
            ("policy", False, clinic.roles.owner),
            ("statistics", False, clinic.roles.owner),
        }
        before = await called(inside, "calls")
        found = await scratch_examination.examine(inside, backup.manifest, backup.roles)
        assert (found.problems, found.checked) == ([], True)
        # The comparison of indexes has evaluated their expressions.
        assert await called(inside, "calls") > before
        assert await called(inside, "powerful") == 0
        assert await called(inside, "escapes") == 0
    await scratch.content()
    async with scratch.inside() as inside:
        assert await called(inside, "powerful") == 0
        assert await called(inside, "escapes") == 0
        assert (
            await inside.fetchval(
                "SELECT count(*) FROM pg_class WHERE relname LIKE '%touch%' AND relkind = 'r'"
            )
            == 2
        )
    assert not mark.exists()
    await drop(scratch)


async def test_what_the_loader_may_is_gone_with_it(
    place: Place, store: FileStore, tmp_path: Path
) -> None:
    clinic, foreigner = await provision(place), await provision(place)
    await plant(clinic, "grabbing.sql", foreigner=foreigner.roles.login_a)
    backup = await back_up(clinic, store)
    scratch = await restore(backup, place, tmp_path)
    async with scratch.inside() as inside:
        grabbed = await inside.fetch("SELECT what FROM trap.grabbed")
        # The owner of a database may do all this, which is why it is owned for so short a time.
        assert len(grabbed) >= 6
        assert await inside.fetchval(SETTINGS) == 0
        # Membership in the loader is gone with the loader.
        assert (
            await inside.fetch(MEMBERS, list(clinic.roles.every), list(foreigner.roles.every)) == []
        )
        # What it made in the database stays there, and keeps it from every route.
        owner = await inside.fetchval(
            "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'stray'"
        )
        assert owner == clinic.roles.owner
        examined = await scratch_examination.examine(inside, backup.manifest, backup.roles)
        schema, named = examined.problems
        assert named == f"{foreigner.roles.login_a} is named by 1 object(s)"
        assert schema.startswith("the schema is not the one of the backup")
    app = await foreigner.app()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await foreigner.app(scratch.database)
    await app.close()
    await drop(scratch)
