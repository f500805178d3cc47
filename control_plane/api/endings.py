"""The end of a tenant's life over HTTP: archives, deletion, legal holds, certificates."""

import base64
import datetime as dt
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta

from control_plane.adapters.signatures import fingerprint
from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Reading, Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.views import OperationView, TenantView, tenant_view
from control_plane.api.words import NAME_OR_ID, PRINTABLE, REGION, SHOWN_ID
from control_plane.catalog.certificates import Certificate
from control_plane.catalog.holds import Hold
from control_plane.catalog.pool import Connection
from control_plane.domain.names import show
from control_plane.services import archiving, deleting, legal_holds
from control_plane.services.deleting import KEEP_BACKUPS_DAYS
from control_plane.services.requests import Effect

_LONGEST_GRACE_SECONDS = 366 * 86_400
_LONGEST_KEEPING_DAYS = 3_660
_MOST_WORDS = 500

Reason = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=_MOST_WORDS)]


class HoldBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why nothing of the tenant may be destroyed."""

    reason: Reason


class HoldView(msgspec.Struct, frozen=True):
    """The legal hold of a tenant; all ``null`` when there is none."""

    held: bool
    reason: str | None
    by: str | None
    since: dt.datetime | None


class CertificateView(msgspec.Struct, frozen=True):
    """What was destroyed of a tenant, signed.

    ``signature`` is Ed25519 over ``document`` as JSON with sorted keys, without white space, in
    UTF-8. ``signature`` and ``public_key`` are base64, ``key_fingerprint`` is SHA-256 in hex.
    """

    id: str
    tenant: str
    issued_at: dt.datetime
    document: dict[str, Any]
    signature: str
    public_key: str
    key_fingerprint: str


class EndingController(Controller):
    """Putting tenants away, and ending them."""

    path = "/tenants/{tenant:str}"
    tags = ("tenants",)

    @post(
        "/archives",
        operation_id="archiveTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def archive_tenant(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Cut a tenant off, back it up, prove the backup by restoring it, and drop its database."""
        return await accept_or_rehearse(
            changing,
            lambda db: archiving.archive_tenant(db, changing.ports, changing.caller, tenant),
            dry_run=dry_run,
        )

    @delete(
        "/archives",
        operation_id="unarchiveTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def unarchive_tenant(
        self,
        tenant: FromPath[str],
        changing: Writing,
        server: Annotated[str | None, QueryParameter(pattern=NAME_OR_ID)] = None,
        region: Annotated[str | None, QueryParameter(pattern=REGION)] = None,
        backup_id: Annotated[str | None, QueryParameter(pattern=SHOWN_ID)] = None,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Restore an archived tenant and let it in, with the credentials and the DSN it had.

        Without ``server`` the least loaded one that fits is chosen. ``backup_id`` names another
        backup than its archive, for when that turned out to be damaged.
        """
        wanted = archiving.Destination(server, region, backup_id)
        return await accept_or_rehearse(
            changing,
            lambda db: archiving.unarchive_tenant(
                db, changing.ports, changing.caller, tenant, wanted
            ),
            dry_run=dry_run,
        )

    @delete(
        operation_id="deleteTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def delete_tenant(  # noqa: PLR0913 - one parameter per part of the request
        self,
        tenant: FromPath[str],
        changing: Writing,
        confirm: Annotated[
            str, QueryParameter(pattern=NAME_OR_ID, description="The tenant's slug, once more")
        ],
        # gt: the framework forgets a least value of 0 that may be left out.
        grace_seconds: Annotated[
            int | None, QueryParameter(gt=-1, le=_LONGEST_GRACE_SECONDS)
        ] = None,
        keep_backups_days: Annotated[
            int, QueryParameter(ge=0, le=_LONGEST_KEEPING_DAYS)
        ] = KEEP_BACKUPS_DAYS,
        *,
        final_backup: FromQuery[bool | None] = None,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Cut a tenant off at once; drop its databases after a grace, its backups and keys later.

        Until the grace is over, ``undelete`` brings it back with the same DSN. Without
        ``final_backup`` a last backup is made if backups are kept at all.
        """
        wanted = deleting.DeleteRequest(confirm, grace_seconds, keep_backups_days, final_backup)
        return await accept_or_rehearse(
            changing,
            lambda db: deleting.delete_tenant(db, changing.ports, changing.caller, tenant, wanted),
            dry_run=dry_run,
        )

    @post(
        "/undelete",
        operation_id="undeleteTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def undelete_tenant(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Bring a tenant back as it was before its deletion, as long as its grace lasts."""
        return await accept_or_rehearse(
            changing,
            lambda db: deleting.undelete_tenant(db, changing.caller, tenant),
            dry_run=dry_run,
        )

    @put("/legal-hold", operation_id="holdTenant", responses=refusals(404, 409, 413))
    async def hold_tenant(
        self, tenant: FromPath[str], data: JSONBody[HoldBody], changing: Writing
    ) -> Response[TenantView]:
        """From now on nothing of the tenant is destroyed, whoever asks for it."""

        async def carry_out(db: Connection) -> Effect:
            held = await legal_holds.hold_tenant(db, changing.caller, tenant, data.reason)
            return effect(200, tenant_view(held))

        return answer(await changing.perform(carry_out), TenantView)

    @get("/legal-hold", operation_id="getLegalHold", responses=refusals(404))
    async def get_legal_hold(self, tenant: FromPath[str], asking: Reading) -> HoldView:
        """Whether the tenant is under legal hold, why, by whom and since when."""
        async with asking.ports.catalog.connection() as db:
            return hold_view(await legal_holds.find_hold(db, asking.caller, tenant))

    @delete(
        "/legal-hold",
        operation_id="releaseTenant",
        status_code=200,
        responses=refusals(404, 409, 413),
    )
    async def release_tenant(
        self,
        tenant: FromPath[str],
        changing: Writing,
        reason: Annotated[
            str | None, QueryParameter(pattern=PRINTABLE, min_length=1, max_length=_MOST_WORDS)
        ] = None,
    ) -> Response[TenantView]:
        """End a legal hold; a deletion that waited for it goes on."""

        async def carry_out(db: Connection) -> Effect:
            free = await legal_holds.release_tenant(db, changing.caller, tenant, reason)
            return effect(200, tenant_view(free))

        return answer(await changing.perform(carry_out), TenantView)

    @get("/certificate", operation_id="getCertificate", responses=refusals(404, 409))
    async def get_certificate(self, tenant: FromPath[str], asking: Reading) -> CertificateView:
        """The signed certificate of a tenant that was destroyed.

        A slug means the last tenant with it that was destroyed.
        """
        async with asking.ports.catalog.connection() as db:
            return certificate_view(await deleting.find_certificate(db, asking.caller, tenant))


def hold_view(hold: Hold | None) -> HoldView:
    """The JSON of a legal hold."""
    if hold is None:
        return HoldView(held=False, reason=None, by=None, since=None)
    return HoldView(held=True, reason=hold.reason, by=hold.by, since=hold.at)


def certificate_view(certificate: Certificate) -> CertificateView:
    """The JSON of a certificate."""
    return CertificateView(
        id=show("ce", certificate.id),
        tenant=show("tn", certificate.tenant_id),
        issued_at=certificate.issued_at,
        document=certificate.document,
        signature=base64.b64encode(certificate.signature).decode(),
        public_key=base64.b64encode(certificate.public_key).decode(),
        key_fingerprint=fingerprint(certificate.public_key),
    )
