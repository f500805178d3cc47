"""The keys an application encrypts a tenant's fields with: recorded, then shown (S-25).

A tenant's own key never leaves the control plane, because more than fields hang from it. What an
application gets is derived for applications, and everything it needs is derived from that.
"""

import base64
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control_plane.adapters.key_file import KEY_BYTES
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.catalog.tenant_keys import UsableState
from control_plane.config import Secret
from control_plane.domain.errors import WrongState
from control_plane.services.ports import Ports
from control_plane.services.showing import new_lease_id, record_showing, require_reason
from control_plane.services.tenant_keys import TenantKeyMaterial, every_key
from control_plane.services.tenant_keys import open_ahead as open_keys_ahead
from control_plane.services.tenants import find_tenant


class FieldKey(msgspec.Struct, frozen=True):
    """One version of an application's key: 32 bytes, in base64."""

    version: int
    key: Secret
    state: UsableState

    @property
    def plain(self) -> str:
        """The key itself, for the one answer that shows it."""
        return self.key.reveal()


class FieldKeys(msgspec.Struct, frozen=True):
    """All versions, and the id of this showing, which its audit event carries."""

    lease_id: str
    tenant_id: UUID
    keys: list[FieldKey]


async def reveal_field_keys(
    db: Connection, ports: Ports, caller: Caller, slug_or_id: str, *, reason: str | None
) -> FieldKeys:
    """The keys with their audit event in the same transaction: show them only after the commit.

    The first request of a tenant makes its key.

    Raises:
        Invalid: a break-glass key gave no reason.
        WrongState: the tenant is not active.
        CatalogUnavailable: the showing could not be recorded.
        NotFound, KeyUnavailable: see ``find_tenant`` and ``every_key``.
    """
    require_reason(caller, reason)
    tenant = await find_tenant(db, caller, slug_or_id)
    if tenant.state != "active":
        raise WrongState(f"{tenant.slug} is {tenant.state}; only an active tenant shows its keys")
    held = await every_key(db, ports, tenant.id)
    keys = [FieldKey(key.version, _application_key(tenant.id, key), key.state) for key in held]
    lease_id = new_lease_id()
    facts: dict[str, object] = {"lease_id": lease_id, "versions": [key.version for key in keys]}
    entry = Entry("field_keys.reveal", tenant.slug, tenant_id=tenant.id, reason=reason, facts=facts)
    await record_showing(db, caller, entry)
    return FieldKeys(lease_id, tenant.id, keys)


async def open_ahead(ports: Ports, caller: Caller, slug_or_id: str) -> None:
    """Open what ``reveal_field_keys`` will show, before its transaction begins.

    Raises:
        NotFound, KeyUnavailable: see there.
    """
    async with ports.catalog.connection() as db:
        tenant = await find_tenant(db, caller, slug_or_id)
    await open_keys_ahead(ports, tenant.id)


def _application_key(tenant_id: UUID, key: TenantKeyMaterial) -> Secret:
    """HKDF-SHA256 of the tenant's key: salt is the tenant's id, info ``app|version``."""
    info = f"app|{key.version}".encode()
    derive = HKDF(hashes.SHA256(), KEY_BYTES, salt=tenant_id.bytes, info=info)
    return Secret(base64.b64encode(derive.derive(key.key)).decode())
