"""What can be done with a tenant: offered to whom, in which state, and what the services do."""

from control_plane.catalog import backups
from control_plane.catalog.pool import Connection
from control_plane.console.action_forms import (
    ActionForm,
    CopyForm,
    DeleteForm,
    ExportForm,
    FinishForm,
    LimitForm,
    MoveForm,
    RestoreForm,
    RotateForm,
)
from control_plane.console.action_parts import Action
from control_plane.console.visits import Visit
from control_plane.domain.errors import Invalid, NoCapacity, WrongState
from control_plane.domain.names import show
from control_plane.domain.noise import tighter
from control_plane.domain.operations import Operation
from control_plane.domain.tenants import OwnLimits, Tenant
from control_plane.services import archiving, deleting, exports, limits, moves, restores, tenants
from control_plane.services.backups import request_backup, request_verification
from control_plane.services.dossier import Dossier, candidates, restorable
from control_plane.services.noise import MoveProposal, propose_move
from control_plane.services.restores import Beside, InPlace


async def _backups(db: Connection, visit: Visit, tenant: Tenant) -> dict[str, object]:
    del visit
    return {"backups": await restorable(db, tenant)}


async def _servers(db: Connection, visit: Visit, tenant: Tenant) -> dict[str, object]:
    return {
        "candidates": await candidates(db, tenant) if tenant.server else [],
        "proposal": await _proposal(db, visit, tenant),
    }


async def _proposal(db: Connection, visit: Visit, tenant: Tenant) -> MoveProposal | None:
    try:
        return await propose_move(db, visit.caller, tenant.slug)
    except (NoCapacity, WrongState):
        # The list of servers says of each why it does not fit, the plan what stands in the way.
        return None


async def _limits(db: Connection, visit: Visit, tenant: Tenant) -> dict[str, object]:
    found = await limits.limits_of(db, visit.caller, tenant.slug)
    return {"limits": found, "tighter": tighter(found.in_force)}


def _limited(dossier: Dossier) -> bool:
    return dossier.tenant.own_limits is not None


def _moved(dossier: Dossier) -> bool:
    return dossier.move is not None and dossier.move.state == "reversible"


async def _verify_newest(db: Connection, visit: Visit, tenant: str, form: ActionForm) -> Operation:
    del form
    found = await tenants.find_tenant(db, visit.caller, tenant)
    newest = await backups.newest_complete(db, found.id)
    if newest is None:
        raise WrongState(f"{found.slug} has no complete backup; back it up first")
    return await request_verification(db, visit.ports, visit.caller, show("bk", newest.id))


async def _copy(db: Connection, visit: Visit, tenant: str, form: CopyForm) -> Operation:
    wanted = Beside(slug=form.slug, backup=form.backup, name=form.name)
    return await restores.restore_beside(db, visit.ports, visit.caller, tenant, wanted)


async def _delete(db: Connection, visit: Visit, tenant: str, form: DeleteForm) -> Operation:
    wanted = deleting.DeleteRequest(form.confirm, keep_backups_days=form.keep_backups_days)
    return await deleting.delete_tenant(db, visit.ports, visit.caller, tenant, wanted)


async def _rotate(db: Connection, visit: Visit, tenant: str, form: RotateForm) -> Operation:
    grace = None if form.grace_minutes is None else form.grace_minutes * 60
    return await tenants.rotate_credentials(db, visit.ports, visit.caller, tenant, grace)


async def _limit(db: Connection, visit: Visit, tenant: str, form: LimitForm) -> Operation:
    if form.own == OwnLimits():
        message = "give one limit at least"
        raise Invalid(message, [{"field": "pool_size", "message": message}])
    return await limits.set_limits(db, visit.caller, tenant, form.own, reason=form.reason)


ACTIONS = (
    Action(
        path="backup",
        label="Back up",
        kind="backup",
        permission="requestBackup",
        states=("active", "suspended"),
        group="protect",
        words="A backup of this instant, encrypted with the tenant's own key and read back from "
        "the store. Clients go on.",
        do=lambda db, visit, tenant, _: request_backup(db, visit.ports, visit.caller, tenant),
    ),
    Action(
        path="prove",
        label="Prove newest backup",
        kind="verify_backup",
        permission="verifyBackup",
        states=("active", "suspended", "archived"),
        group="protect",
        words="The newest backup is restored into a database of its own, compared row by row, and "
        "dropped again. Clients notice nothing.",
        do=_verify_newest,
        when=lambda dossier: any(one.state == "complete" for one in dossier.backups),
    ),
    Action(
        path="restore",
        label="Restore",
        kind="restore",
        permission="restoreTenant",
        states=("active", "suspended"),
        group="protect",
        words="The backup is loaded beside the live database and compared with it first; only then "
        "it takes its place. What was written since that backup is no longer seen. The DSN stays. "
        "The replaced database is kept for some days, and the restore can be undone.",
        do=lambda db, visit, tenant, form: restores.restore_in_place(
            db, visit.ports, visit.caller, tenant, InPlace(form.backup)
        ),
        form=RestoreForm,
        fields="_restore_fields.html",
        choices=_backups,
        destroys=True,
    ),
    Action(
        path="restore-undo",
        label="Undo the restore",
        kind="restore_undo",
        permission="undoRestore",
        states=("active", "suspended"),
        group="protect",
        words="The database that the last restore replaced comes back; the present one is kept in "
        "its stead. What was written since the restore is no longer seen.",
        do=lambda db, visit, tenant, _: restores.undo_restore(db, visit.caller, tenant),
        when=lambda dossier: dossier.previous is not None,
        destroys=True,
    ),
    Action(
        path="copy",
        label="Restore as a new tenant",
        kind="restore_beside",
        permission="restoreTenant",
        states=("active", "suspended", "archived", "deleting"),
        group="protect",
        words="A new tenant with its own DSN is made out of a backup. This one is not touched.",
        do=_copy,
        form=CopyForm,
        fields="_copy_fields.html",
        choices=_backups,
        when=lambda dossier: any(one.state == "complete" for one in dossier.backups),
    ),
    Action(
        path="export",
        label="Export for the customer",
        kind="export",
        permission="createExport",
        states=("active", "suspended", "deleting"),
        group="protect",
        words="A bundle of all of the tenant's data, encrypted so that only the recipient can open "
        "it. It is deleted by itself when its time is over.",
        do=lambda db, visit, tenant, form: exports.request_export(
            db, visit.ports, visit.caller, tenant, form.recipient, form.keep_hours
        ),
        form=ExportForm,
        fields="_export_fields.html",
    ),
    Action(
        path="move",
        label="Move",
        kind="move",
        permission="moveTenant",
        states=("active",),
        group="run",
        words="The database is copied to another server while clients go on. At the switch they "
        "are held for a moment, no longer than the pause below. The DSN stays. Until the move is "
        "finished it can be reversed without losing anything.",
        do=lambda db, visit, tenant, form: moves.move_tenant(
            db, visit.caller, tenant, moves.NewMoveWish(form.server, form.pause_budget_ms)
        ),
        form=MoveForm,
        fields="_move_fields.html",
        choices=_servers,
        when=lambda dossier: dossier.move is None,
    ),
    Action(
        path="move-reverse",
        label="Reverse the move",
        kind="move_reverse",
        permission="reverseMove",
        states=("active",),
        group="run",
        words="The tenant goes back to the server it came from, with everything written since. "
        "Clients are held for a moment at the switch.",
        do=lambda db, visit, tenant, _: moves.reverse_move(db, visit.caller, tenant),
        when=_moved,
    ),
    Action(
        path="move-finish",
        label="Finish the move",
        kind="move_finish",
        permission="finishMove",
        states=("active", "suspended"),
        group="run",
        words="The old database is dropped; there is no way back to it. A backup made after the "
        "move has to be proven first.",
        do=lambda db, visit, tenant, form: moves.finish_move(
            db,
            visit.ports,
            visit.caller,
            tenant,
            without_backup=form.without_backup is not None,
        ),
        form=FinishForm,
        fields="_finish_fields.html",
        when=_moved,
        destroys=True,
    ),
    Action(
        path="limit",
        label="Limit",
        kind="limit",
        permission="setLimits",
        states=("active",),
        group="run",
        words="The tenant may use less of its server, or more, than its tier says. Clients beyond "
        "a pool wait for their turn; nobody is cut off. The limits stay until they are taken back.",
        do=_limit,
        form=LimitForm,
        fields="_limit_fields.html",
        choices=_limits,
    ),
    Action(
        path="limit-reset",
        label="Take its limits back",
        kind="limit",
        permission="resetLimits",
        states=("active",),
        group="run",
        words="The tenant has the limits of its tier again.",
        do=lambda db, visit, tenant, _: limits.reset_limits(db, visit.caller, tenant),
        when=_limited,
    ),
    Action(
        path="rotate",
        label="Rotate credentials",
        kind="rotate",
        permission="rotateCredentials",
        states=("active",),
        group="run",
        words="The tenant gets a new password. The one of before works until the grace is over; "
        "the application has to take the new DSN by then.",
        do=_rotate,
        form=RotateForm,
        fields="_rotate_fields.html",
    ),
    Action(
        path="suspend",
        label="Suspend",
        kind="suspend",
        permission="suspendTenant",
        states=("active",),
        group="end",
        words="The tenant is cut off at once: open sessions end and nobody gets in. The data stays "
        "where it is, and so do DSN and backups. Resuming lets it in again.",
        do=lambda db, visit, tenant, _: tenants.suspend_tenant(db, visit.caller, tenant),
        destroys=True,
    ),
    Action(
        path="resume",
        label="Resume",
        kind="resume",
        permission="resumeTenant",
        states=("suspended",),
        group="run",
        words="The tenant is let in again, with the credentials it had.",
        do=lambda db, visit, tenant, _: tenants.resume_tenant(db, visit.caller, tenant),
    ),
    Action(
        path="archive",
        label="Archive",
        kind="archive",
        permission="archiveTenant",
        states=("active", "suspended"),
        group="end",
        words="The tenant is cut off and backed up, the backup is proven by restoring it, and then "
        "its database is dropped. Bringing it back takes as long as a restore.",
        do=lambda db, visit, tenant, _: archiving.archive_tenant(
            db, visit.ports, visit.caller, tenant
        ),
        destroys=True,
    ),
    Action(
        path="unarchive",
        label="Bring back",
        kind="unarchive",
        permission="unarchiveTenant",
        states=("archived",),
        group="run",
        words="The tenant is restored from its archive and let in, with the DSN it had.",
        do=lambda db, visit, tenant, _: archiving.unarchive_tenant(
            db, visit.ports, visit.caller, tenant, archiving.Destination()
        ),
    ),
    Action(
        path="delete",
        label="Delete",
        kind="delete",
        permission="deleteTenant",
        states=("active", "suspended", "archived"),
        group="end",
        words="The tenant is cut off now. Its databases are dropped when the grace is over, and "
        "later its backups and keys are destroyed. Until the grace is over it can be brought back.",
        do=_delete,
        form=DeleteForm,
        fields="_delete_fields.html",
        destroys=True,
    ),
    Action(
        path="undelete",
        label="Undelete",
        kind="undelete",
        permission="undeleteTenant",
        states=("deleting",),
        group="run",
        words="The tenant comes back as it was, with the DSN it had.",
        do=lambda db, visit, tenant, _: deleting.undelete_tenant(db, visit.caller, tenant),
    ),
)


def offered(visit: Visit, dossier: Dossier) -> list[Action]:
    """What this person may do with this tenant in its present state."""
    return [
        action
        for action in ACTIONS
        if visit.may(action.permission)
        and dossier.tenant.state in action.states
        and action.when(dossier)
    ]
