"""The ledger: each restore that was compared, and each that failed, with what it took."""

from control_plane.adapters import clock
from control_plane.catalog import backups, databases, operations, servers
from control_plane.catalog.backups import Drill
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.domain.operations import Operation
from control_plane.services import reclaiming
from workers.engine.step import Done, Outcome, StepContext
from workers.steps import restorable

_LOADING = ("create_scratch", "load_dump")
_COMPARING = ("compare_content", "examine_scratch")


async def record(ctx: StepContext) -> Outcome:
    """The ledger has a line for this restore: what it read, how long it took, that it is equal."""
    what = await restorable.begun(ctx)
    async with ctx.catalog_write() as db:
        operation = await operations.get(db, ctx.operation.id)
        fetched = _seconds(operation, "fetch_object")
        loaded, compared = _seconds(operation, *_LOADING), _seconds(operation, *_COMPARING)
        drill = Drill(
            id=clock.new_id(),
            backup_id=what.backup.id,
            tenant_id=what.backup.tenant_id,
            operation_id=operation.id,
            server_id=what.server.id,
            cause=operation.input["cause"],
            state="passed",
            started_at=operation.started_at or operation.created_at,
            finished_at=clock.now(),
            download_seconds=fetched,
            load_seconds=loaded,
            compare_seconds=compared,
            tables=len(what.manifest.content.tables),
            rows=what.manifest.content.rows,
            content_hash=what.manifest.content.digest,
            server_version=what.server.version_num,
            problem=None,
        )
        await backups.record_drill(db, drill)
    return Done(f"restored in {fetched + loaded:.1f} s, compared in {compared:.1f} s")


async def give_up(ctx: StepContext, db: Connection) -> None:
    """The operation ends without its restore: the ledger says why; for ``abandon``.

    The scratch database is handed to a reclaim operation, with the place it may have held. One
    that was cancelled proves nothing, and has no line.
    """
    operation = await operations.get(db, ctx.operation.id)
    scratch = await databases.find(db, restorable.database_id(operation.input["scratch"]))
    if operation.state == "failed":
        await _record_failure(db, operation, scratch)
    if scratch is not None and scratch.purpose == "scratch":
        await reclaiming.condemn(db, scratch, operation.actor)


async def _record_failure(db: Connection, operation: Operation, scratch: Database | None) -> None:
    backup = await backups.of_operation(db, operation.id)
    if backup is None:
        backup = await backups.find(db, operation.input["backup"])
    server = await servers.get(db, scratch.server_id if scratch else backup.server_id)
    drill = Drill(
        id=clock.new_id(),
        backup_id=backup.id,
        tenant_id=backup.tenant_id,
        operation_id=operation.id,
        server_id=server.id,
        cause=operation.input["cause"],
        state="failed",
        started_at=operation.started_at or operation.created_at,
        finished_at=clock.now(),
        server_version=server.version_num,
        problem=operation.error_message or "the restore failed",
    )
    await backups.record_drill(db, drill)


def _seconds(operation: Operation, *steps: str) -> float:
    """How long these steps took together, their waits and retries included."""
    return sum(
        (step.finished_at - step.started_at).total_seconds()
        for step in operation.steps
        if step.name in steps and step.started_at and step.finished_at
    )
