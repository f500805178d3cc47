"""What makes a started stack useful: its servers enrolled, the demo clinic provisioned."""

import asyncio
import json
from collections.abc import Callable, Sequence

from deploy.local.application import Application
from deploy.local.limited import is_enough, limited_administrator, limited_password_file
from deploy.local.options import ServerOptions
from deploy.local.ports import LOOPBACK
from deploy.local.postgres import PostgresServer, administrator

DEMO_SLUG = "demo-clinic"
DEMO_NAME = "Demo Clinic"


async def enrol_servers(
    application: Application,
    servers: Sequence[tuple[PostgresServer, ServerOptions]],
    report: Callable[[str], None],
    *,
    limited: bool,
) -> None:
    """Enrol the servers that the catalog does not have yet, all at once.

    ``limited``: with an administrator that is no superuser, where the version allows that.
    """
    listed = await application.tenantry("list of servers", "servers", "list", "--json")
    known = {server["name"] for server in json.loads(listed.stdout)}
    async with asyncio.TaskGroup() as group:
        for server, wanted in servers:
            if server.name not in known:
                bounded = limited and is_enough(server)
                group.create_task(_enrol(application, server, wanted, report, limited=bounded))


async def provision_demo(application: Application, report: Callable[[str], None]) -> None:
    """Provision the demo clinic unless it exists."""
    listed = await application.tenantry("list of tenants", "tenants", "list", "--json")
    if any(tenant["slug"] == DEMO_SLUG for tenant in json.loads(listed.stdout)):
        return
    await application.tenantry(
        f"provisioning of {DEMO_SLUG}",
        *("tenants", "create", DEMO_SLUG, "--name", DEMO_NAME, "--wait"),
    )
    report(f"{DEMO_SLUG} provisioned")


async def _enrol(
    application: Application,
    server: PostgresServer,
    wanted: ServerOptions,
    report: Callable[[str], None],
    *,
    limited: bool,
) -> None:
    login = await limited_administrator(server) if limited else administrator(server)
    password = limited_password_file(server) if limited else server.password_file
    await application.tenantry(
        f"enrolment of {server.name}",
        *("servers", "add", server.name, "--host", LOOPBACK, "--port", str(server.port)),
        *("--user", login.user, "--region", wanted.region, "--capacity", str(wanted.capacity)),
        "--wait",
        more={"TENANTRY_SERVER_PASSWORD_FILE": str(password)},
    )
    report(f"{server.name} enrolled")
