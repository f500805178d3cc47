"""A clinic of realistic size on a throw-away server."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.tenant_roles import bootstrap_server
from tests.integration.tenant_server.clinic import (
    Clinic,
    Place,
    built_template,
    provision,
    system_identifier_of,
)
from tests.integration.tenant_server.postgres_fixture import TenantServer, running_server

FULL_PATIENTS = 100_000
PROVIDERS = 2_000
_DATA = Path(__file__).with_name("clinic_data.sql")
# The load writes two gigabytes of log; nothing of it is worth a checkpoint. Autovacuum would come
# at a moment of its own, and the statistics must be the same in every run.
_SERVER = {
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "full_page_writes": "off",
    "autovacuum": "off",
}


@dataclass(frozen=True)
class LoadedClinic:
    """``app`` is a connection as the application's login, ``admin`` as the administrator."""

    clinic: Clinic
    app: Connection
    admin: Connection
    load_seconds: float


@asynccontextmanager
async def loaded_clinic(version: int, patients: int) -> AsyncIterator[LoadedClinic]:
    """A clinic with ``patients`` patients and ten times as many appointments, with statistics."""
    with running_server(version) as server:
        clinic = await provision(await _place(server))
        async with clinic.inside() as admin:
            began = time.perf_counter()
            await load(admin, patients)
            seconds = time.perf_counter() - began
            app = await clinic.app()
            try:
                yield LoadedClinic(clinic, app, admin, seconds)
            finally:
                await app.close()


async def load(admin: Connection, patients: int, providers: int = PROVIDERS) -> None:
    """Fill the empty clinic that ``admin``, a superuser, is connected to."""
    await admin.execute("SET session_replication_role = replica")
    for name, value in (("patients", patients), ("providers", providers)):
        await admin.execute("SELECT set_config('clinic.' || $1, $2, false)", name, str(value))
    await admin.execute(_DATA.read_text())
    await admin.execute("VACUUM (ANALYZE)")


async def _place(server: TenantServer) -> Place:
    admin = await server.admin()
    try:
        for setting, value in _SERVER.items():
            await admin.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        await admin.execute("SELECT pg_reload_conf()")
        await bootstrap_server(admin)
        system_identifier = await system_identifier_of(admin)
    finally:
        await admin.close()
    return Place(server, await built_template(server, system_identifier), system_identifier)
