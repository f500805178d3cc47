"""Shred: what is stored of a tenant is deleted, its keys are destroyed, and that is certified.

A legal hold is looked for under the tenant's lock before the first object goes; from then on none
can be set.
"""

import asyncio

from control_plane.adapters import clock, signatures
from control_plane.adapters.object_stores import clearing
from control_plane.catalog import audit, certificates, holds, lifecycle, tenants
from control_plane.catalog.audit import Entry
from control_plane.catalog.certificates import Certificate
from control_plane.catalog.pool import Connection
from control_plane.domain import certificates as wording
from control_plane.domain.backups import tenant_folders
from control_plane.domain.certificates import Facts
from control_plane.domain.errors import WrongState
from control_plane.domain.names import show
from control_plane.domain.plans import PLANS
from control_plane.services import tenant_keys
from control_plane.services.backups import require_store
from control_plane.services.signing import signer
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb


async def delete_objects(ctx: StepContext) -> Outcome:
    """Nothing of the tenant is in the store: no backup, no export, nothing half-made."""
    await _refuse_held(ctx)
    async with ctx.catalog_read() as db:
        stored = await lifecycle.has_stored(db, ctx.tenant_id)
    if ctx.ports.store is None and not stored:
        return Skip("no store is configured, and nothing was stored")
    store = require_store(ctx.ports)
    gone = 0
    for folder in tenant_folders(ctx.tenant_id):
        gone += await asyncio.to_thread(clearing.clear, store, folder)
    async with ctx.catalog_write() as db:
        await lifecycle.mark_objects_deleted(db, ctx.tenant_id)
    return Done(f"{gone} objects")


async def destroy_keys(ctx: StepContext) -> Outcome:
    """No version of the tenant's key will ever open anything again."""
    await _refuse_held(ctx)
    async with ctx.catalog_write() as db:
        destroyed = await tenant_keys.destroy(db, ctx.ports, ctx.tenant_id)
    return Done(f"{destroyed} versions")


async def issue_certificate(ctx: StepContext) -> Outcome:
    """A signed certificate says what was destroyed, and what could not be reached until when."""
    await _look_again(ctx)
    async with ctx.catalog_write() as db:
        if await certificates.of_tenant(db, ctx.tenant_id) is None:
            facts = await _facts(ctx, db)
            document = wording.certificate(facts)
            signing = await signer(db, ctx.ports.keyring)
            await certificates.insert(
                db,
                Certificate(
                    id=facts.certificate_id,
                    tenant_id=ctx.tenant_id,
                    issued_at=facts.issued_at,
                    document=document,
                    signature=signing.sign(signatures.canonical(document)),
                    public_key=signing.public_key,
                ),
            )
        issued = await certificates.of_tenant(db, ctx.tenant_id)
    return Done(show("ce", issued.id) if issued else None)


async def mark_deleted(ctx: StepContext) -> Outcome:
    """The tenant is deleted: its slug and its place in the cell are free, its secrets are gone."""
    async with ctx.catalog_write() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        if tenant.state == "deleted":
            return Done()
        await holds.refuse_held(db, ctx.tenant_id)
        await lifecycle.mark_deleted(db, ctx.tenant_id)
        issued = await certificates.of_tenant(db, ctx.tenant_id)
        if issued is None:
            raise WrongState("there is no certificate yet")
        facts: dict[str, object] = {"certificate": show("ce", issued.id)}
        entry = Entry("tenant.deleted", tenant.slug, tenant_id=tenant.id, facts=facts)
        await audit.record_system(db, entry)
    return Done()


async def _refuse_held(ctx: StepContext) -> None:
    async with ctx.catalog_write() as db:
        await holds.refuse_held(db, ctx.tenant_id)


async def _look_again(ctx: StepContext) -> None:
    """What the certificate says about the store is true at this moment."""
    if ctx.ports.store is not None:
        for folder in tenant_folders(ctx.tenant_id):
            await asyncio.to_thread(clearing.require_clear, ctx.ports.store, folder)


async def _facts(ctx: StepContext, db: Connection) -> Facts:
    now = clock.now()
    tenant = await tenants.get(db, ctx.tenant_id)
    return Facts(
        certificate_id=clock.new_id(),
        tenant_id=tenant.id,
        slug=tenant.slug,
        name=tenant.name,
        created_at=tenant.created_at,
        issued_at=now,
        looked_at=now,
        deletion=await certificates.deletion(db, tenant.id),
        databases=await certificates.dropped_databases(db, tenant.id),
        backups=await certificates.deleted_backups(db, tenant.id),
        exports=await certificates.deleted_exports(db, tenant.id),
        keys=await certificates.destroyed_keys(db, tenant.id),
        copies_days=ctx.ports.settings.backup.copies_kept_days,
        store=ctx.ports.store.url if ctx.ports.store is not None else None,
    )


VERB = Verb(
    plan=PLANS["shred"],
    steps=(delete_objects, destroy_keys, issue_certificate, mark_deleted),
)
