"""Showing a tenant's DSN: recorded before it is shown, never stored, never shown twice."""

import msgspec

from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.router.issue_dsn import Dsn, PoolMode, issue_dsn
from control_plane.services.ports import Ports
from control_plane.services.showing import new_lease_id, record_showing, require_reason
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
    require_reason(caller, reason)
    tenant = await find_tenant(db, caller, slug_or_id)
    dsn = await issue_dsn(db, ports.keyring, tenant, pool)
    lease_id = new_lease_id()
    facts: dict[str, object] = {"lease_id": lease_id, "login": dsn.login, "pool": pool}
    entry = Entry("dsn.reveal", tenant.slug, tenant_id=tenant.id, reason=reason, facts=facts)
    await record_showing(db, caller, entry)
    return Revealed(lease_id, dsn)
