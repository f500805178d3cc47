"""Backups and drills: what could be lost now, worst first, and the ledger of proven restores."""

from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect

from control_plane.catalog import backup_ledger, backup_status
from control_plane.catalog.backup_status import BackupStatus
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.operations import OnceForm
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import NotFound, TenantryError
from control_plane.domain.names import parse, show
from control_plane.services.backups import find_backup, request_verification
from control_plane.services.tenants import find_tenant

PAGE = 50
_WORST = 200


class BackupPages(Controller):
    """``{backup}`` is a ``bk_`` id."""

    path = "/backups"

    @get(opt=needs("getBackupStatus"))
    async def status(
        self,
        request: AnyRequest,
        visit: Visiting,
        after: Annotated[str, QueryParameter(max_length=60)] = "",
    ) -> Response[str]:
        """Tenants whose policy is not kept, the worst first; then the others by slug."""
        async with visit.ports.catalog.connection() as db:
            broken = await backup_status.page(db, after=None, limit=_WORST, breached=True)
            kept = await backup_status.page(db, after=after or None, limit=PAGE, breached=False)
        following = kept[-1].slug if len(kept) == PAGE else None
        return page(
            request,
            "backups.html",
            broken=sorted(broken, key=_badness, reverse=True),
            more=len(broken) == _WORST,
            kept=kept,
            next_url=f"/console/backups?{urlencode({'after': following})}" if following else None,
            first_url="/console/backups" if after else None,
        )

    @get("/{backup:str}", opt=needs("getBackup"))
    async def show_backup(
        self, backup: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """One backup, with every drill that restored it."""
        return await _show(backup, request, visit)

    @post("/{backup:str}/prove", opt=needs("verifyBackup"))
    async def prove(
        self, backup: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Restore it beside everything else and compare; its steps are shown live."""
        fields = await fields_of(request)
        try:
            form = read_form(fields, OnceForm)
            begun = await visit.begin(
                lambda db: request_verification(db, visit.ports, visit.caller, backup),
                form.form_key,
                {**fields, "backup": backup},
            )
        except TenantryError as error:
            return await _show(backup, request, visit, trouble_of(error))
        return Redirect(f"/console/operations/{begun}", status_code=303)


class DrillPages(Controller):
    """The ledger."""

    path = "/drills"

    @get(opt=needs("listDrills"))
    async def list_drills(
        self,
        request: AnyRequest,
        visit: Visiting,
        tenant: Annotated[str, QueryParameter(max_length=60)] = "",
        before: Annotated[str, QueryParameter(max_length=40)] = "",
    ) -> Response[str]:
        """Drills, newest first: when which backup was restored, and how long it took."""
        trouble, found, asked = None, [], tenant.strip()
        try:
            async with visit.ports.catalog.connection() as db:
                only = await find_tenant(db, visit.caller, asked) if asked else None
                found = await backup_ledger.page_of_drills(
                    db, only.id if only else None, before=parse("dr", before), limit=PAGE
                )
        except NotFound as error:
            trouble = trouble_of(error)
        following = show("dr", found[-1].id) if len(found) == PAGE else None
        return page(
            request,
            "drills.html",
            drills=found,
            tenant=asked,
            trouble=trouble,
            next_url=_drills_url(asked, following) if following else None,
            first_url=_drills_url(asked, None) if before else None,
        )


async def _show(
    backup: str, request: AnyRequest, visit: Visit, trouble: Trouble | None = None
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        found = await find_backup(db, visit.caller, backup)
        listed = await backup_ledger.backup(db, found.id)
        drills = await backup_ledger.drills_of(db, found.id)
    status = trouble.status if trouble else 200
    return page(request, "backup.html", status, backup=listed, drills=drills, trouble=trouble)


def _badness(one: BackupStatus) -> tuple[bool, float]:
    """How bad it is: what could be lost comes first, by how often the limit fits into it."""
    share = (one.rpo_seconds or 0) / (one.rpo_minutes * 60.0)
    return one.rpo_breached, share


def _drills_url(tenant: str, before: str | None) -> str:
    query = {name: value for name, value in (("tenant", tenant), ("before", before)) if value}
    return "/console/drills" + (f"?{urlencode(query)}" if query else "")
