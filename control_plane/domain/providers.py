"""Servers that are made to order: what may be asked of a provider."""

from typing import Literal, get_args
from uuid import UUID

import msgspec

from control_plane.domain.names import encode
from control_plane.domain.tenants import Tier

ProviderKind = Literal["local", "rds", "cnpg"]
PROVIDERS: tuple[ProviderKind, ...] = get_args(ProviderKind)
# ``move --to new`` means a server that is made for the tenant.
NEW_SERVER = "new"


class ServerWish(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of server: the machine for its provider, the rest for placement.

    ``None`` leaves it to the provider. ``reserved``: nobody is placed there before the tenant that
    it is made for.
    """

    region: str | None = None
    instance_class: str | None = None
    storage_gb: int | None = None
    version: int | None = None
    tier: Tier | None = None
    capacity: int = 500
    labels: dict[str, str] = {}
    reserved: bool = False


def instance_name(key: UUID) -> str:
    """What a provider's own console shows a server as: derived from its id."""
    return f"tenantry-{encode(key)}"
