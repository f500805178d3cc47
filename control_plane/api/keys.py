"""API keys over HTTP: make, list, revoke."""

import datetime as dt
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.context import Reading, Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Cursor, Limit, next_cursor, position
from control_plane.api.words import NAME_OR_ID, PRINTABLE
from control_plane.catalog import keys as catalog_keys
from control_plane.catalog.idempotency import SavedAnswer
from control_plane.catalog.keys import ApiKey
from control_plane.catalog.pool import Connection
from control_plane.domain.keys import Role
from control_plane.domain.names import show
from control_plane.services.keys import IssuedKey, NewKey, create_key, revoke_key
from control_plane.services.requests import Effect


class NewKeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new key. ``tenant`` binds a key with the role app to one tenant."""

    name: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=100)]
    roles: Annotated[list[Role], Meta(min_length=1, max_length=6)]
    tenant: Annotated[str, Meta(pattern=NAME_OR_ID)] | None = None
    days: Annotated[int, Meta(ge=1, le=366)] | None = None


class KeyView(msgspec.Struct, frozen=True):
    """One API key, without the key. ``tenant`` is a ``tn_`` id."""

    id: str
    name: str
    roles: list[Role]
    tenant: str | None
    created_by: str
    created_at: dt.datetime
    expires_at: dt.datetime
    expired: bool
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None


class KeyPage(msgspec.Struct, frozen=True):
    items: list[KeyView]
    next_cursor: str | None


class IssuedKeyView(msgspec.Struct, frozen=True):
    """A new key. ``token`` is shown once: a repeated request has ``null``."""

    id: str
    name: str
    roles: list[Role]
    tenant: str | None
    expires_at: dt.datetime
    token: str | None
    note: str | None


class KeyController(Controller):
    """``{key}`` is a ``ky_`` id."""

    path = "/keys"
    tags = ("access",)

    @post(operation_id="createKey", status_code=201, responses=refusals(404, 409, 413))
    async def create_key(
        self, data: JSONBody[NewKeyBody], changing: Writing
    ) -> Response[IssuedKeyView]:
        """Make a key and show it, this once."""
        wanted = NewKey(
            name=data.name,
            roles=tuple(data.roles),
            tenant=data.tenant,
            lifetime=dt.timedelta(days=data.days) if data.days is not None else None,
        )
        shown: list[IssuedKey] = []

        async def carry_out(db: Connection) -> Effect:
            issued = await create_key(db, changing.caller, wanted)
            shown.append(issued)
            return effect(201, issued_key_view(issued, hidden=True))

        saved = await changing.perform(carry_out)
        response: Response[Any] = answer(saved, IssuedKeyView)
        if shown:
            response = Response(issued_key_view(shown[0], hidden=False), status_code=201)
        response.headers["Cache-Control"] = "no-store"
        return response

    @get(operation_id="listKeys", responses=refusals())
    async def list_keys(
        self, asking: Reading, cursor: Cursor = None, limit: Limit = LIMIT
    ) -> KeyPage:
        """Keys, newest first."""
        async with asking.ports.catalog.connection() as db:
            found = await catalog_keys.page(db, before=position(cursor), limit=limit)
        return KeyPage([key_view(key) for key in found], next_cursor(found, limit, lambda k: k.id))

    @delete(
        "/{key:str}", operation_id="revokeKey", status_code=204, responses=refusals(404, 409, 413)
    )
    async def revoke_key(self, key: FromPath[str], changing: Writing) -> None:
        """End a key: its next call is refused."""

        async def carry_out(db: Connection) -> Effect:
            await revoke_key(db, changing.caller, key)
            return Effect(SavedAnswer(204, {}))

        await changing.perform(carry_out)


def key_view(key: ApiKey) -> KeyView:
    """The JSON of a key."""
    return KeyView(
        id=show("ky", key.id),
        name=key.name,
        roles=key.roles,
        tenant=_tenant(key),
        created_by=key.created_by,
        created_at=key.created_at,
        expires_at=key.expires_at,
        expired=key.expired,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


def issued_key_view(issued: IssuedKey, *, hidden: bool) -> IssuedKeyView:
    """The JSON of a new key; ``hidden`` is how it is kept for repeats: without the token."""
    note = "already shown once under this Idempotency-Key; revoke it and make another"
    return IssuedKeyView(
        id=show("ky", issued.key.id),
        name=issued.key.name,
        roles=issued.key.roles,
        tenant=_tenant(issued.key),
        expires_at=issued.key.expires_at,
        token=None if hidden else issued.plain_token,
        note=note if hidden else None,
    )


def _tenant(key: ApiKey) -> str | None:
    return show("tn", key.tenant_id) if key.tenant_id is not None else None
