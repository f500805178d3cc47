"""A tenant's field keys over HTTP: shown to its application."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.context import Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.words import PRINTABLE
from control_plane.catalog.pool import Connection
from control_plane.domain.names import show
from control_plane.services.field_keys import FieldKeys, open_ahead, reveal_field_keys
from control_plane.services.requests import Effect


class FieldKeyView(msgspec.Struct, frozen=True):
    """One version: 32 bytes in base64, shown once; a repeated request has ``null``."""

    version: int
    key: str | None
    state: Literal["active", "retired"]


class FieldKeysView(msgspec.Struct, frozen=True):
    """The keys to encrypt with (the active one) and to read with (all of them).

    ``tenant_uuid`` is the tenant's id as its database's identity marker has it.
    """

    lease_id: str
    tenant_id: str
    tenant_uuid: UUID
    note: str | None
    keys: list[FieldKeyView]


def field_keys_view(revealed: FieldKeys, *, hidden: bool) -> FieldKeysView:
    """The JSON of the keys; ``hidden`` is how it is kept for repeats: without the secrets."""
    note = "already shown once under this Idempotency-Key; ask again with a new one"
    return FieldKeysView(
        lease_id=revealed.lease_id,
        tenant_id=show("tn", revealed.tenant_id),
        tenant_uuid=revealed.tenant_id,
        note=note if hidden else None,
        keys=[
            FieldKeyView(key.version, None if hidden else key.plain, key.state)
            for key in revealed.keys
        ],
    )


class FieldKeysBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why (a break-glass key has to say)."""

    reason: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=500)] | None = None


class FieldKeyController(Controller):
    """The keys of one tenant."""

    path = "/tenants/{tenant:str}/field-keys"
    tags = ("tenants",)

    @post(operation_id="revealFieldKeys", status_code=200, responses=refusals(404, 409, 413))
    async def reveal(
        self,
        tenant: FromPath[str],
        changing: Writing,
        data: JSONBody[FieldKeysBody | None] = None,
    ) -> Response[FieldKeysView]:
        """Show the keys of a tenant's application. Every showing is in the audit log first."""
        reason = data.reason if data is not None else None
        shown: list[FieldKeys] = []
        await open_ahead(changing.ports, changing.caller, tenant)

        async def carry_out(db: Connection) -> Effect:
            revealed = await reveal_field_keys(
                db, changing.ports, changing.caller, tenant, reason=reason
            )
            shown.append(revealed)
            return effect(200, field_keys_view(revealed, hidden=True))

        saved = await changing.perform(carry_out)
        # Only now is the audit event committed, and only the first request has the secret.
        response: Response[Any] = (
            Response(field_keys_view(shown[0], hidden=False))
            if shown
            else answer(saved, FieldKeysView)
        )
        response.headers["Cache-Control"] = "no-store"
        return response
