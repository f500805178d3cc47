"""Migrations over HTTP: one tenant brought to a revision."""

from typing import Any, Literal

import msgspec
from litestar import Controller, Response, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody

from control_plane.api.acceptance import LOCATION, DryRun, accept
from control_plane.api.context import Changing, Writing, answer
from control_plane.api.documents import refusals
from control_plane.api.revisions import (
    LintFindingView,
    RevisionView,
    compile_now,
    finding_views,
    revision_views,
)
from control_plane.api.rollouts import RevisionId
from control_plane.api.views import OperationView
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import LintRefused
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import Tenant
from control_plane.services import rollouts
from control_plane.services.rehearsal import rehearse
from control_plane.services.rollouts import Compiled
from control_plane.services.tenants import find_tenant


class MigrationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to; the newest revision of the tenant's template when it is left out."""

    revision: RevisionId | None = None


class MigrationPreview(msgspec.Struct, frozen=True):
    """What a migration would do; ``refusal`` is why the lint would not let it. Nothing changed."""

    dry_run: Literal[True]
    kind: Literal["migrate"]
    tenant: str
    steps: list[str]
    deadline_seconds: int
    template: str
    from_revision: str | None
    to_revision: str
    revisions: list[RevisionView]
    findings: list[LintFindingView]
    refusal: str | None


_PREVIEWED = {
    200: ResponseSpec(
        data_container=MigrationPreview,
        description="What would be done (dry_run); nothing was changed",
        generate_examples=False,
    )
}


class MigrationController(Controller):
    """The schema of one tenant."""

    path = "/tenants/{tenant:str}/migrations"
    tags = ("tenants",)

    @post(
        operation_id="migrateTenant",
        status_code=202,
        responses={**_PREVIEWED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def migrate_tenant(
        self,
        tenant: FromPath[str],
        changing: Writing,
        data: JSONBody[MigrationBody | None] = None,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Bring one tenant to a revision, after recording where it could be taken back to."""
        saved = None if dry_run else await changing.recall()
        if saved is not None:
            return answer(saved, OperationView)
        async with changing.ports.catalog.connection() as db:
            found = await find_tenant(db, changing.caller, tenant)
        revision = data.revision if data is not None else None
        compiled = await compile_now(changing.ports, found.template, revision)
        if dry_run:
            return await _preview(changing, found, compiled)
        return await accept(
            changing, lambda db: rollouts.migrate_tenant(db, changing.caller, tenant, compiled)
        )


async def _preview(changing: Changing, tenant: Tenant, compiled: Compiled) -> Response[Any]:
    """What would be done, and whether it would be accepted."""

    async def look(db: Connection) -> str | None:
        try:
            await rollouts.migrate_tenant(db, changing.caller, tenant.slug, compiled)
        except LintRefused as error:
            return error.message
        return None

    refusal = await rehearse(changing.ports, look)
    return Response(_preview_view(tenant, compiled, refusal), status_code=200)


def _preview_view(tenant: Tenant, compiled: Compiled, refusal: str | None) -> MigrationPreview:
    ids = [revision.id for revision in compiled.path]
    lacking = compiled.path[ids.index(tenant.schema_revision or "") + 1 :]
    plan = PLANS["migrate"]
    return MigrationPreview(
        dry_run=True,
        kind="migrate",
        tenant=tenant.slug,
        steps=list(plan.steps),
        deadline_seconds=int(plan.deadline.total_seconds()),
        template=compiled.template.name,
        from_revision=tenant.schema_revision,
        to_revision=compiled.target,
        revisions=revision_views(lacking),
        findings=finding_views(
            [f for f in compiled.findings if f.revision in {r.id for r in lacking}]
        ),
        refusal=refusal,
    )
