"""Restores over HTTP: in place, beside, and undone."""

from typing import Annotated, Literal

import msgspec
from litestar import Controller, Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, Work, accept_or_rehearse
from control_plane.api.context import Changing, Writing
from control_plane.api.documents import refusals
from control_plane.api.tenants import Slug
from control_plane.api.views import OperationView
from control_plane.api.words import NAME_OR_ID, PRINTABLE, REGION, SHOWN_ID
from control_plane.domain.errors import Invalid
from control_plane.domain.tenants import Tier
from control_plane.services import restores
from control_plane.services.restores import Beside, InPlace


class BesideBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new tenant out of the backup; what is left out is as the backup's tenant has it."""

    slug: Slug
    name: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=200)] | None = None
    tier: Tier | None = None
    region: Annotated[str, Meta(pattern=REGION)] | None = None
    server: Annotated[str, Meta(pattern=NAME_OR_ID)] | None = None


class RestoreBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which backup (the one with the youngest data when it is left out), and where to.

    ``server`` and ``source_lost`` are for ``in_place``: restore on another server than the
    tenant's own, and say that its own is gone for good, so that nobody can be kept out of it.
    """

    target: Literal["in_place"] | BesideBody
    backup_id: Annotated[str, Meta(pattern=SHOWN_ID)] | None = None
    server: Annotated[str, Meta(pattern=NAME_OR_ID)] | None = None
    source_lost: bool = False


class RestoreController(Controller):
    """What brings a tenant's data back."""

    path = "/tenants/{tenant:str}/restores"
    tags = ("backups",)

    @post(
        operation_id="restoreTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def restore_tenant(
        self,
        tenant: FromPath[str],
        data: JSONBody[RestoreBody],
        changing: Writing,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Put a backup in the place of a tenant's database, or make a new tenant out of it.

        In place, the DSN stays and the replaced database is kept for a while, to go back to. Either
        way the backup is first loaded into a database of its own and compared.
        """
        return await accept_or_rehearse(changing, _work(changing, tenant, data), dry_run=dry_run)

    @post(
        "/undo",
        operation_id="undoRestore",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def undo_restore(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Take back the database that the last restore in place has replaced; the other is kept."""
        return await accept_or_rehearse(
            changing,
            lambda db: restores.undo_restore(db, changing.caller, tenant),
            dry_run=dry_run,
        )


def _work(changing: Changing, tenant: str, data: RestoreBody) -> Work:
    ports, caller = changing.ports, changing.caller
    if data.target == "in_place":
        wanted = InPlace(data.backup_id, data.server, data.source_lost)
        return lambda db: restores.restore_in_place(db, ports, caller, tenant, wanted)
    _refuse_what_is_for_in_place(data)
    beside = Beside(
        slug=data.target.slug,
        backup=data.backup_id,
        name=data.target.name,
        tier=data.target.tier,
        region=data.target.region,
        server=data.target.server,
    )
    return lambda db: restores.restore_beside(db, ports, caller, tenant, beside)


def _refuse_what_is_for_in_place(data: RestoreBody) -> None:
    errors = []
    if data.server is not None:
        errors.append({"field": "server", "message": "name the new tenant's server in target"})
    if data.source_lost:
        message = "only a restore in place has a source that can be lost"
        errors.append({"field": "source_lost", "message": message})
    if errors:
        raise Invalid("; ".join(f"{one['field']}: {one['message']}" for one in errors), errors)
