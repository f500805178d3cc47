"""Backups over HTTP: make one, prove one, look at them, at the ledger and at the fleet."""

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.backup_views import (
    BackupDetailView,
    BackupPage,
    BackupStatusPage,
    DrillPage,
    backup_detail_view,
    backup_view,
    drill_view,
    status_view,
)
from control_plane.api.context import Reading, Writing
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Cursor, Limit, NameCursor, next_cursor, position
from control_plane.api.views import OperationView
from control_plane.api.words import NAME_OR_ID
from control_plane.catalog import backup_ledger, backup_status
from control_plane.services.backups import find_backup, request_backup, request_verification
from control_plane.services.tenants import find_tenant


class BackupController(Controller):
    """``{backup}`` is a ``bk_`` id."""

    tags = ("backups",)

    @post(
        "/tenants/{tenant:str}/backups",
        operation_id="requestBackup",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def request_backup(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Back a tenant up now, encrypted, and read it back from the store.

        A backup is a dump: it holds the data as of one instant (`snapshot_at`), and nothing later
        can be had from it. With dumps alone, what a disaster can cost (the RPO) is the interval of
        the tenant's schedule; there is no recovery to a point in between.
        """
        return await accept_or_rehearse(
            changing,
            lambda db: request_backup(db, changing.ports, changing.caller, tenant),
            dry_run=dry_run,
        )

    @get("/tenants/{tenant:str}/backups", operation_id="listBackups", responses=refusals(404))
    async def list_backups(
        self,
        tenant: FromPath[str],
        asking: Reading,
        cursor: Cursor = None,
        limit: Limit = LIMIT,
    ) -> BackupPage:
        """A tenant's backups in every state, newest first."""
        async with asking.ports.catalog.connection() as db:
            found = await backup_ledger.page_of_backups(
                db,
                (await find_tenant(db, asking.caller, tenant)).id,
                before=position(cursor),
                limit=limit,
            )
        return BackupPage(
            [backup_view(one) for one in found], next_cursor(found, limit, lambda b: b.id)
        )

    @get("/backups/{backup:str}", operation_id="getBackup", responses=refusals(404))
    async def get_backup(self, backup: FromPath[str], asking: Reading) -> BackupDetailView:
        """One backup, with every drill that restored it."""
        async with asking.ports.catalog.connection() as db:
            found = await find_backup(db, asking.caller, backup)
            return backup_detail_view(
                await backup_ledger.backup(db, found.id),
                await backup_ledger.drills_of(db, found.id),
            )

    @post(
        "/backups/{backup:str}/verifications",
        operation_id="verifyBackup",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def verify_backup(
        self, backup: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Restore a backup into a database of its own, compare everything, and record the drill."""
        return await accept_or_rehearse(
            changing,
            lambda db: request_verification(db, changing.ports, changing.caller, backup),
            dry_run=dry_run,
        )

    @get("/drills", operation_id="listDrills", responses=refusals(404))
    async def list_drills(
        self,
        asking: Reading,
        tenant: Annotated[str | None, QueryParameter(pattern=NAME_OR_ID)] = None,
        cursor: Cursor = None,
        limit: Limit = LIMIT,
    ) -> DrillPage:
        """The ledger, newest first: when which backup was restored, how long it took, its hash."""
        async with asking.ports.catalog.connection() as db:
            only = await find_tenant(db, asking.caller, tenant) if tenant is not None else None
            found = await backup_ledger.page_of_drills(
                db, only.id if only else None, before=position(cursor), limit=limit
            )
        return DrillPage(
            [drill_view(one) for one in found], next_cursor(found, limit, lambda d: d.id)
        )

    @get("/backup-status", operation_id="getBackupStatus", responses=refusals())
    async def status(
        self,
        asking: Reading,
        breached: Annotated[
            bool | None, QueryParameter(description="Only tenants whose policy is broken, or kept")
        ] = None,
        cursor: NameCursor = None,
        limit: Limit = LIMIT,
    ) -> BackupStatusPage:
        """Each living tenant by slug: what it could lose now, and when a restore was last proven.

        `breached=true` shows only tenants whose policy is not kept: the newest backup is older
        than `rpo_minutes`, or no restore passed for `drill_days`.
        """
        async with asking.ports.catalog.connection() as db:
            found = await backup_status.page(db, after=cursor, limit=limit, breached=breached)
        return BackupStatusPage(
            [status_view(one) for one in found],
            found[-1].slug if len(found) == limit else None,
        )
