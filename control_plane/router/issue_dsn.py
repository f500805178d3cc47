"""A tenant's DSN: the same host, port, database and login through moves and restores."""

import datetime as dt
from typing import Literal
from urllib.parse import quote

import msgspec

from control_plane.adapters.keyring import Keyring
from control_plane.catalog import databases, poolers, routes
from control_plane.catalog.pool import Connection
from control_plane.config import Secret
from control_plane.domain.dsn import driver_hints
from control_plane.domain.errors import WrongState
from control_plane.domain.names import SESSION_SUFFIX, show
from control_plane.domain.tenants import Tenant
from control_plane.router.credentials import open_credential

PoolMode = Literal["transaction", "session"]


class Dsn(msgspec.Struct, frozen=True):
    """Everything an application needs to connect; ``password`` is the only secret.

    ``poolers`` lists every address of the tenant's cell: each serves the same databases.
    """

    login: str
    password: Secret
    database: str
    host: str
    port: int
    pool: PoolMode
    expires_at: dt.datetime | None
    driver_hints: dict[str, str]
    poolers: list[dict[str, str | int]]

    @property
    def uri(self) -> str:
        secret = quote(self.password.reveal(), safe="")
        return f"postgresql://{self.login}:{secret}@{self.host}:{self.port}/{self.database}"


async def issue_dsn(db: Connection, keyring: Keyring, tenant: Tenant, pool: PoolMode) -> Dsn:
    """The DSN of an active tenant; the caller audits before showing it.

    Raises:
        WrongState: the tenant is not active; ``facts`` name the operation it waits for.
        KeyUnavailable: the keyring does not open the secret.
    """
    route = await routes.find(db, tenant.id)
    if tenant.state != "active" or route is None or route.state != "published":
        raise _not_ready(tenant)
    credential = await databases.credential_in(db, tenant.id, "active")
    every = await poolers.every(db, route.cell_id)
    return Dsn(
        login=credential.login,
        password=open_credential(keyring, credential),
        database=route.alias + (SESSION_SUFFIX if pool == "session" else ""),
        host=route.endpoint_host,
        port=route.endpoint_port,
        pool=pool,
        expires_at=credential.retire_at,
        driver_hints=driver_hints([p.version for p in every], pool),
        poolers=[{"name": p.name, "host": p.host, "port": p.port} for p in every],
    )


def _not_ready(tenant: Tenant) -> WrongState:
    if tenant.operation_id is None:
        remedy = "; tenantry tenants resume lets it in again" if tenant.state == "suspended" else ""
        return WrongState(
            f"{tenant.slug} is {tenant.state}; only an active tenant has a DSN{remedy}"
        )
    operation = show("op", tenant.operation_id)
    return WrongState(
        f"{tenant.slug} is {tenant.state}: {tenant.operation_kind} {operation} is in progress",
        operation=operation,
    )
