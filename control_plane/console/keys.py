"""API keys: who has which, made and shown once, ended at once."""

import datetime as dt
import hashlib
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect
from msgspec import Meta

from control_plane.catalog import keys as catalog_keys
from control_plane.catalog import tenants
from control_plane.catalog.idempotency import Fingerprint, SavedAnswer
from control_plane.catalog.keys import ApiKey
from control_plane.catalog.pool import Connection
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import NotFound, TenantryError
from control_plane.domain.keys import ROLES, Role
from control_plane.domain.names import parse, show
from control_plane.services.keys import IssuedKey, NewKey, create_key, revoke_key
from control_plane.services.requests import Effect, perform

PAGE = 100
_WORDS: dict[Role, str] = {
    "sales_ops": "makes tenants",
    "operator": "runs what there is: backups, restores, moves, rollouts",
    "security_admin": "servers, keys, people, suspension and deletion",
    "auditor": "sees everything, changes nothing",
    "app": "asks for DSNs; bound to a tenant, for its own only",
    "breakglass": "DSNs of every tenant, with a reason, for 8 hours at most",
}


class KeyForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new key; ``roles`` are lines."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)]
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    roles: Annotated[str, Meta(max_length=200)] = ""
    tenant: Annotated[str, Meta(max_length=60)] | None = None
    days: Annotated[int, Meta(ge=1, le=366)] | None = None

    @property
    def wanted(self) -> NewKey:
        """The request that this form makes."""
        chosen = self.roles.splitlines()
        return NewKey(
            name=self.name,
            roles=tuple(role for role in ROLES if role in chosen),
            tenant=self.tenant,
            lifetime=dt.timedelta(days=self.days) if self.days is not None else None,
        )


class KeyPages(Controller):
    """``{key}`` is a ``ky_`` id."""

    path = "/keys"

    @get(opt=needs("listKeys"))
    async def list_keys(
        self,
        request: AnyRequest,
        visit: Visiting,
        before: Annotated[str, QueryParameter(max_length=40)] = "",
    ) -> Response[str]:
        """Keys, newest first."""
        async with visit.ports.catalog.connection() as db:
            found = await catalog_keys.page(db, before=parse("ky", before), limit=PAGE)
            slugs = await _slugs(db, found)
        following = show("ky", found[-1].id) if len(found) == PAGE else None
        return page(
            request,
            "keys.html",
            keys=found,
            slugs=slugs,
            next_url=f"/console/keys?before={following}" if following else None,
            first_url="/console/keys" if before else None,
        )

    @get("/new", opt=needs("createKey"))
    async def show_form(
        self,
        request: AnyRequest,
        tenant: Annotated[str, QueryParameter(max_length=60)] = "",
    ) -> Response[str]:
        """The form; for a tenant when one is named."""
        typed = {"tenant": tenant, "roles": "app", "name": f"{tenant} app"} if tenant else {}
        return _form(request, typed, None)

    @post(opt=needs("createKey"), status_code=200)
    async def create(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """Make a key and show it, this once; a repeat of the same form is told so."""
        fields = await fields_of(request)
        shown: list[IssuedKey] = []
        try:
            form = read_form(fields, KeyForm)

            async def carry_out(db: Connection) -> Effect:
                shown.append(await create_key(db, visit.caller, form.wanted))
                return Effect(SavedAnswer(201, {"id": show("ky", shown[0].key.id)}))

            saved = await perform(visit.ports, _fingerprint(visit, form), carry_out)
        except TenantryError as error:
            return _form(request, fields, trouble_of(error))
        issued = shown[0] if shown else None
        return page(request, "key_shown.html", issued=issued, shown_id=saved.body["id"])

    @get("/{key:str}/revoke", opt=needs("revokeKey"))
    async def plan_revoke(
        self, key: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """Whose key it is, before it is ended."""
        key_id = parse("ky", key)
        async with visit.ports.catalog.connection() as db:
            found = await catalog_keys.find(db, key_id) if key_id else None
            if found is None:
                raise NotFound(f"there is no key {key!r}")
            slugs = await _slugs(db, [found])
        return page(request, "key_revoke.html", key=found, slugs=slugs)

    @post("/{key:str}/revoke", opt=needs("revokeKey"))
    async def revoke(self, key: FromPath[str], visit: Visiting) -> Redirect:
        """End it: its next call is refused."""
        async with visit.ports.catalog.transaction() as db:
            await revoke_key(db, visit.caller, key)
        return Redirect("/console/keys", status_code=303)


def _form(request: AnyRequest, typed: dict[str, str], trouble: Trouble | None) -> Response[str]:
    return page(
        request,
        "key_new.html",
        trouble.status if trouble else 200,
        typed=typed,
        chosen=typed.get("roles", "").splitlines(),
        roles=list(_WORDS.items()),
        trouble=trouble,
    )


async def _slugs(db: Connection, keys: list[ApiKey]) -> dict[UUID, str]:
    """The slugs of the tenants that keys are bound to."""
    bound = {key.tenant_id for key in keys if key.tenant_id is not None}
    return {one: (await tenants.get(db, one)).slug for one in bound}


def _fingerprint(visit: Visit, form: KeyForm) -> Fingerprint:
    about = msgspec.json.encode([form.name, form.roles, form.tenant, form.days])
    person = visit.caller.principal.key_id
    return Fingerprint(person, form.form_key, hashlib.sha256(about).digest())
