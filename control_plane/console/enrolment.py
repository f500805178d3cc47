"""Enrolling a server: a look at it first, with every finding, then the enrolment."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.response import Redirect
from msgspec import Meta

from control_plane.catalog.servers import Tls
from control_plane.config import Secret
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visiting
from control_plane.domain.errors import TenantryError
from control_plane.domain.tenants import TIERS, Tier
from control_plane.services import servers
from control_plane.services.enrolment import NewServer, probe_server


class EnrolForm(msgspec.Struct, frozen=True, kw_only=True):
    """The server and its administrator; without ``tier`` it takes every shared one."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)] = ""
    name: Annotated[str, Meta(max_length=60)]
    host: Annotated[str, Meta(max_length=253)]
    port: int = 5432
    user: Annotated[str, Meta(max_length=200)]
    password: Annotated[str, Meta(max_length=1000)]
    region: Annotated[str, Meta(max_length=200)] | None = None
    tier: Tier | None = None
    capacity: int = 500
    tls: Tls | None = None
    ca_pem: Annotated[str, Meta(max_length=32_768)] | None = None

    @property
    def wanted(self) -> NewServer:
        """The request that this form makes."""
        return NewServer(
            name=self.name,
            host=self.host,
            port=self.port,
            user=self.user,
            password=Secret(self.password),
            region=self.region,
            tier=self.tier,
            capacity=self.capacity,
            tls=self.tls,
            ca_pem=self.ca_pem,
        )


class EnrolmentPages(Controller):
    """``/console/enrol``."""

    path = "/enrol"

    @get(opt=needs("addServer"))
    async def show(self, request: AnyRequest) -> Response[str]:
        """The form."""
        return _form(request, {}, None)

    @post("/look", opt=needs("addServer"), status_code=200)
    async def look(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """What a look at the server finds; nothing is written."""
        fields = await fields_of(request)
        try:
            form = read_form(fields, EnrolForm)
            probed = await probe_server(visit.ports, form.wanted)
        except TenantryError as error:
            trouble = trouble_of(error)
            return page(request, "_findings_of.html", 200, trouble=trouble, probed=None)
        return page(request, "_findings_of.html", trouble=None, probed=probed)

    @post(opt=needs("addServer"))
    async def enrol(self, request: AnyRequest, visit: Visiting) -> Response[Any]:
        """Look at it once more and enrol it; its steps are shown live."""
        fields = await fields_of(request)
        try:
            form = read_form(fields, EnrolForm)
            wanted = form.wanted
            # Before the transaction, because a look at a server takes its time.
            probed = await probe_server(visit.ports, wanted)
            begun = await visit.begin(
                lambda db: servers.add_server(db, visit.ports, visit.caller, wanted, probed),
                form.form_key,
                fields,
            )
        except TenantryError as error:
            return _form(request, fields, trouble_of(error))
        return Redirect(f"/console/operations/{begun}", status_code=303)


def _form(request: AnyRequest, typed: dict[str, str], trouble: Trouble | None) -> Response[str]:
    """The form with what was typed, but never with the password."""
    typed = {name: value for name, value in typed.items() if name != "password"}
    status = trouble.status if trouble else 200
    return page(request, "enrol.html", status, typed=typed, trouble=trouble, tiers=TIERS)
