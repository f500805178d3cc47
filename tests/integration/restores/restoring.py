"""Backups of clinics and their restores, made as the verbs make them, one part after the other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import msgspec

from control_plane.adapters import (
    backup_object,
    load,
    scratch_database,
    tenant_database,
    tenant_roles,
)
from control_plane.adapters.backup_login import close_backup_login, open_backup_login
from control_plane.adapters.database_content import read_content
from control_plane.adapters.dump import dump_to_store
from control_plane.adapters.load import LoadJob
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.schema_fingerprint import read_fingerprint, role_names
from control_plane.config import Secret
from control_plane.domain.backups import Content, Manifest
from control_plane.domain.names import RoleSet, database_name
from tests.integration.backups.dumping import KEY, SESSION, as_backup, job_for
from tests.integration.tenant_server.clinic import LIMITS, REVISION, Clinic, Place, provision

HERE = Path(__file__).parent
# The advisory lock that sizeable.sql asks for.
LOCK = 77


@dataclass(frozen=True)
class Backup:
    """A backup in a store; ``KEY`` opens it."""

    manifest: Manifest
    store: FileStore
    key: bytes = KEY

    @property
    def roles(self) -> RoleSet:
        return RoleSet(self.manifest.roles_key)


@dataclass(frozen=True)
class Moved(Clinic):
    """A clinic whose database has another name than its roles."""

    name: str

    @property
    def database(self) -> str:
        return self.name


@dataclass(frozen=True)
class Scratch:
    """A database that a backup is restored into."""

    place: Place
    backup: Backup
    key: UUID
    spool: Path
    program: Path

    @property
    def database(self) -> str:
        return database_name(self.key)

    @property
    def loader(self) -> str:
        return scratch_database.loader_name(self.key)

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[Connection]:
        """The administrator, inside the database."""
        connection = await self.place.server.admin(self.database)
        try:
            yield connection
        finally:
            await connection.close()

    def clinic(self, password: Secret) -> Moved:
        """It, once it is served to the tenant of the backup."""
        return Moved(self.place, self.backup.roles, password, self.database)

    async def content(self, roles: RoleSet | None = None) -> Content:
        """What is in it, read as the verbs do."""
        roles = roles or self.backup.roles
        admin = await self.place.server.admin()
        try:
            await scratch_database.admit_backup_login(admin, self.database, roles)
            password = await open_backup_login(admin, roles)
            address = self.place.server.address().for_login(roles.backup, password)
            return await read_content(address, self.database, SESSION, at_once=2)
        finally:
            await close_backup_login(admin, roles)
            await scratch_database.refuse_backup_login(admin, self.database, roles)
            await admin.close()


async def put_everything(clinic: Clinic) -> None:
    """Every type and every kind of object, into a clinic."""
    roles = ("owner", "app", "auditor", "login_a", "reader", "backup")
    values = {role: getattr(clinic.roles, role) for role in roles}
    async with clinic.inside() as inside:
        for file in ("everything_admin.sql", "everything.sql"):
            await inside.execute((HERE / file).read_text() % values)


async def back_up(clinic: Clinic, store: FileStore) -> Backup:
    async with clinic.inside() as inside:
        fingerprint = await read_fingerprint(inside, role_names(clinic.roles))
    async with as_backup(clinic) as address:
        job = job_for(clinic, address, store)
        dumped = await dump_to_store(job, lambda _: None)
    manifest = Manifest(
        backup_id=job.backup_id,
        tenant_id=job.tenant_id,
        roles_key=clinic.roles.key,
        key_version=job.key_version,
        object_key=job.object_key,
        slug="clinic",
        name="A clinic",
        tier="standard",
        region=None,
        labels={},
        template="clinic",
        template_fingerprint=clinic.place.template.removeprefix("tpl_"),
        schema_revision=REVISION,
        schema_fingerprint=fingerprint,
        generation=1,
        server_name="somewhere",
        system_identifier=clinic.place.system_identifier,
        cause="manual",
        credentials=[],
        **msgspec.structs.asdict(dumped),
    )
    return Backup(manifest, store)


async def back_up_sizeable(place: Place, store: FileStore) -> Backup:
    """Of a clinic whose archive has about 50 MB, and an index that waits for ``LOCK``."""
    clinic = await provision(place)
    async with clinic.inside() as inside:
        await inside.execute((HERE / "sizeable.sql").read_text() % {"owner": clinic.roles.owner})
    return await back_up(clinic, store)


def nobody(_: str) -> None:
    """Who does not listen."""


def scratch_for(backup: Backup, place: Place, folder: Path, program: Path | None = None) -> Scratch:
    found = Programs([place.server.bin]).restore(place.server.version)
    return Scratch(place, backup, uuid4(), folder / "spool" / uuid4().hex, program or found)


async def load_into(scratch: Scratch, told: Callable[[str], None] = nobody) -> None:
    """What the verbs do until the loader is gone again."""
    place, backup, roles = scratch.place, scratch.backup, scratch.backup.roles
    admin = await place.server.admin()
    try:
        await tenant_roles.ensure_role_set(admin, roles, LIMITS)
        await asyncio.to_thread(
            backup_object.fetch, backup.store, backup.manifest, backup.key, scratch.spool
        )
        await scratch_database.create_scratch(
            admin,
            scratch.database,
            backup.manifest,
            roles,
            scratch.loader,
            place.system_identifier,
        )
        async with scratch.inside() as inside:
            await scratch_database.furnish_scratch(inside, backup.manifest, roles, scratch.loader)
        password = await scratch_database.open_loader(admin, scratch.loader)
        job = LoadJob(
            spool=scratch.spool,
            manifest=backup.manifest,
            key=backup.key,
            address=place.server.address().for_login(scratch.loader, password),
            database=scratch.database,
            session_name=SESSION,
            program=scratch.program,
        )
        try:
            privileges = await load.load_archive(job, told)
        finally:
            if not admin.is_closed():
                await scratch_database.close_loader(admin, scratch.loader)
        async with scratch.inside() as inside:
            await scratch_database.dismiss_loader(
                inside, scratch.database, scratch.loader, roles, privileges
            )
    finally:
        await admin.close()


async def restore(backup: Backup, place: Place, folder: Path) -> Scratch:
    scratch = scratch_for(backup, place, folder)
    await load_into(scratch)
    return scratch


async def serve(scratch: Scratch, roles: RoleSet, key: UUID) -> None:
    """Make the database the primary of the tenant ``key``, as swaps and claims do."""
    admin = await scratch.place.server.admin()
    await tenant_database.open_to_roles(admin, scratch.database, roles)
    await admin.close()
    async with scratch.inside() as inside:
        await tenant_database.write_identity(inside, key, 1, "primary")


async def drop(scratch: Scratch) -> bool:
    admin = await scratch.place.server.admin()
    try:
        return await scratch_database.drop_scratch(
            admin, scratch.database, scratch.loader, scratch.place.system_identifier
        )
    finally:
        await admin.close()
