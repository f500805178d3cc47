"""A new rollout: what it would do, wave by wave and with its SQL, and then its start."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.response import Redirect
from msgspec import Meta

from control_plane.adapters.revisions import readable_sql
from control_plane.catalog import operations, servers
from control_plane.catalog.pool import Connection
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting, new_form_key
from control_plane.domain.errors import Conflict, Invalid, SchemaMismatch, TenantryError
from control_plane.domain.names import parse
from control_plane.domain.operations import Operation
from control_plane.domain.rollouts import Options, Selector, parse_share, wave_name
from control_plane.domain.tenants import TIERS
from control_plane.services import rollouts
from control_plane.services.rollouts import Compiled, NewRollout

_PARALLEL_MOST = 256


class StartForm(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it is asked for; what is left empty takes everybody, and the newest revision."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)]
    template: Annotated[str, Meta(max_length=100)] = DEFAULT_TEMPLATE
    revision: Annotated[str, Meta(max_length=100)] | None = None
    tier: str | None = None
    server: str | None = None
    label: Annotated[str, Meta(max_length=400)] | None = None
    canary: Annotated[int, Meta(ge=0, le=10_000)] = 1
    waves: Annotated[str, Meta(max_length=200)] = "5%,25%,100%"
    halt_at: Annotated[str, Meta(max_length=10)] = "2%"
    per_server: Annotated[int, Meta(ge=1, le=_PARALLEL_MOST)] = 8

    @property
    def wanted(self) -> NewRollout:
        """What it means.

        Raises:
            Invalid: a share or the label cannot be read.
        """
        return NewRollout(
            template=self.template,
            revision=self.revision,
            selector=Selector(
                tiers=(self.tier,) if self.tier else (),
                servers=(self.server,) if self.server else (),
                labels=_label(self.label),
            ),
            options=Options(
                canary=self.canary,
                waves=tuple(_share("waves", one) for one in self.waves.split(",")),
                halt_at=_share("halt_at", self.halt_at),
                per_server=self.per_server,
            ),
        )


class RolloutStartPages(Controller):
    """Only operators come here."""

    path = "/rollouts/new"

    @get(opt=needs("startRollout"))
    async def ask(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """Which template, for whom, and how carefully."""
        return await _form(request, visit)

    @get("/plan", opt=needs("startRollout"))
    async def plan(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """What would be done at this moment, refused or not; nothing is begun."""
        fields = {name: str(value) for name, value in request.query_params.items() if value}
        trouble, preview = None, None
        try:
            wanted = read_form({**fields, "form_key": new_form_key()}, StartForm).wanted
            compiled = await _compile(visit, wanted)
            async with visit.ports.catalog.snapshot() as db:
                preview = await rollouts.preview_rollout(db, compiled, wanted)
        except TenantryError as error:
            trouble = trouble_of(error)
        return page(
            request,
            "_rollout_plan.html",
            preview=preview,
            trouble=trouble,
            wave_name=wave_name,
            readable_sql=readable_sql,
        )

    @post(opt=needs("startRollout"))
    async def start(self, request: AnyRequest, visit: Visiting) -> Response[Any]:
        """Begin it; its page shows the waves."""
        fields = await fields_of(request)
        try:
            form = read_form(fields, StartForm)
            wanted = form.wanted
            # Before the transaction, because compiling takes its time.
            compiled = await _compile(visit, wanted)

            async def work(db: Connection) -> Operation:
                return await rollouts.start_rollout(db, visit.caller, compiled, wanted)

            begun = await visit.begin(work, form.form_key, fields)
        except TenantryError as error:
            return await _form(request, visit, trouble_of(error), fields)
        return Redirect(f"/console/rollouts/{await _rollout_of(visit, begun)}", status_code=303)


async def _form(
    request: AnyRequest,
    visit: Visit,
    trouble: Trouble | None = None,
    typed: dict[str, str] | None = None,
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        names = [server.name for server in await servers.every(db)]
    return page(
        request,
        "rollout_new.html",
        trouble.status if trouble else 200,
        templates=sorted(visit.ports.templates.names),
        default=DEFAULT_TEMPLATE,
        tiers=TIERS,
        servers=names,
        trouble=trouble,
        typed=typed or {},
        most=_PARALLEL_MOST,
    )


async def _compile(visit: Visit, wanted: NewRollout) -> Compiled:
    try:
        return await rollouts.compile_template(visit.ports, wanted.template, wanted.revision)
    except SchemaMismatch as error:
        raise Conflict(error.message) from error


async def _rollout_of(visit: Visit, shown_operation: str) -> str:
    key = parse("op", shown_operation)
    assert key is not None  # noqa: S101 - recorded just now
    async with visit.ports.catalog.connection() as db:
        return (await operations.get(db, key)).subject


def _share(field: str, text: str) -> float:
    try:
        return parse_share(text)
    except Invalid as error:
        raise Invalid(error.message, [{"field": field, "message": error.message}]) from error


def _label(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    key, equals, value = text.partition("=")
    if not (key and equals):
        message = "write a label as key=value, for example region=north"
        raise Invalid(message, [{"field": "label", "message": message}])
    return {key.strip(): value.strip()}
