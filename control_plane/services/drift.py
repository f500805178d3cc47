"""What may be asked about drift: the fleet by schema, one tenant's difference, a new survey."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import audit, operations, schemas
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.catalog.schemas import Found
from control_plane.domain.errors import NotFound
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.schema_diff import Change, difference
from control_plane.domain.tenants import Tenant
from control_plane.services.tenants import find_tenant

_FLEET = "fleet"


class TenantDrift(msgspec.Struct, frozen=True):
    """A tenant, what its database was last found to be, and how that differs from golden."""

    tenant: Tenant
    found: Found
    changes: list[Change]

    @property
    def matches(self) -> bool | None:
        """Whether the schema is the golden one; ``None`` if that cannot be told."""
        if self.found.fingerprint is None or self.found.golden is None:
            return None
        return self.found.fingerprint == self.found.golden


async def tenant_drift(db: Connection, caller: Caller, slug_or_id: str) -> TenantDrift:
    """How the tenant's database differs from its golden schema, as it was last read.

    Raises:
        NotFound: there is no such tenant for this caller, or it has no database.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    found = await schemas.of_tenant(db, tenant.id)
    if found is None:
        raise NotFound(f"tenant {tenant.slug} has no database")
    changes: list[Change] = []
    if found.definition is not None and found.golden_definition is not None:
        changes = difference(found.golden_definition, found.definition)
    return TenantDrift(tenant, found, changes)


async def start_survey(db: Connection, caller: Caller, tenants: Sequence[str] | None) -> Operation:
    """Read the schemas of these tenants, or of all, anew.

    Raises:
        NotFound: one of the tenants does not exist.
    """
    wanted = None if tenants is None else [await find_tenant(db, caller, name) for name in tenants]
    subject = _subject(wanted)
    operation = await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["survey"],
            subject=subject,
            actor=caller.principal.name,
            input={} if wanted is None else {"tenants": [str(tenant.id) for tenant in wanted]},
        ),
    )
    await audit.record(db, caller, Entry("drift.survey", subject))
    return operation


def surveyed(operation: Operation) -> list[UUID] | None:
    """The tenants a survey was asked about; ``None`` is every one."""
    given = operation.input.get("tenants")
    return [UUID(str(key)) for key in given] if isinstance(given, list) else None


def _subject(wanted: Sequence[Tenant] | None) -> str:
    if wanted is None:
        return _FLEET
    return wanted[0].slug if len(wanted) == 1 else f"{len(wanted)} tenants"
