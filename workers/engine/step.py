"""What a verb is made of: ordered steps, each of which may run twice.

A step looks whether its result is already there, acts if not, verifies, and returns an outcome.
It never writes operation state, never sleeps and never catches broadly.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from control_plane.adapters.admin_sessions import AdminSessions
from control_plane.adapters.postgres_server import Connection, ServerAddress, connect
from control_plane.catalog import leases, operations, pool, servers
from control_plane.catalog.leases import Lease
from control_plane.catalog.servers import Server
from control_plane.domain.names import encode
from control_plane.domain.operations import Operation
from control_plane.domain.plans import Plan
from control_plane.services.addresses import server_address
from control_plane.services.ports import Ports


class Done(msgspec.Struct, frozen=True):
    """The result is there; ``detail`` is shown to people."""

    detail: str | None = None


class Skip(msgspec.Struct, frozen=True):
    """There was nothing to do; ``reason`` is shown to people."""

    reason: str


class Wait(msgspec.Struct, frozen=True):
    """Not yet: look again in ``seconds``. ``detail`` says what is waited for.

    0 seconds gives way: what waits in the queue comes first, then this goes on.
    """

    seconds: float
    detail: str


Outcome = Done | Skip | Wait


class StepContext:
    """What a step may use: its operation, the ports, and doors that carry the lease.

    ``operation`` is as the lease found it: what steps have done since is in the catalog only.
    """

    def __init__(
        self, operation: Operation, lease: Lease, ports: Ports, sessions: AdminSessions
    ) -> None:
        self.operation = operation
        self.ports = ports
        self.waited_seconds = 0.0
        self._lease = lease
        self._sessions = sessions
        self._inside: dict[tuple[str, str], Connection] = {}

    @property
    def epoch(self) -> int:
        return self._lease.epoch

    @property
    def tenant_id(self) -> UUID:
        """The tenant of this operation; only verbs on tenants ask."""
        if self.operation.tenant_id is None:
            raise TypeError(f"{self.operation.kind} is no operation on a tenant")
        return self.operation.tenant_id

    @property
    def database_id(self) -> UUID:
        """The database of this operation; only verbs on one database ask."""
        if self.operation.database_id is None:
            raise TypeError(f"{self.operation.kind} is no operation on one database")
        return self.operation.database_id

    @property
    def server_id(self) -> UUID:
        """The server of this operation; only verbs on servers ask."""
        if self.operation.server_id is None:
            raise TypeError(f"{self.operation.kind} is no operation on a server")
        return self.operation.server_id

    @property
    def session_name(self) -> str:
        """The name our sessions on tenant servers carry, so that a later epoch can end them."""
        return f"cp:{encode(self.operation.id)}:{self._lease.epoch}"

    @asynccontextmanager
    async def catalog_read(self) -> AsyncIterator[pool.Connection]:
        """A connection for looking."""
        async with self.ports.catalog.connection() as db:
            yield db

    @asynccontextmanager
    async def catalog_write(self) -> AsyncIterator[pool.Connection]:
        """A transaction that commits only while this worker still owns the operation.

        Raises:
            LeaseLost: it does not.
        """
        async with self.ports.catalog.transaction() as db:
            await leases.guard(db, self._lease)
            yield db

    async def tell(self, detail: str) -> None:
        """Say how far the running step has come; whoever watches the operation hears of it.

        Raises:
            LeaseLost: another worker owns the operation.
        """
        async with self.catalog_write() as db:
            await operations.tell(db, self.operation.id, detail)

    @asynccontextmanager
    async def admin(self, server: Server) -> AsyncIterator[Connection]:
        """A maintenance connection to a tenant server, under this operation's lock there.

        Sessions that an earlier epoch left behind are ended first.
        """
        async with self._sessions.session(
            server.id, self.address(server), self.session_name
        ) as connection:
            yield connection

    async def inside(self, server: Server, database: str, use: str = "") -> Connection:
        """An administrator's connection inside a tenant database, kept until the lease ends.

        There is one for each ``use``.

        Raises:
            LeaseLost: another worker owns the operation.
        """
        held = self.held(database, use)
        if held is None:
            held = await connect(self.address(server), database, self.session_name)
            self._inside[database, use] = held
            # In this order: a successor ends every session that was there when it took over,
            # and whoever makes another one from then on is told here.
            async with self.catalog_read() as db:
                await leases.guard(db, self._lease)
        return held

    def held(self, database: str, use: str = "") -> Connection | None:
        """What ``inside`` has opened under this lease, if it still is."""
        held = self._inside.get((database, use))
        return None if held is None or held.is_closed() else held

    def leave_database(self, database: str) -> None:
        """Close what ``inside`` opened in this database, which is about to go."""
        for key in [key for key in self._inside if key[0] == database]:
            self._inside.pop(key).terminate()

    def leave(self) -> None:
        """Close what ``inside`` opened."""
        for connection in self._inside.values():
            connection.terminate()
        self._inside.clear()

    def address(self, server: Server) -> ServerAddress:
        return server_address(self.ports.keyring, server)

    async def server(self, server_id: UUID) -> Server:
        async with self.catalog_read() as db:
            return await servers.get(db, server_id)


Step = Callable[[StepContext], Awaitable[Outcome]]
Abandon = Callable[[StepContext, pool.Connection], Awaitable[None]]
Follow = Callable[[Ports], Awaitable[None]]


class Verb(msgspec.Struct, frozen=True):
    """A plan with its steps.

    ``abandon`` undoes what the request reserved; it runs in the transaction that ends the
    operation as failed or cancelled, so it only writes the catalog. ``follow`` begins what may
    have waited for the end of such an operation; some tick does the same a little later.
    """

    plan: Plan
    steps: tuple[Step, ...]
    abandon: Abandon | None = None
    follow: Follow | None = None

    def __post_init__(self) -> None:
        registered = tuple(step.__name__ for step in self.steps)
        if registered != self.plan.steps:
            raise ValueError(f"{self.plan.kind}: {registered} are not the plan {self.plan.steps}")
