"""Showing a DSN: asked for, on record before it is shown, and shown once (S-25)."""

import hashlib
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from control_plane.catalog.idempotency import Fingerprint, SavedAnswer
from control_plane.catalog.pool import Connection
from control_plane.console.access import needs
from control_plane.console.forms import fields_of, read_form, trouble_of
from control_plane.console.problems import Throttled
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visiting
from control_plane.domain.errors import TenantryError
from control_plane.router.issue_dsn import PoolMode
from control_plane.services.requests import Effect, perform
from control_plane.services.reveal import Revealed, reveal_dsn
from control_plane.services.tenants import find_tenant


class RevealForm(msgspec.Struct, frozen=True):
    """Which pool, and why."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)]
    pool: PoolMode = "transaction"
    reason: Annotated[str, Meta(max_length=500)] | None = None


class HandoverPages(Controller):
    """The DSN of a tenant."""

    path = "/tenants/{tenant:str}/dsn"

    @get(opt=needs("revealDsn"))
    async def show(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """A button: looking at this page shows nothing yet."""
        async with visit.ports.catalog.connection() as db:
            found = await find_tenant(db, visit.caller, tenant)
        return page(request, "dsn.html", tenant=found, trouble=None)

    @post(opt=needs("revealDsn"))
    async def reveal(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """The DSN, this once; a repeat of the same form is told so."""
        wait = visit.desk.limits.reveals.take(visit.caller.principal.key_id)
        if wait is not None:
            raise Throttled(wait)
        async with visit.ports.catalog.connection() as db:
            found = await find_tenant(db, visit.caller, tenant)
        shown: list[Revealed] = []
        try:
            form = read_form(await fields_of(request), RevealForm)

            async def carry_out(db: Connection) -> Effect:
                shown.append(
                    await reveal_dsn(
                        db, visit.ports, visit.caller, tenant, pool=form.pool, reason=form.reason
                    )
                )
                return Effect(SavedAnswer(200, {"lease_id": shown[0].lease_id}))

            about = hashlib.sha256(f"{tenant} {form.pool} {form.reason}".encode()).digest()
            key = Fingerprint(visit.caller.principal.key_id, form.form_key, about)
            saved = await perform(visit.ports, key, carry_out)
        except TenantryError as error:
            trouble = trouble_of(error)
            return page(request, "dsn.html", trouble.status, tenant=found, trouble=trouble)
        return page(
            request,
            "dsn_shown.html",
            tenant=found,
            lease=saved.body["lease_id"],
            revealed=shown[0] if shown else None,
        )
