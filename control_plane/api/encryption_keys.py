"""The keys data is encrypted under, over HTTP: a tenant's rotated, all put under a new root key."""

from typing import Annotated

import msgspec
from litestar import Controller, Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.views import OperationView
from control_plane.catalog.pool import Connection
from control_plane.services.requests import Effect
from control_plane.services.root_keys import start_rekey
from control_plane.services.tenant_keys import rotate


class KeyRotationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``replaces`` is the version that has to be the active one; any when it is left out."""

    replaces: Annotated[int, Meta(ge=0)] | None = None


class KeyRotationView(msgspec.Struct, frozen=True):
    """New data is encrypted under ``version``; ``versions`` are all that still open theirs."""

    tenant: str
    version: int
    versions: list[int]


class KeyRotationController(Controller):
    """The key of one tenant."""

    path = "/tenants/{tenant:str}/key-rotations"
    tags = ("tenants",)

    @post(operation_id="rotateTenantKey", status_code=200, responses=refusals(404, 409, 413))
    async def rotate_tenant_key(
        self,
        tenant: FromPath[str],
        changing: Writing,
        data: JSONBody[KeyRotationBody | None] = None,
    ) -> Response[KeyRotationView]:
        """Encrypt a tenant's backups and fields under a new key from now on."""
        replaces = data.replaces if data is not None else None

        async def carry_out(db: Connection) -> Effect:
            done = await rotate(db, changing.ports, changing.caller, tenant, replaces=replaces)
            return effect(200, KeyRotationView(done.tenant.slug, done.version, done.versions))

        return answer(await changing.perform(carry_out), KeyRotationView)


class RekeyController(Controller):
    """The root key, which everything else hangs from."""

    path = "/keys/rekeys"
    tags = ("access",)

    @post(
        operation_id="startRekey",
        status_code=202,
        responses={**REHEARSED, **refusals(409, 413)},
        response_headers=[LOCATION],
    )
    async def start_rekey(
        self, changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Put every tenant key and every sealed secret under the root key of today."""
        return await accept_or_rehearse(
            changing, lambda db: start_rekey(db, changing.caller), dry_run=dry_run
        )
