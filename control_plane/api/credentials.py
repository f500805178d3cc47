"""A tenant's credentials over HTTP: show the DSN, rotate."""

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.views import OperationView
from control_plane.api.words import PRINTABLE
from control_plane.catalog.pool import Connection
from control_plane.services.requests import Effect
from control_plane.services.reveal import Revealed, reveal_dsn
from control_plane.services.tenants import rotate_credentials

_LONGEST_GRACE_SECONDS = 30 * 24 * 3600


class DsnView(msgspec.Struct, frozen=True):
    """How an application connects. ``dsn`` is shown once: a repeated request has ``null``.

    ``expires_at`` is set when these credentials end, ``driver_hints`` is by driver, and
    ``poolers`` are all addresses that serve the tenant.
    """

    lease_id: str
    dsn: str | None
    note: str | None
    login: str
    database: str
    host: str
    port: int
    pool: Literal["transaction", "session"]
    expires_at: dt.datetime | None
    driver_hints: dict[str, str]
    poolers: list[dict[str, str | int]]


def dsn_view(revealed: Revealed, *, hidden: bool) -> DsnView:
    """The JSON of a DSN; ``hidden`` is how it is kept for repeats: without the secret."""
    dsn = revealed.dsn
    note = "already shown once under this Idempotency-Key; reveal again with a new one"
    return DsnView(
        lease_id=revealed.lease_id,
        dsn=None if hidden else dsn.uri,
        note=note if hidden else None,
        login=dsn.login,
        database=dsn.database,
        host=dsn.host,
        port=dsn.port,
        pool=dsn.pool,
        expires_at=dsn.expires_at,
        driver_hints=dsn.driver_hints,
        poolers=dsn.poolers,
    )


class RevealBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which endpoint, and why (a break-glass key has to say)."""

    pool: Literal["transaction", "session"] = "transaction"
    reason: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=500)] | None = None


class RotationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the old credentials keep working; the server's default when left out."""

    grace_seconds: Annotated[int, Meta(ge=0, le=_LONGEST_GRACE_SECONDS)] | None = None


class CredentialController(Controller):
    """Secrets of one tenant."""

    path = "/tenants/{tenant:str}"
    tags = ("tenants",)

    @post("/dsn", operation_id="revealDsn", status_code=200, responses=refusals(404, 409, 413))
    async def reveal(
        self,
        tenant: FromPath[str],
        changing: Writing,
        data: JSONBody[RevealBody | None] = None,
    ) -> Response[DsnView]:
        """Show the DSN of a tenant's application. Every showing is in the audit log first."""
        wanted = data or RevealBody()
        shown: list[Revealed] = []

        async def carry_out(db: Connection) -> Effect:
            revealed = await reveal_dsn(
                db,
                changing.ports,
                changing.caller,
                tenant,
                pool=wanted.pool,
                reason=wanted.reason,
            )
            shown.append(revealed)
            return effect(200, dsn_view(revealed, hidden=True))

        saved = await changing.perform(carry_out)
        # Only now is the audit event committed, and only the first request has the secret.
        response: Response[Any] = (
            Response(dsn_view(shown[0], hidden=False)) if shown else answer(saved, DsnView)
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    @post(
        "/rotations",
        operation_id="rotateCredentials",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def rotate(
        self,
        tenant: FromPath[str],
        changing: Writing,
        data: JSONBody[RotationBody | None] = None,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Give a tenant new credentials; the old ones work until the grace ends."""
        grace = data.grace_seconds if data is not None else None
        return await accept_or_rehearse(
            changing,
            lambda db: rotate_credentials(db, changing.ports, changing.caller, tenant, grace),
            dry_run=dry_run,
        )
