"""What the provisioning form asks before anything is recorded: names that are free, and a place."""

import msgspec

from control_plane.catalog import tenants
from control_plane.catalog.audit import Caller
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid, TenantryError
from control_plane.domain.names import check_slug, suggest_slug
from control_plane.domain.operations import Operation
from control_plane.domain.tenants import Tenant
from control_plane.services.placing import NewTenant
from control_plane.services.ports import Ports
from control_plane.services.rehearsal import rehearse
from control_plane.services.tenants import create_tenant

_TRIES = 50


class Rehearsed(msgspec.Struct, frozen=True):
    """What would be made at this moment; ``claimed``: a database is ready and only has to be named.

    Nothing of it was kept.
    """

    operation: Operation
    tenant: Tenant

    @property
    def claimed(self) -> bool:
        return bool(self.operation.input.get("claimed"))


async def free_slug(db: Connection, name: str) -> str:
    """A slug made of the name that nobody has; empty when there is nothing in it to make one of."""
    wanted = suggest_slug(name)
    if not wanted:
        return ""
    for number in range(1, _TRIES):
        tail = f"-{number}" if number > 1 else ""
        slug = wanted[: 40 - len(tail)].rstrip("-") + tail
        if await slug_problem(db, slug) is None:
            return slug
    return wanted


async def slug_problem(db: Connection, slug: str) -> str | None:
    """Why the slug cannot be a new tenant's, in words for the field."""
    try:
        check_slug(slug)
    except Invalid as error:
        return error.errors[0]["message"]
    if await tenants.slug_is_taken(db, slug):
        return f"{slug} belongs to another tenant; choose another"
    return None


async def rehearse_tenant(ports: Ports, caller: Caller, wanted: NewTenant) -> Rehearsed:
    """Where the tenant would go, and why; whatever was written for it is taken back.

    Raises:
        TenantryError: what ``create_tenant`` would raise.
    """

    async def work(db: Connection) -> Rehearsed:
        return await rehearse_in(db, ports, caller, wanted)

    return await rehearse(ports, work)


async def rehearse_in(db: Connection, ports: Ports, caller: Caller, wanted: NewTenant) -> Rehearsed:
    """The same inside a transaction that the caller takes back.

    Raises:
        TenantryError: what ``create_tenant`` would raise.
    """
    operation = await create_tenant(db, ports, caller, wanted)
    if operation.tenant_id is None:
        raise TenantryError("a tenant was created without an id")
    return Rehearsed(operation, await tenants.get(db, operation.tenant_id))
