"""Drift over HTTP: the fleet by schema, one tenant's difference, and reading it all again."""

import datetime as dt
from typing import Annotated, Literal

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, accept
from control_plane.api.context import Reading, Writing
from control_plane.api.documents import refusals
from control_plane.api.views import OperationView
from control_plane.api.words import NAME_OR_ID
from control_plane.catalog import schemas
from control_plane.catalog.schemas import DriftGroup
from control_plane.domain.schema_diff import as_ddl
from control_plane.services.drift import TenantDrift, start_survey, tenant_drift

_MOST_TENANTS = 1000

TenantName = Annotated[str, Meta(pattern=NAME_OR_ID)]


class DriftGroupView(msgspec.Struct, frozen=True):
    """Tenants with one schema. ``matches`` is null while it, or the golden one, is not known."""

    template: str
    revision: str | None
    postgres_major: int
    fingerprint: str | None
    golden: str | None
    matches: bool | None
    tenants: int
    sample: list[str]
    oldest_reading: dt.datetime | None


class DriftReport(msgspec.Struct, frozen=True):
    """The fleet by template, revision, Postgres major and schema."""

    groups: list[DriftGroupView]


class ChangeView(msgspec.Struct, frozen=True):
    """One object that is not as the golden schema has it."""

    kind: str
    name: str
    action: Literal["missing", "unexpected", "different"]
    golden: str | None
    found: str | None


class TenantDriftView(msgspec.Struct, frozen=True):
    """One tenant's schema as last read; ``ddl`` tells ``changes`` for people."""

    tenant: str
    template: str
    revision: str | None
    postgres_major: int
    fingerprint: str | None
    golden: str | None
    matches: bool | None
    read_at: dt.datetime | None
    changes: list[ChangeView]
    ddl: list[str]


class SurveyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tenants (slugs or ``tn_`` ids) to read again; without ``tenants``, every one."""

    tenants: Annotated[list[TenantName], Meta(min_length=1, max_length=_MOST_TENANTS)] | None = None


class DriftController(Controller):
    """Schemas as they were last read; a survey reads them again."""

    tags = ("operations",)

    @get("/drift", operation_id="getDrift", responses=refusals())
    async def drift(
        self,
        asking: Reading,
        template: Annotated[str | None, QueryParameter(pattern=NAME_OR_ID)] = None,
    ) -> DriftReport:
        """The fleet grouped by schema."""
        async with asking.ports.catalog.connection() as db:
            found = await schemas.groups(db, template)
        return DriftReport([group_view(group) for group in found])

    @get("/tenants/{tenant:str}/drift", operation_id="getTenantDrift", responses=refusals(404))
    async def of_tenant(self, tenant: FromPath[str], asking: Reading) -> TenantDriftView:
        """How a tenant's schema differs from the golden one of its revision."""
        async with asking.ports.catalog.connection() as db:
            return tenant_drift_view(await tenant_drift(db, asking.caller, tenant))

    @post(
        "/drift/surveys",
        operation_id="surveyDrift",
        status_code=202,
        responses=refusals(404, 409, 413),
        response_headers=[LOCATION],
    )
    async def survey(
        self, data: JSONBody[SurveyBody], changing: Writing
    ) -> Response[OperationView]:
        """Read the schemas of these tenants, or of all, again."""
        return await accept(changing, lambda db: start_survey(db, changing.caller, data.tenants))


def group_view(group: DriftGroup) -> DriftGroupView:
    """The JSON of a group."""
    return DriftGroupView(
        template=group.template,
        revision=group.revision,
        postgres_major=group.major,
        fingerprint=group.fingerprint,
        golden=group.golden,
        matches=group.matches,
        tenants=group.tenants,
        sample=group.slugs,
        oldest_reading=group.read_at,
    )


def tenant_drift_view(drift: TenantDrift) -> TenantDriftView:
    """The JSON of a tenant's difference."""
    return TenantDriftView(
        tenant=drift.tenant.slug,
        template=drift.found.template,
        revision=drift.found.revision,
        postgres_major=drift.found.major,
        fingerprint=drift.found.fingerprint,
        golden=drift.found.golden,
        matches=drift.matches,
        read_at=drift.found.read_at,
        changes=[ChangeView(c.kind, c.name, c.action, c.golden, c.found) for c in drift.changes],
        ddl=as_ddl(drift.changes),
    )
