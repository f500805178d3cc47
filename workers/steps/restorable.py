"""What is restored, and where to: the backup, its manifest and key, the scratch database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import msgspec

from control_plane.adapters import clock, scratch_database
from control_plane.catalog import backups, databases, operations, servers, tenants
from control_plane.catalog.backups import Backup
from control_plane.catalog.databases import Database
from control_plane.catalog.servers import Server
from control_plane.domain.backups import Manifest
from control_plane.domain.errors import BackupCorrupt, ContentMismatch, NoCapacity, ObjectMissing
from control_plane.domain.names import RoleSet, database_name, encode, parse, show
from control_plane.domain.tenants import LoginLimits
from control_plane.services import tenant_keys
from workers.engine.step import StepContext
from workers.steps import manifests

_MAJOR = 10_000
_SPOOLED = "op_"


class Opened(msgspec.Struct, frozen=True):
    """A backup with its manifest, and the key that opened it."""

    backup: Backup
    manifest: Manifest
    key: bytes


class Restorable(Opened, frozen=True):
    """A backup on its way into a scratch database that is on record."""

    scratch: Database
    server: Server
    limits: LoginLimits

    @property
    def roles(self) -> RoleSet:
        """The roles that the archive names."""
        return RoleSet(self.manifest.roles_key)

    @property
    def loader(self) -> str:
        return scratch_database.loader_of(self.scratch.name)


async def chosen(ctx: StepContext) -> Backup:
    """The backup that the request named, or else the one that this operation has made."""
    shown = ctx.operation.input.get("backup")
    async with ctx.catalog_read() as db:
        if shown is not None:
            return await backups.find(db, shown)
        made = await backups.of_operation(db, ctx.operation.id)
    if made is None:
        raise TypeError(f"{ctx.operation.kind} has no backup")
    return made


async def opened(ctx: StepContext) -> Opened:
    """The backup of this operation, from the catalog and the store."""
    backup = await chosen(ctx)
    async with judged(ctx, backup):
        manifest = await manifests.read_manifest(ctx, backup)
    key = await tenant_keys.key_version(ctx.ports, backup.tenant_id, manifest.key_version)
    return Opened(backup, manifest, key)


async def begun(ctx: StepContext) -> Restorable:
    """The same, with the scratch database that it goes into."""
    scratch = await scratch_of(ctx)
    if scratch is None:
        raise TypeError(f"{ctx.operation.kind} has not recorded its scratch database")
    what = await opened(ctx)
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        server = await servers.get(db, scratch.server_id)
    return Restorable(what.backup, what.manifest, what.key, scratch, server, tenant.limits.login)


@asynccontextmanager
async def judged(ctx: StepContext, backup: Backup) -> AsyncIterator[None]:
    """A backup that turns out not to be one is marked, and the next older one is named."""
    try:
        yield
    except (BackupCorrupt, ObjectMissing, ContentMismatch) as error:
        async with ctx.catalog_write() as db:
            await backups.mark_corrupt(db, backup.id, error.message)
            left = await backups.newest_complete(db, backup.tenant_id)
        offer = f"the newest that is left is {show('bk', left.id)}" if left else "no other is left"
        raise type(error)(f"{error.message}; {offer}") from error


async def scratch_of(ctx: StepContext) -> Database | None:
    """The scratch database of this operation, if it is on record."""
    async with ctx.catalog_read() as db:
        return await databases.find(db, database_id(ctx.operation.input["scratch"]))


def database_id(shown: str) -> UUID:
    """The id inside ``db_…`` of an operation's input."""
    key = parse("db", shown)
    if key is None:
        raise TypeError(f"{shown} is no id of a database")
    return key


async def record_scratch(ctx: StepContext) -> None:
    """Put the scratch database on record, unless the request did."""
    if await scratch_of(ctx) is not None:
        return
    what = await opened(ctx)
    key = database_id(ctx.operation.input["scratch"])
    server = await place(ctx, what.manifest)
    scratch = Database(
        id=key,
        role_set_id=what.manifest.roles_key,
        tenant_id=ctx.tenant_id,
        server_id=server.id,
        name=database_name(key),
        template=what.manifest.template,
        template_fingerprint=what.manifest.template_fingerprint,
        schema_revision=what.manifest.schema_revision,
        generation=1,
        purpose="scratch",
        created_at=clock.now(),
        backup_id=what.backup.id,
    )
    async with ctx.catalog_write() as db:
        await databases.insert(db, scratch)


async def place(ctx: StepContext, manifest: Manifest) -> Server:
    """Where the scratch database is, or goes: the tenant's server, or any that takes the backup.

    Raises:
        NoCapacity: no server has a Postgres that is new enough.
    """
    scratch = await scratch_of(ctx)
    async with ctx.catalog_read() as db:
        if scratch is not None:
            return await servers.get(db, scratch.server_id)
        live = await databases.find_primary(db, ctx.tenant_id)
        if live is not None:
            return await servers.get(db, live.server_id)
        fitting = [
            server
            for server in await servers.every(db)
            if server.state == "active"
            and server.reachable
            and server.version_num // _MAJOR >= manifest.server_version // _MAJOR
        ]
    if not fitting:
        major = manifest.server_version // _MAJOR
        raise NoCapacity(f"no server that answers has Postgres {major} or newer")
    return min(fitting, key=lambda server: server.placed / server.capacity)


def spool_file(ctx: StepContext) -> Path:
    """Where this machine keeps the object, encrypted, while the operation needs it."""
    return ctx.ports.settings.backup.spool / f"{_SPOOLED}{encode(ctx.operation.id)}"


async def live_operations(ctx: StepContext) -> frozenset[str]:
    """The ids of all operations that are not over."""
    async with ctx.catalog_read() as db:
        return frozenset(encode(key) for key in await operations.live_ids(db))


def sweep_spool(ctx: StepContext, live: frozenset[str]) -> None:
    """Delete what operations that are over left on this machine. Blocks."""
    spool = ctx.ports.settings.backup.spool
    for left in spool.glob(f"{_SPOOLED}*") if spool.is_dir() else ():
        if left.name.removeprefix(_SPOOLED).partition(".")[0] not in live:
            left.unlink(missing_ok=True)
