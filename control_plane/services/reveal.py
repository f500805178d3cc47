"""Showing a tenant's DSN: recorded before it is shown, never stored, never shown twice."""

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import audit
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import CatalogUnavailable, Invalid
from control_plane.domain.names import encode
from control_plane.router.issue_dsn import Dsn, PoolMode, issue_dsn
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant


class Revealed(msgspec.Struct, frozen=True):
    """A DSN and the id of this showing, which its audit event carries."""

    lease_id: str
    dsn: Dsn


async def reveal_dsn(
    db: Connection,
    ports: Ports,
    caller: Caller,
    slug_or_id: str,
    *,
    pool: PoolMode,
    reason: str | None,
) -> Revealed:
    """The DSN with its audit event in the same transaction: show it only after the commit.

    Raises:
        Invalid: a break-glass key gave no reason.
        CatalogUnavailable: the showing could not be recorded (S-25).
        NotFound, WrongState, KeyUnavailable: see ``issue_dsn``.
    """
    if "breakglass" in caller.principal.roles and not reason:
        message = "a break-glass key says why it looks"
        raise Invalid(message, [{"field": "reason", "message": message}])
    tenant = await find_tenant(db, caller, slug_or_id)
    dsn = await issue_dsn(db, ports.keyring, tenant, pool)
    lease_id = f"ls_{encode(clock.new_id())}"
    facts: dict[str, object] = {"lease_id": lease_id, "login": dsn.login, "pool": pool}
    entry = Entry("dsn.reveal", tenant.slug, tenant_id=tenant.id, reason=reason, facts=facts)
    try:
        await audit.record(db, caller, entry)
    except Exception as error:
        message = "the audit log cannot be written, and nothing is shown without it; try again"
        raise CatalogUnavailable(message) from error
    return Revealed(lease_id, dsn)
