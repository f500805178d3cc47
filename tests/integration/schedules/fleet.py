"""A catalog full of tenants and a store of files, without workers: what is begun stays begun."""

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import backup_schedules, servers
from control_plane.catalog.audit import Caller
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.backups import BackupCause, manifest_key, object_key
from control_plane.domain.keys import Principal
from control_plane.domain.schedules import Policy
from control_plane.domain.tenants import Tier
from control_plane.services.backup_planning import plan_backups
from control_plane.services.placing import NewTenant
from control_plane.services.ports import Ports
from control_plane.services.tenants import create_tenant

NOW = dt.datetime(2026, 5, 6, 12, tzinfo=dt.UTC)
LAST_NIGHT = NOW.replace(hour=2)
SECOND = dt.timedelta(seconds=1)
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
OPERATOR = Caller(Principal(clock.new_id(), "olga", frozenset({"operator"})))
LIVE = "('pending', 'running', 'waiting', 'cancelling')"


@dataclass
class Fleet:
    """Ports on a catalog of this test's own, whose store is ``directory``."""

    ports: Ports
    directory: Path

    async def rows(self, sql: str, *arguments: object) -> list[Any]:
        async with self.ports.catalog.connection() as db:
            return list(await db.fetch(sql, *arguments))

    async def value(self, sql: str, *arguments: object) -> Any:
        return (await self.rows(sql, *arguments))[0][0]

    async def change(self, sql: str, *arguments: object) -> None:
        """What somebody else would have written."""
        async with self.ports.catalog.transaction() as db:
            await db.execute(sql, *arguments)

    async def second_server(self) -> None:
        """A server pg-b like pg-a."""
        template = self.ports.templates.current(DEFAULT_TEMPLATE)
        async with self.ports.catalog.transaction() as db:
            first = await servers.find(db, "pg-a")
            second = msgspec.structs.replace(
                first, id=clock.new_id(), name="pg-b", system_identifier=2
            )
            await servers.insert(db, second)
            await servers.change_state(db, second.id, expected=("enrolling",), wanted="active")
            await servers.record_template(
                db,
                second.id,
                template=template.name,
                fingerprint=template.fingerprint,
                revision=template.revision,
            )

    async def add(
        self,
        slug: str,
        *,
        tier: Tier = "standard",
        server: str = "pg-a",
        since: dt.datetime = NOW - 5 * DAY,
    ) -> UUID:
        """An active tenant, as far as the catalog knows."""
        wanted = NewTenant(slug=slug, name=slug, tier=tier, server=server)
        async with self.ports.catalog.transaction() as db:
            operation = await create_tenant(db, self.ports, OPERATOR, wanted)
        tenant_id = operation.tenant_id
        assert tenant_id is not None
        await self.end_operations()
        await self.change(
            "UPDATE tenants SET state = 'active', activated_at = $2 WHERE id = $1",
            tenant_id,
            since,
        )
        return tenant_id

    async def follow(self, tenant_id: UUID, **rules: object) -> Policy:
        """Give a tenant a policy of its own."""
        async with self.ports.catalog.transaction() as db:
            known = (await backup_schedules.of_tenant(db, tenant_id)).policy
            policy = msgspec.structs.replace(known, **rules)
            await backup_schedules.put(db, tenant_id, policy, "olga")
        return policy

    async def end_operations(self, state: str = "succeeded") -> None:
        """Whatever is alive ends, as a worker would have ended it; so do the backups."""
        error = "dump_failed" if state == "failed" else None
        await self.change(
            f"""UPDATE operations SET state = $1, error_code = $2,
                    finished_at = clock_timestamp() WHERE state IN {LIVE}""",  # noqa: S608 - a constant
            state,
            error,
        )
        await self.change(
            """UPDATE backups SET state = $1, finished_at = $2, problem = $3,
                   server_id = (SELECT min(id::text)::uuid FROM servers),
                   snapshot_at = coalesce(slot_at, $2), object_key = 'd', manifest_key = 'm',
                   stored_bytes = 1, sha256 = $4, key_version = 1 WHERE state = 'running'""",
            "failed" if error else "complete",
            NOW,
            error,
            bytes(32),
        )

    async def backup(
        self,
        tenant_id: UUID,
        snapshot_at: dt.datetime,
        *,
        state: str = "complete",
        cause: BackupCause = "schedule",
        verified: bool = False,
        pinned: bool = False,
    ) -> UUID:
        """A backup in any state, with its objects in the store."""
        backup_id = clock.new_id()
        data, manifest = object_key(tenant_id, backup_id, 1), manifest_key(tenant_id, backup_id)
        self.store("data", data)
        self.store("manifest", manifest)
        await self.change(
            """INSERT INTO backups (id, tenant_id, server_id, cause, state, snapshot_at,
                   finished_at, verified_at, pinned, object_key, manifest_key, problem,
                   stored_bytes, sha256, key_version, created_at)
               SELECT $1, $2, server_id, $3, $4, $5,
                      CASE WHEN $4 <> 'running' THEN $5::timestamptz END,
                      CASE WHEN $6 THEN $5::timestamptz END, $7, $8, $9,
                      CASE WHEN $4 IN ('failed', 'corrupt') THEN 'lost' END, 4, $10, 1, $5
               FROM databases WHERE tenant_id = $2""",
            backup_id,
            tenant_id,
            cause,
            state,
            snapshot_at,
            verified,
            pinned,
            data,
            manifest,
            bytes(32),
        )
        return backup_id

    async def prove(self, tenant_id: UUID, backup_id: UUID, at: dt.datetime) -> None:
        """A drill of this backup that passed."""
        await self.change(
            """INSERT INTO drills (id, backup_id, tenant_id, server_id, cause, state, started_at,
                                   finished_at, server_version)
               SELECT $1, $2, $3, server_id, 'rotation', 'passed', $4, $4, 150000
               FROM backups WHERE id = $2""",
            clock.new_id(),
            backup_id,
            tenant_id,
            at,
        )
        await self.change("UPDATE backups SET verified_at = $2 WHERE id = $1", backup_id, at)

    def store(self, data: str, key: str, at: dt.datetime = NOW - 2 * DAY) -> None:
        """An object that was written at this time."""
        assert self.ports.store is not None
        self.ports.store.put(key, data.encode())
        os.utime(self.directory / key, (at.timestamp(), at.timestamp()))

    @property
    def stored(self) -> set[str]:
        """The keys of all objects."""
        assert self.ports.store is not None
        return {one.key for one in self.ports.store.list("")}

    async def begun(self, kind: str = "backup") -> list[str]:
        """The slugs of tenants for which such an operation is alive, in the order they came."""
        rows = await self.rows(
            f"""SELECT subject FROM operations WHERE kind = $1 AND state IN {LIVE}
                ORDER BY id""",  # noqa: S608 - a constant
            kind,
        )
        return [row["subject"] for row in rows]

    async def plan(self, now: dt.datetime) -> None:
        """Plan, as somebody did five seconds before."""
        await self.change("UPDATE backup_planning SET planned_at = $1", now - 5 * SECOND)
        await plan_backups(self.ports, now)

    async def due(self, tenant_id: UUID, slot: dt.datetime, due: dt.datetime | None = None) -> None:
        """The tenant's turn is for this slot, and due then."""
        await self.change(
            """INSERT INTO backup_turns (tenant_id, slot_at, due_at) VALUES ($1, $2, $3)
               ON CONFLICT (tenant_id) DO UPDATE SET slot_at = $2, due_at = $3""",
            tenant_id,
            slot,
            due or slot,
        )

    async def turn(self, tenant_id: UUID) -> tuple[dt.datetime, dt.datetime]:
        row = (
            await self.rows(
                "SELECT slot_at, due_at FROM backup_turns WHERE tenant_id = $1", tenant_id
            )
        )[0]
        return row["slot_at"], row["due_at"]

    async def audited(self, *actions: str) -> list[tuple[str, str]]:
        """Action and subject of these audit events, oldest first."""
        rows = await self.rows(
            "SELECT action, subject FROM audit_events WHERE action = ANY($1) ORDER BY seq",
            list(actions),
        )
        return [(row["action"], row["subject"]) for row in rows]
