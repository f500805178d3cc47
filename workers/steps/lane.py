"""The tenants of one server that a rollout has in the works: begun, migrated, let go together."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import msgspec
import structlog

from control_plane.adapters import (
    clock,
    migrator_lease,
    tenant_database,
    tenant_migration,
    tenant_roles,
)
from control_plane.adapters.postgres_server import Connection, connect
from control_plane.adapters.revisions import Revision
from control_plane.adapters.schema_fingerprint import SchemaReading, read_fingerprint, role_names
from control_plane.adapters.tenant_migration import Sessions
from control_plane.catalog import moves, rollout_batches, tenants
from control_plane.catalog.rollout_batches import Begun, Ended, Ending, Point
from control_plane.catalog.servers import Server
from control_plane.config import Secret
from control_plane.domain.errors import Conflict, SchemaMismatch, TenantryError
from control_plane.domain.names import RoleSet, encode
from control_plane.domain.rollouts import Rollout
from workers.engine import failpoints
from workers.engine.step import StepContext
from workers.steps import migrating
from workers.steps.migrating import Script

_log = structlog.get_logger(__name__)
_RESTORE_POINT, _APPLY, _VERIFY = 0, 1, 2


class Golden(msgspec.Struct, frozen=True):
    """What the schema must be: the reading at the target, and the mark of each revision."""

    reading: SchemaReading
    marks: dict[str, str]


class Batch:
    """Tenants begun together; their migrators share a password until the last is done."""

    def __init__(self, begun: Sequence[Begun], password: Secret) -> None:
        self.begun = begun
        self.password = password
        self.over: list[RoleSet] = []
        self._left = len(begun)

    def one_is_done(self, one: Begun, ended: Ended) -> bool:
        """Whether that was the last one. A tenant left to the engine has its migrator open."""
        if ended.outcome != "later":
            self.over.append(one.roles)
        self._left -= 1
        return self._left == 0


class Lane:
    """One server's part of a rollout, for as long as this worker carries it."""

    def __init__(
        self,
        ctx: StepContext,
        rollout: Rollout,
        script: Script,
        server: Server,
        golden: Golden,
    ) -> None:
        self.server = server
        self.slots = asyncio.Semaphore(rollout.options.per_server)
        self._ctx = ctx
        self._rollout = rollout
        self._script = script
        self._golden = golden
        self._address = ctx.address(server)
        self._admin: Connection | None = None
        self._proofs = rollout.options.per_server
        self._held: frozenset[UUID] = frozenset()

    def begin_wave(self) -> None:
        """The first few tenants of every wave prove the schema before they commit."""
        self._proofs = self._rollout.options.per_server

    async def begin(self, wave: int, room: int) -> tuple[Batch | None, list[Ended]]:
        """Up to ``room`` more tenants, ready to be migrated; or why they could not be begun."""
        async with self._ctx.catalog_write() as db:
            begun = await rollout_batches.begin(
                db, self._rollout.id, self.server.id, wave, [clock.new_id() for _ in range(room)]
            )
            self._held = await moves.open_among(db, [one.tenant_id for one in begun])
        if not begun:
            return None, []
        try:
            self._reach("record_restore_point.before", begun)
            await self._record_restore_point(begun)
            self._reach("record_restore_point.after", begun)
            admin = await self._administrator()
            role_sets = [one.roles for one in begun]
            await self._converge_roles(admin, begun)
            return Batch(begun, await migrator_lease.open_migrators(admin, role_sets)), []
        except TenantryError as error:
            return None, [_ended(one.operation_id, _RESTORE_POINT, error) for one in begun]

    async def migrate(self, batch: Batch, one: Begun, *, thorough: bool) -> Ended:
        """Bring one tenant to the target; never raises ours.

        ``thorough`` reads its whole schema, too.
        """
        if one.tenant_id in self._held:
            words = f"tenantry move finish {one.slug} first: its old server keeps this schema"
            return Ended(one.operation_id, "failed", _RESTORE_POINT, Conflict.code, words)
        if any(revision.runs_python for revision in self._after(one)):
            return Ended(one.operation_id, "later", _APPLY)
        position = _APPLY
        connection: Connection | None = None
        try:
            self._reach("apply_revision.before", [one])
            connection = await self._connect(batch, one)
            await self._apply(connection, one)
            self._reach("apply_revision.after", [one])
            position = _VERIFY
            found = await self._verify(connection, one, thorough=thorough)
            self._reach("verify_schema.after", [one])
        except TenantryError as error:
            return _ended(one.operation_id, position, error)
        finally:
            if connection is not None:
                connection.terminate()
        return Ended(one.operation_id, "done", fingerprint=found)

    async def release(self, batch: Batch, one: Begun, ended: Ended) -> None:
        """Shut the batch's migrators out once the last of them is done."""
        if batch.one_is_done(one, ended):
            await migrator_lease.close_migrators(await self._administrator(), batch.over)

    def leave(self) -> None:
        if self._admin is not None:
            self._admin.terminate()

    async def _connect(self, batch: Batch, one: Begun) -> Connection:
        # Named after the tenant's own operation: whoever finishes it ends what is left of this.
        return await migrator_lease.connect_as_owner(
            self._address,
            one.database,
            one.roles,
            batch.password,
            _session(one),
            tenant_migration.session_settings(self._script.patience),
        )

    async def _verify(self, connection: Connection, one: Begun, *, thorough: bool) -> str | None:
        """The fingerprint, if it was looked at; the others' are read once all are migrated."""
        if not thorough:
            return None
        found = await read_fingerprint(connection, role_names(one.roles))
        migrating.require_equal(found, self._golden.reading, one.slug)
        return found

    async def _apply(self, connection: Connection, one: Begun) -> None:
        inside: list[Connection] = []

        async def administrator() -> Connection:
            if not inside:
                inside.append(await connect(self._address, one.database, _session(one)))
            return inside[0]

        sessions = Sessions(connection, administrator, one.roles)
        proves, self._proofs = self._proofs > 0, self._proofs - 1
        try:
            await self._apply_after(sessions, one.revision, proves=proves)
        except SchemaMismatch:
            # The catalog may be behind: a worker died between the database and its record.
            actual = await tenant_migration.read_revision(connection)
            if actual == one.revision:
                raise
            await self._apply_after(sessions, actual, proves=proves)
        finally:
            for each in inside:
                each.terminate()

    async def _apply_after(self, sessions: Sessions, current: str | None, *, proves: bool) -> None:
        for revision in tenant_migration.remaining(self._script.path, current):
            mark = self._golden.marks.get(revision.id) if proves else None
            await tenant_migration.apply(sessions, revision, self._script.patience, mark)

    async def _record_restore_point(self, begun: Sequence[Begun]) -> None:
        name = migrating.restore_point_name(begun[0].operation_id)
        lsn = await tenant_migration.mark_restore_point(await self._administrator(), name)
        async with self._ctx.catalog_write() as db:
            await rollout_batches.mark(
                db,
                self._rollout.operation_id,
                begun,
                Point(self.server.id, name, lsn),
                [clock.new_id() for _ in begun],
                [self._outside(one) for one in begun],
            )

    async def _converge_roles(self, admin: Connection, begun: Sequence[Begun]) -> None:
        """Tenants that are older than one of today's roles get it."""
        by_key: dict[UUID, Begun] = {one.role_set_id: one for one in begun}
        for roles in await migrator_lease.lacking_roles(admin, [one.roles for one in begun]):
            async with self._ctx.catalog_read() as db:
                tenant = await tenants.get(db, by_key[roles.key].tenant_id)
            await tenant_roles.ensure_role_set(admin, roles, tenant.limits.login)
            await tenant_database.open_to_roles(admin, by_key[roles.key].database, roles)

    async def _administrator(self) -> Connection:
        if self._admin is None or self._admin.is_closed():
            self._admin = await connect(
                self._address, application_name=f"{self._ctx.session_name}:lane"
            )
        return self._admin

    def _after(self, one: Begun) -> Sequence[Revision]:
        """The revisions that the tenant lacks, by what the catalog says of it."""
        path = self._script.path
        ids = [revision.id for revision in path]
        return path[ids.index(one.revision) + 1 :] if one.revision in ids else path

    def _outside(self, one: Begun) -> str | None:
        return next((r.id for r in self._after(one) if not r.transactional), None)

    def _reach(self, boundary: str, those: Sequence[Begun]) -> None:
        directory = self._ctx.ports.settings.engine.failpoint_dir
        for one in those:
            failpoints.reach(directory, f"migrate.{boundary}", one.slug)


def _session(one: Begun) -> str:
    return f"cp:{encode(one.operation_id)}:1"


def _ended(operation_id: UUID, position: int, error: TenantryError) -> Ended:
    """What may pass is left to the engine, which tries again; the rest has failed."""
    outcome: Ending = "later" if error.retryable else "failed"
    _log.warning(
        "migration_stopped",
        operation=encode(operation_id),
        outcome=outcome,
        code=error.code,
        error=error.message,
    )
    return Ended(operation_id, outcome, position, error.code, error.message)
