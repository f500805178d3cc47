"""What every way of getting a new tenant has in common: names, a place on a server, credentials.

Every function runs inside the transaction of its request.
"""

from uuid import UUID

import msgspec

from control_plane.adapters.template_files import Template
from control_plane.catalog import databases, routes, servers, tenants
from control_plane.catalog.pool import Connection
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.errors import Conflict, Invalid, NoCapacity, SchemaMismatch, SlugTaken
from control_plane.domain.names import check_slug
from control_plane.domain.placement import Placement, Wish, place
from control_plane.domain.tenants import Tier
from control_plane.router.credentials import new_credential
from control_plane.services.ports import Ports

_PLACEMENT_TRIES = 5


class NewTenant(msgspec.Struct, frozen=True):
    """A request for a tenant."""

    slug: str
    name: str
    tier: Tier = "standard"
    region: str | None = None
    server: str | None = None
    labels: dict[str, str] = {}
    template: str = DEFAULT_TEMPLATE


async def check_names(db: Connection, wanted: NewTenant) -> None:
    """Make sure that slug and name can be a new tenant's.

    Raises:
        Invalid: one of them is malformed, or the slug is reserved.
        SlugTaken: a living tenant has it.
    """
    check_slug(wanted.slug)
    if not wanted.name.strip():
        message = "name the tenant with more than spaces"
        raise Invalid(f"name: {message}", [{"field": "name", "message": message}])
    if await tenants.slug_is_taken(db, wanted.slug):
        raise _taken(wanted.slug)


def template_named(ports: Ports, name: str) -> Template:
    """The template as it is now.

    Raises:
        Invalid: there is none of this name.
        Conflict: its files are broken at the moment; the message names the file.
    """
    if name not in ports.templates.names:
        message = f"there is no template {name!r}; there are {', '.join(ports.templates.names)}"
        raise Invalid(f"template: {message}", [{"field": "template", "message": message}])
    try:
        return ports.templates.current(name)
    except SchemaMismatch as error:
        raise Conflict(error.message) from error


async def reserve_place(db: Connection, template: Template, wish: Wish) -> Placement:
    """Take one place on the server that fits best.

    Raises:
        Invalid: there is no server of the name that was asked for.
        NoCapacity: no server fits; the message says why for each.
    """
    for _ in range(_PLACEMENT_TRIES):
        snapshot = await servers.capacities(db, template.name, template.fingerprint)
        if wish.server is not None and wish.server not in {s.name for s in snapshot}:
            message = f"there is no server {wish.server!r}; see: tenantry servers list"
            raise Invalid(message, [{"field": "server", "message": message}])
        placement = place(wish, snapshot)
        if await servers.reserve(db, placement.server_id, alone=wish.tier == "dedicated"):
            return placement
    raise NoCapacity("every fitting server filled up while this request was placed; try again")


async def make_role_set(db: Connection, ports: Ports, role_set_id: UUID) -> None:
    """Roles with a first credential, which is active."""
    await databases.insert_role_set(db, role_set_id)
    await databases.put_credential(
        db, new_credential(ports.keyring, role_set_id, "a", version=1, state="active")
    )


async def insert_tenant(
    db: Connection, wanted: NewTenant, tenant_id: UUID, placement: Placement
) -> None:
    """Record the tenant as ``provisioning``, with its place in a cell; its role set exists.

    Raises:
        SlugTaken: a living tenant has the slug.
        Conflict: no cell has room.
    """
    row = tenants.NewRow(
        id=tenant_id,
        slug=wanted.slug,
        name=wanted.name,
        tier=wanted.tier,
        template=wanted.template,
        region=wanted.region,
        labels=wanted.labels,
        cell_id=await routes.join_cell(db),
        placement_reason=placement.reason,
    )
    try:
        async with db.transaction():
            await tenants.insert(db, row)
    except Exception as error:
        if getattr(error, "constraint_name", None) != "tenants_slug":
            raise
        raise _taken(wanted.slug) from error


def _taken(slug: str) -> SlugTaken:
    return SlugTaken(f"slug {slug!r} belongs to another tenant; choose another")
