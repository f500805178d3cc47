"""A dump that fails leaves nothing in the store, no program, no session, and says what it was."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from control_plane.adapters.backup_login import open_backup_login
from control_plane.adapters.database_content import read_content
from control_plane.adapters.dump import DumpProgress, dump_to_store
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.tenant_roles import bootstrap_server
from control_plane.domain.errors import (
    DumpFailed,
    ObjectInUse,
    ServerRefused,
    ServerUnavailable,
    StoreRefused,
    StoreUnavailable,
)
from tests.integration.backups.dumping import (
    as_backup,
    as_owner,
    dumped,
    filled_clinic,
    halfway,
    job_for,
    pg_dumps,
)
from tests.integration.tenant_server.clinic import (
    Clinic,
    Place,
    built_template,
    system_identifier_of,
)
from tests.integration.tenant_server.postgres_fixture import running_server

DROP = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"


@pytest.fixture(autouse=True)
async def nothing_stays(store: FileStore) -> AsyncIterator[None]:
    """Whatever a test here did."""
    yield
    assert list(store.list("")) == []
    assert list(store.pending("")) == []
    assert pg_dumps() == []


async def test_pg_dump_killed(clinic: Clinic, store: FileStore) -> None:
    async def kill() -> None:
        (process,) = pg_dumps()
        process.kill()

    with pytest.raises(DumpFailed, match="pg_dump was ended by signal 9"):
        await dumped(clinic, store, halfway(kill))
    async with clinic.inside() as inside:
        assert await inside.fetchval(SESSIONS, clinic.roles.backup) == 0


async def test_the_connection_that_copies_is_dropped(clinic: Clinic, store: FileStore) -> None:
    async with clinic.inside() as inside:

        async def drop() -> None:
            assert await inside.fetch(f"{DROP} AND starts_with(query, 'COPY')", clinic.roles.backup)

        with pytest.raises(ServerUnavailable) as caught:
            await dumped(clinic, store, halfway(drop))
        assert caught.value.retryable
        assert await inside.fetchval(SESSIONS, clinic.roles.backup) == 0


async def test_the_connection_that_reads_content_is_dropped(
    clinic: Clinic, store: FileStore
) -> None:
    """Between two tables: nothing else happens in the loop while it is told of the first."""
    server = clinic.place.server
    address = server.address()
    dropped: list[object] = []
    with psycopg.connect(
        host="127.0.0.1",
        port=address.port,
        user=address.user,
        password=address.password.reveal(),
        dbname=clinic.database,
        autocommit=True,
    ) as admin:

        def told(progress: DumpProgress) -> None:
            if progress.content and not dropped:
                drop = DROP.replace("$1", "%s") + " AND starts_with(query, 'SELECT count(*)')"
                dropped.extend(admin.execute(drop, [clinic.roles.backup]))

        with pytest.raises(ServerUnavailable):
            await dumped(clinic, store, told)
    assert dropped


async def test_a_server_that_crashes(store: FileStore) -> None:
    with running_server(15) as server:
        admin = await server.admin()
        await bootstrap_server(admin)
        system_identifier = await system_identifier_of(admin)
        template = await built_template(server, system_identifier)
        clinic = await filled_clinic(Place(server, template, system_identifier))
        postmaster = await admin.fetchval(
            "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::integer"
        )

        async def crash() -> None:
            os.kill(postmaster, signal.SIGQUIT)

        password = await open_backup_login(admin, clinic.roles)
        login = server.address().for_login(clinic.roles.backup, password)
        with pytest.raises(ServerUnavailable):
            await dump_to_store(job_for(clinic, login, store), halfway(crash))
        admin.terminate()


async def test_a_worker_that_is_told_to_stop(clinic: Clinic, store: FileStore) -> None:
    async with as_backup(clinic) as address:
        job = job_for(clinic, address, store)

        async def stop() -> None:
            dumping.cancel()

        dumping = asyncio.create_task(dump_to_store(job, halfway(stop)))
        with pytest.raises(asyncio.CancelledError):
            await dumping
        assert pg_dumps() == []


async def test_a_store_that_loses_the_upload(
    clinic: Clinic, store: FileStore, tmp_path: Path
) -> None:
    async def lose() -> None:
        shutil.rmtree(tmp_path / "store" / ".pending")

    with pytest.raises(StoreUnavailable):
        await dumped(clinic, store, halfway(lose))


async def test_a_store_that_is_not_there(clinic: Clinic, tmp_path: Path) -> None:
    away = FileStore(tmp_path / "not mounted")
    with pytest.raises(StoreRefused, match="not mounted"):
        await dumped(clinic, away)


async def test_somebody_who_holds_a_table(clinic: Clinic, store: FileStore) -> None:
    async with as_owner(clinic) as owner, owner.transaction():
        await owner.execute("LOCK TABLE zoo.parent IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ObjectInUse) as caught:
            await dumped(clinic, store)
    assert caught.value.retryable


async def test_what_the_login_may_not_read_is_named(clinic: Clinic, store: FileStore) -> None:
    async with clinic.inside() as inside:
        await inside.execute('CREATE SCHEMA hidden; CREATE TABLE hidden."My notes" (words text)')
        await inside.execute("CREATE SEQUENCE public.hidden_too")
        try:
            with pytest.raises(DumpFailed) as caught:
                await dumped(clinic, store)
        finally:
            await inside.execute("DROP SCHEMA hidden CASCADE; DROP SEQUENCE public.hidden_too")
    login = clinic.roles.backup
    assert caught.value.message == (
        f'{login} may not read hidden."My notes", public.hidden_too; let whoever owns it GRANT '
        f"SELECT on it, and USAGE on its schema, TO {login}"
    )


async def test_what_owners_make_later_is_readable(clinic: Clinic, store: FileStore) -> None:
    """The owner and the auditor, in schemas that were there and in new ones."""
    roles = clinic.roles
    makes = "CREATE SCHEMA {0}; CREATE TABLE {0}.t AS SELECT 1 AS i; CREATE SEQUENCE {0}.s"
    async with clinic.inside() as inside:
        await inside.execute(f"GRANT CREATE ON DATABASE {clinic.database} TO {roles.auditor}")
        try:
            for role, schema in ((roles.owner, "later"), (roles.auditor, "audit_later")):
                await inside.execute(f"SET ROLE {role}")
                await inside.execute(makes.format(schema))
                await inside.execute("RESET ROLE")
            result, _ = await dumped(clinic, store)
        finally:
            await inside.execute("DROP SCHEMA IF EXISTS later, audit_later CASCADE")
            await inside.execute(
                f"REVOKE CREATE ON DATABASE {clinic.database} FROM {roles.auditor}"
            )
    assert {"later.t", "audit_later.t"} <= result.content.tables.keys()
    assert {"later.s", "audit_later.s"} <= result.content.sequences.keys()
    await asyncio.to_thread(store.delete, [found.key for found in store.list("")])


async def test_a_closed_login(clinic: Clinic, store: FileStore) -> None:
    async with as_backup(clinic) as address:
        pass
    with pytest.raises(ServerRefused):
        await dump_to_store(job_for(clinic, address, store), lambda _: None)


async def test_content_is_read_by_logins_without_rights(clinic: Clinic) -> None:
    server = clinic.place.server
    with pytest.raises(ServerRefused, match="superuser"):
        await read_content(server.address(), clinic.database, "cp:dumptest:1")
