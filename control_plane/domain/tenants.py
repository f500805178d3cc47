"""What a tenant is: states, tiers and the limits each tier's logins get."""

import datetime as dt
from typing import Literal, get_args
from uuid import UUID

import msgspec

TenantState = Literal["provisioning", "active", "suspended", "archived", "deleting", "deleted"]
Tier = Literal["standard", "enterprise", "dedicated"]
TIERS: tuple[Tier, ...] = get_args(Tier)


class LoginLimits(msgspec.Struct, frozen=True):
    """What one login may use on its server; times in milliseconds, 0 means no limit."""

    connections: int
    statement_timeout_ms: int
    idle_in_transaction_ms: int
    lock_timeout_ms: int
    temp_file_limit_mb: int


class TierLimits(msgspec.Struct, frozen=True):
    """Login limits plus the size of the tenant's pools in each pooler process."""

    login: LoginLimits
    pool_size: int
    session_pool_size: int


TIER_LIMITS: dict[Tier, TierLimits] = {
    "standard": TierLimits(LoginLimits(30, 60_000, 60_000, 10_000, 1_024), 5, 5),
    "enterprise": TierLimits(LoginLimits(80, 300_000, 120_000, 30_000, 8_192), 15, 10),
    "dedicated": TierLimits(LoginLimits(200, 0, 300_000, 60_000, 65_536), 40, 20),
}


class OwnLimits(msgspec.Struct, frozen=True):
    """Limits of one tenant other than its tier's; ``None`` is the tier's."""

    pool_size: int | None = None
    session_pool_size: int | None = None
    connections: int | None = None
    statement_timeout_ms: int | None = None
    idle_in_transaction_ms: int | None = None

    def over(self, tier: TierLimits) -> TierLimits:
        """The tier's limits, with these in their places."""
        given = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not None
        }
        pools = {name: given.pop(name) for name in _POOLS if name in given}
        login = msgspec.structs.replace(tier.login, **given)
        return msgspec.structs.replace(tier, login=login, **pools)


_POOLS = ("pool_size", "session_pool_size")
# Two poolers for each cell, each with a pool for the transaction and one for the session endpoint.
POOLERS_OF_A_CELL = 2


def pooled_connections(pool_size: int, session_pool_size: int) -> int:
    """As many connections as the poolers of a cell may want for one login."""
    return POOLERS_OF_A_CELL * (pool_size + session_pool_size)


def pool_problem(limits: TierLimits) -> str | None:
    """Why a login could not get the connections that its pools may want (I-15)."""
    wanted = pooled_connections(limits.pool_size, limits.session_pool_size)
    if wanted < limits.login.connections:
        return None
    return (
        f"two poolers may want {wanted} connections for pools of {limits.pool_size} and "
        f"{limits.session_pool_size}, so connections must be more than {wanted}, not "
        f"{limits.login.connections}"
    )


class Tenant(msgspec.Struct, frozen=True):
    """One customer of the SaaS, as the catalog knows it.

    While it is being deleted, ``delete_after`` is the end of its grace; once its databases are
    gone, ``shred_after`` is when its backups and keys are destroyed.
    """

    id: UUID
    slug: str
    name: str
    tier: Tier
    region: str | None
    labels: dict[str, str]
    state: TenantState
    server: str | None
    template: str
    schema_revision: str | None
    placement_reason: str | None
    cell: str
    created_at: dt.datetime
    activated_at: dt.datetime | None
    operation_id: UUID | None
    operation_kind: str | None
    legal_hold: bool = False
    delete_after: dt.datetime | None = None
    shred_after: dt.datetime | None = None
    own_limits: OwnLimits | None = None

    @property
    def limits(self) -> TierLimits:
        tier = TIER_LIMITS[self.tier]
        return self.own_limits.over(tier) if self.own_limits is not None else tier
