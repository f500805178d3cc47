"""One tenant's way from a server to another, by the adapters alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg

from control_plane.adapters import comparison, replication, subscriptions
from control_plane.adapters.backup_login import close_backup_login, open_backup_login
from control_plane.adapters.move_survey import read_source
from control_plane.adapters.move_target import (
    create_target,
    ensure_marker,
    furnish_target,
    open_loader,
    settle_target,
)
from control_plane.adapters.pace import Pace
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.schema_copy import Place as Side
from control_plane.adapters.schema_copy import archive, dump_schema, restore_schema
from control_plane.adapters.scratch_database import loader_of
from control_plane.adapters.table_copy import TableCopy
from control_plane.adapters.tenant_database import drop_tenant_database, write_identity
from control_plane.adapters.tenant_roles import drop_role_set, ensure_role_set
from control_plane.domain.backups import TableContent
from control_plane.domain.moves import Link, SourceFacts
from control_plane.domain.names import database_name
from tests.integration.tenant_server.clinic import LIMITS, Clinic, Place

SESSION = "cp:test:1"


async def unheard(_: object) -> None:
    """Nobody is told how far it is."""


@dataclass
class Journey:
    """A clinic on its way to ``target``."""

    clinic: Clinic
    target: Place
    operation: UUID = field(default_factory=uuid4)
    target_id: UUID = field(default_factory=uuid4)

    @property
    def there(self) -> str:
        return database_name(self.target_id)

    @property
    def link(self) -> Link:
        return Link(self.operation)

    @property
    def back(self) -> Link:
        return Link(self.operation, back=True)

    @asynccontextmanager
    async def sides(self) -> AsyncIterator[tuple[Side, Side]]:
        """Both databases as the backup role sees them."""
        clinic, sides = self.clinic, []
        for place, database in ((clinic.place, clinic.database), (self.target, self.there)):
            admin = await place.server.admin()
            password = await open_backup_login(admin, clinic.roles)
            address = place.server.address().for_login(clinic.roles.backup, password)
            sides.append(Side(address, database, SESSION))
            await admin.close()
        yield sides[0], sides[1]
        for place in (clinic.place, self.target):
            admin = await place.server.admin()
            await close_backup_login(admin, clinic.roles)
            await admin.close()

    async def go(self) -> SourceFacts:
        """Copy everything and follow what changes from then on."""
        clinic, programs = self.clinic, Programs([self.target.server.bin])
        source = await clinic.place.server.admin(clinic.database)
        facts = await read_source(source)
        admin = await self.target.server.admin()
        await ensure_role_set(admin, clinic.roles, LIMITS)
        await create_target(
            admin, self.there, facts.locale, clinic.roles, self.target.system_identifier
        )
        target = await self.target.server.admin(self.there)
        await furnish_target(target, clinic.roles, facts.extensions)
        for inside in (source, target):
            await ensure_marker(inside, clinic.roles)
        sender = await replication.ensure_sender(source, self.link, clinic.database)
        await replication.publish(source, self.link, facts.tables)
        loader = await open_loader(admin, self.there)
        into = Side(
            self.target.server.address().for_login(loader_of(self.there), loader),
            self.there,
            SESSION,
        )
        admin_side = Side(clinic.place.server.address(), clinic.database, SESSION)
        async with self.sides() as (reading, _):
            with archive(facts.major, self.target.server.version) as held:
                async with replication.exported_slot(admin_side, self.link) as exported:
                    await dump_schema(programs, reading, exported.snapshot, held)
                    await restore_schema(programs, into, held, "pre-data")
                    same = self.target.server.version == clinic.place.server.version
                    copy = TableCopy(reading, into, exported.snapshot, binary=same, pace=Pace())
                    await copy.run(facts.tables, jobs=2, told=unheard)
                    await restore_schema(programs, into, held, "post-data", jobs=2)
        await settle_target(target, self.there, clinic.roles)
        await write_identity(target, clinic.roles.key, 2, "primary")
        await subscriptions.subscribe(
            target,
            self.link,
            clinic.roles,
            subscriptions.Subscription(clinic.place.server.address(), clinic.database, sender),
            self.target.server.version * 10_000,
        )
        await subscriptions.enable(target, self.link)
        for connection in (source, target, admin):
            await connection.close()
        return facts

    async def compare(
        self, facts: SourceFacts, *, backwards: bool = False
    ) -> tuple[dict[str, TableContent], dict[str, TableContent]]:
        """What both sides hold at one moment."""
        clinic = self.clinic
        source = await clinic.place.server.admin(clinic.database)
        target = await self.target.server.admin(self.there)
        locking = await (
            self.target.server.admin(self.there)
            if backwards
            else clinic.place.server.admin(clinic.database)
        )
        marking = (target, source) if backwards else (source, target)
        async with self.sides() as sides:
            places = (sides[1], sides[0]) if backwards else sides
            async with comparison.paired_snapshots(places, locking, marking, facts.tables) as pair:
                here = await comparison.read_tables(
                    places[0], facts.tables, snapshot=pair.source, at_once=2
                )
                there = await comparison.read_tables(
                    places[1], facts.tables, snapshot=pair.target, at_once=2
                )
        for connection in (source, target, locking):
            await connection.close()
        return here, there

    async def arrived(self, *, backwards: bool = False) -> None:
        """Everything written so far is on the other side."""
        source = await self.clinic.place.server.admin(self.clinic.database)
        target = await self.target.server.admin(self.there)
        sender, receiver = (target, source) if backwards else (source, target)
        marker = await replication.mark(sender)
        for _ in range(500):
            if await replication.arrived(receiver, marker):
                break
            await receiver.execute("SELECT pg_sleep(0.02)")
        else:
            raise AssertionError("a marker did not arrive within ten seconds")
        await source.close()
        await target.close()

    async def turn(self, facts: SourceFacts) -> None:
        """The source no longer changes by itself: changes go back from here on."""
        clinic = self.clinic
        source = await clinic.place.server.admin(clinic.database)
        target = await self.target.server.admin(self.there)
        sender = await replication.ensure_sender(target, self.back, self.there)
        await replication.publish(target, self.back, facts.tables)
        await replication.ensure_slot(target, self.back)
        await self.arrived()
        lsn = await target.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        await subscriptions.unsubscribe(target, self.link)
        await replication.drop_slot(source, self.link)
        await replication.drop_publication(source, self.link)
        await replication.drop_sender(source, self.link, clinic.database)
        await subscriptions.subscribe(
            source,
            self.back,
            clinic.roles,
            subscriptions.Subscription(self.target.server.address(), self.there, sender),
            clinic.place.server.version * 10_000,
        )
        await subscriptions.begin_at(source, self.back, lsn)
        await subscriptions.enable(source, self.back)
        await source.close()
        await target.close()

    async def end(self) -> None:
        """Nothing of the journey is left on the target, no link on the source."""
        clinic = self.clinic
        source = await clinic.place.server.admin(clinic.database)
        target = await self.target.server.admin(self.there)
        await subscriptions.unsubscribe(source, self.back)
        for link, sending, receiving, database in (
            (self.link, source, target, clinic.database),
            (self.back, target, source, self.there),
        ):
            await subscriptions.unsubscribe(receiving, link)
            await replication.drop_slot(sending, link)
            await replication.drop_publication(sending, link)
            await replication.drop_sender(sending, link, database)
        await target.close()
        await source.close()
        admin = await self.target.server.admin()
        await drop_tenant_database(admin, self.there, self.target.system_identifier)
        await drop_role_set(admin, clinic.roles, self.target.system_identifier)
        await admin.close()


async def app(clinic: Clinic, place: Place, database: str) -> "asyncpg.Connection[asyncpg.Record]":
    """The tenant's application at either side."""
    return await place.server.login(clinic.roles.login_a, clinic.password, database)
