"""A restored catalog brought to what can be true: plans ended, guesses forgotten, backups found.

Between the backup and the loss the world went on. What the catalog says of databases that change
hands (pooled, scratch, replaced) may be the opposite of what is true now, so that it is forgotten:
``tenantry check`` names such databases as nobody's, and nothing drops them.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.backups import Stored
from control_plane.catalog.pool import Connection
from control_plane.domain.backups import BackupCause
from control_plane.domain.errors import CatalogRecovered

# Epochs that workers of the lost catalog may have reached since are overtaken at once.
_EPOCHS_AHEAD = 1_000_000
_LIVE = "('pending', 'running', 'waiting', 'cancelling')"
_WORDS = (
    "the catalog was restored from a backup; look what is true now, then retry it or begin anew"
)


class Ended(msgspec.Struct, frozen=True):
    """An operation that was alive in the backup."""

    id: UUID
    kind: str
    subject: str


class Forgotten(msgspec.Struct, frozen=True):
    """A database that the catalog says nothing of any more."""

    name: str
    server: str
    purpose: str


class KnownTenant(msgspec.Struct, frozen=True):
    """A tenant in the catalog, in any state."""

    id: UUID
    slug: str
    state: str


class FoundBackup(msgspec.Struct, frozen=True):
    """A tenant's backup in the store, by its manifest; ``server`` is where its database was."""

    id: UUID
    tenant_id: UUID
    server: str
    cause: BackupCause
    stored: Stored


async def end_operations(db: Connection) -> list[Ended]:
    """No plan of the backup goes on by itself: each has failed, and may be retried."""
    ended = await _end(db, None, _WORDS)
    await _end_what_hung_on_them(db)
    return ended


async def end_work_on(db: Connection, server_id: UUID) -> list[Ended]:
    """Nothing is done any more about a server that is gone, and about what was on it."""
    return await _end(db, server_id, "the server is gone for good")


async def _end(db: Connection, server_id: UUID | None, words: str) -> list[Ended]:
    """Of one server, or all."""
    rows = await db.fetch(
        f"""WITH ended AS (
                UPDATE operations SET state = 'failed', finished_at = clock_timestamp(),
                    lease_owner = NULL, lease_until = NULL, epoch = epoch + $1,
                    error_code = $2, error_message = $3
                WHERE state IN {_LIVE} AND ($4::uuid IS NULL OR server_id = $4
                    OR database_id IN (SELECT id FROM databases WHERE server_id = $4))
                RETURNING id, kind, subject
            ), stopped AS (
                UPDATE steps s SET state = 'failed', finished_at = clock_timestamp(),
                    error_code = $2, error_message = $3
                FROM ended e WHERE s.operation_id = e.id AND s.position = (
                    SELECT min(position) FROM steps p
                    WHERE p.operation_id = e.id AND p.state IN ('pending', 'running'))
            )
            SELECT id, kind, subject FROM ended ORDER BY id""",  # noqa: S608 - constants of this module
        _EPOCHS_AHEAD,
        CatalogRecovered.code,
        words,
        server_id,
    )
    return [Ended(**dict(row)) for row in rows]


async def _end_what_hung_on_them(db: Connection) -> None:
    for statement in (
        """UPDATE backups SET state = 'failed', finished_at = clock_timestamp(), problem = $1
           WHERE state = 'running'""",
        """UPDATE exports SET state = 'failed', finished_at = clock_timestamp(), problem = $1
           WHERE state = 'running'""",
        """UPDATE rollout_targets SET state = 'failed', finished_at = clock_timestamp(),
               error_message = $1 WHERE state = 'running'""",
        """UPDATE rollouts SET state = 'incomplete', finished_at = clock_timestamp(), reason = $1
           WHERE finished_at IS NULL""",
        """UPDATE moves SET state = CASE WHEN state = 'moving' THEN 'abandoned' ELSE 'finished' END,
               ended_at = clock_timestamp(), put_off = $1 WHERE ended_at IS NULL""",
    ):
        await db.execute(statement, _WORDS)
    await db.execute(
        """UPDATE routes SET paused_by = NULL, pause_epoch = NULL, pause_until = NULL,
               pause_scope = NULL WHERE paused_by IS NOT NULL"""
    )
    await db.execute("DELETE FROM pause_acks")
    await db.execute("DELETE FROM drains")


async def forget_databases(db: Connection) -> list[Forgotten]:
    """Every database that may have changed hands since; tenants' own and given-up ones stay."""
    rows = await db.fetch(
        """WITH gone AS (
               DELETE FROM databases WHERE purpose NOT IN ('primary', 'condemned')
               RETURNING name, server_id, purpose)
           SELECT gone.name, s.name AS server, gone.purpose
           FROM gone JOIN servers s ON s.id = gone.server_id ORDER BY 2, 1"""
    )
    await db.execute(
        """DELETE FROM credentials c
           WHERE NOT EXISTS (SELECT FROM databases d WHERE d.role_set_id = c.role_set_id)
             AND NOT EXISTS (SELECT FROM tenants t
                             WHERE t.id = c.role_set_id AND t.state <> 'deleted')"""
    )
    await db.execute(
        """DELETE FROM role_sets r
           WHERE NOT EXISTS (SELECT FROM databases d WHERE d.role_set_id = r.id)
             AND NOT EXISTS (SELECT FROM tenants t WHERE t.id = r.id)"""
    )
    await db.execute(
        """UPDATE servers s SET placed = (SELECT count(*) FROM databases d
               WHERE d.server_id = s.id AND (d.purpose = 'primary' OR d.holds_place))"""
    )
    return [Forgotten(**dict(row)) for row in rows]


async def doubt_servers(db: Connection) -> None:
    """No server counts as reachable until somebody has looked at it: nothing is begun there."""
    await db.execute(
        """UPDATE servers SET reachable = false,
               problem = 'not looked at since the catalog was restored' WHERE reachable"""
    )


async def tenants(db: Connection) -> dict[UUID, KnownTenant]:
    """Every tenant there ever was, by id."""
    rows = await db.fetch("SELECT id, slug, state FROM tenants")
    return {row["id"]: KnownTenant(**dict(row)) for row in rows}


async def note_keys(db: Connection, tenant_id: UUID, versions: Iterable[int]) -> int:
    """Versions of a tenant's key that are in the keystore and were unknown; how many.

    The newest of all is the active one: no number is ever given out twice.
    """
    noted: int = await db.fetchval(
        """WITH noted AS (
               INSERT INTO tenant_keys (tenant_id, version, state)
               SELECT $1, version, 'retired' FROM unnest($2::integer[]) AS version
               ON CONFLICT (tenant_id, version) DO UPDATE SET state = 'retired'
                   WHERE tenant_keys.state = 'next'
               RETURNING version)
           SELECT count(*) FROM noted""",
        tenant_id,
        sorted(versions),
    )
    if noted:
        await db.execute(
            """UPDATE tenant_keys SET state = 'retired'
               WHERE tenant_id = $1 AND state = 'active'""",
            tenant_id,
        )
        await db.execute(
            """UPDATE tenant_keys SET state = 'active' WHERE tenant_id = $1 AND version = (
                   SELECT max(version) FROM tenant_keys
                   WHERE tenant_id = $1 AND state = 'retired')""",
            tenant_id,
        )
    return noted


async def note_backup(db: Connection, found: FoundBackup) -> bool:
    """A backup that is in the store, unless it is on record; whether it was not.

    Where its server is not on record any more, any other stands for it: the manifest is what a
    restore goes by.
    """
    values = msgspec.structs.asdict(found.stored)
    columns = ", ".join(values)
    places = ", ".join(f"${place}" for place, _ in enumerate(values, start=5))
    changes = ", ".join(f"{name} = excluded.{name}" for name in values)
    return bool(
        await db.fetchval(
            f"""INSERT INTO backups (id, tenant_id, server_id, cause, state, finished_at, {columns})
                SELECT $1, $2, (SELECT id FROM servers
                                ORDER BY name = $3 DESC, state <> 'removed' DESC LIMIT 1),
                       $4, 'complete', clock_timestamp(), {places}
                ON CONFLICT (id) DO UPDATE SET state = 'complete', problem = NULL, {changes}
                    WHERE backups.state IN ('running', 'failed')
                RETURNING true""",  # noqa: S608 - the struct's own field names
            found.id,
            found.tenant_id,
            found.server,
            found.cause,
            *values.values(),
        )
    )


async def mark_missing(db: Connection, in_store: Sequence[UUID]) -> int:
    """Backups on record that the store does not have: they were pruned since. How many."""
    gone: int = await db.fetchval(
        """WITH gone AS (
               UPDATE backups SET state = 'pruned', pruned_at = clock_timestamp()
               WHERE state = 'complete' AND id <> ALL ($1::uuid[]) RETURNING id)
           SELECT count(*) FROM gone""",
        list(in_store),
    )
    return gone


async def keyless(db: Connection, in_keystore: Sequence[UUID]) -> list[str]:
    """The slugs of tenants whose keys should be in the keystore, where there is none of theirs."""
    rows = await db.fetch(
        """SELECT t.slug FROM tenants t
           WHERE t.state <> 'deleted' AND t.id <> ALL ($1::uuid[])
             AND EXISTS (SELECT FROM tenant_keys k WHERE k.tenant_id = t.id
                         AND k.state IN ('active', 'retired') AND k.sealed IS NULL)
           ORDER BY t.slug""",
        list(in_keystore),
    )
    return [row["slug"] for row in rows]


async def mark_archived(
    db: Connection, tenant_id: UUID, backup_id: UUID, activated_at: dt.datetime
) -> None:
    """A tenant that the backup of the catalog did not know consists of its newest backup.

    It comes to be as every tenant does, one state after the other.
    """
    await db.execute("UPDATE backups SET pinned = true WHERE id = $1", backup_id)
    await db.execute(
        "UPDATE tenants SET state = 'active', activated_at = $2 WHERE id = $1",
        tenant_id,
        activated_at,
    )
    await db.execute(
        "UPDATE tenants SET state = 'archived', archive_backup_id = $2 WHERE id = $1",
        tenant_id,
        backup_id,
    )
