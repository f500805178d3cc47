"""Databases, role sets and credentials in the catalog."""

import datetime as dt
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound
from control_plane.domain.names import RoleSet, Slot

Purpose = Literal[
    "preparing",
    "pooled",
    "primary",
    "scratch",
    "previous",
    "moving",
    "moved_from",
    "condemned",
]
CredentialState = Literal["next", "active", "retiring", "revoked"]


class Database(msgspec.Struct, frozen=True):
    """One physical database; its roles are those of ``role_set_id``."""

    id: UUID
    role_set_id: UUID
    tenant_id: UUID | None
    server_id: UUID
    name: str
    template: str
    template_fingerprint: str
    schema_revision: str | None
    generation: int
    purpose: Purpose
    created_at: dt.datetime
    backup_id: UUID | None = None
    kept_until: dt.datetime | None = None
    holds_place: bool = False

    @property
    def roles(self) -> RoleSet:
        return RoleSet(self.role_set_id)


class Credential(msgspec.Struct, frozen=True):
    """The secret of one login slot; ``sealed`` is ciphertext, ``verifier`` is SCRAM-SHA-256."""

    role_set_id: UUID
    slot: Slot
    version: int
    sealed: bytes
    verifier: str
    state: CredentialState
    retire_at: dt.datetime | None = None

    @property
    def login(self) -> str:
        return RoleSet(self.role_set_id).login(self.slot)


_DATABASE = ", ".join(Database.__struct_fields__)
_CREDENTIAL = ", ".join(Credential.__struct_fields__)


async def insert_role_set(db: Connection, role_set_id: UUID) -> None:
    await db.execute("INSERT INTO role_sets (id) VALUES ($1)", role_set_id)


async def insert(db: Connection, database: Database) -> None:
    """Record a database that some operation will create."""
    await db.execute(
        """INSERT INTO databases (id, role_set_id, tenant_id, server_id, name, template,
                                  template_fingerprint, generation, purpose, backup_id,
                                  holds_place)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
        database.id,
        database.role_set_id,
        database.tenant_id,
        database.server_id,
        database.name,
        database.template,
        database.template_fingerprint,
        database.generation,
        database.purpose,
        database.backup_id,
        database.holds_place,
    )


async def get(db: Connection, database_id: UUID) -> Database:
    """The database with this id.

    Raises:
        NotFound: there is none (any more).
    """
    found = await find(db, database_id)
    if found is None:
        raise NotFound("there is no such database")
    return found


async def find(db: Connection, database_id: UUID) -> Database | None:
    row = await db.fetchrow(f"SELECT {_DATABASE} FROM databases WHERE id = $1", database_id)  # noqa: S608 - the struct's own field names
    return Database(**dict(row)) if row else None


async def primary(db: Connection, tenant_id: UUID) -> Database:
    """The one database that serves this tenant.

    Raises:
        NotFound: the tenant has none.
    """
    found = await find_primary(db, tenant_id)
    if found is None:
        raise NotFound("the tenant has no database")
    return found


async def find_primary(db: Connection, tenant_id: UUID) -> Database | None:
    row = await db.fetchrow(
        f"SELECT {_DATABASE} FROM databases WHERE tenant_id = $1 AND purpose = 'primary'",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return Database(**dict(row)) if row else None


async def on_server(db: Connection, server_id: UUID) -> list[Database]:
    """Everything that should exist on this server."""
    rows = await db.fetch(f"SELECT {_DATABASE} FROM databases WHERE server_id = $1", server_id)  # noqa: S608 - the struct's own field names
    return [Database(**dict(row)) for row in rows]


async def take_pooled(db: Connection, server_id: UUID, fingerprint: str) -> Database | None:
    """Lock one ready database of the pool for this transaction, without waiting for others."""
    row = await db.fetchrow(
        f"""SELECT {_DATABASE} FROM databases
            WHERE server_id = $1 AND template_fingerprint = $2 AND purpose = 'pooled'
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED""",  # noqa: S608 - the struct's own field names
        server_id,
        fingerprint,
    )
    return Database(**dict(row)) if row else None


async def claim(db: Connection, database_id: UUID, tenant_id: UUID) -> None:
    """Make a pooled database the tenant's primary."""
    await db.execute(
        "UPDATE databases SET purpose = 'primary', tenant_id = $2 WHERE id = $1",
        database_id,
        tenant_id,
    )


async def record_schema(db: Connection, database_id: UUID, revision: str) -> None:
    await db.execute(
        "UPDATE databases SET schema_revision = $2 WHERE id = $1", database_id, revision
    )


async def begin_outside(db: Connection, database_id: UUID, revision: str) -> None:
    """A revision that cannot run in a transaction begins; ``record_migrated`` ends it."""
    await db.execute(
        "UPDATE databases SET unfinished_revision = $2 WHERE id = $1", database_id, revision
    )


async def record_migrated(
    db: Connection, database_id: UUID, revision: str, fingerprint: str
) -> None:
    """The database is at this revision, and its schema is the one of this fingerprint."""
    await db.execute(
        """UPDATE databases SET schema_revision = $2, schema_fingerprint = $3,
               schema_read_at = clock_timestamp(), unfinished_revision = NULL WHERE id = $1""",
        database_id,
        revision,
        fingerprint,
    )


async def offer(db: Connection, database_id: UUID) -> None:
    """Put a prepared database into the pool."""
    await db.execute(
        "UPDATE databases SET purpose = 'pooled' WHERE id = $1 AND purpose = 'preparing'",
        database_id,
    )


async def condemn(db: Connection, database_id: UUID) -> None:
    """Nobody uses this database any more; a reclaim operation will drop it."""
    await db.execute(
        """UPDATE databases SET purpose = 'condemned', kept_until = NULL, holds_place = false
           WHERE id = $1""",
        database_id,
    )


async def forget(db: Connection, database: Database) -> None:
    """The database and its roles are gone from the server.

    A tenant without a database (archived, or being deleted) keeps its credentials.
    """
    await db.execute("DELETE FROM databases WHERE id = $1", database.id)
    await db.execute(
        """DELETE FROM credentials c WHERE role_set_id = $1
           AND NOT EXISTS (SELECT FROM databases d WHERE d.role_set_id = c.role_set_id)
           AND NOT EXISTS (SELECT FROM tenants t
                           WHERE t.id = c.role_set_id AND t.state <> 'deleted')""",
        database.role_set_id,
    )
    await db.execute(
        """DELETE FROM role_sets r WHERE id = $1
           AND NOT EXISTS (SELECT FROM databases d WHERE d.role_set_id = r.id)
           AND NOT EXISTS (SELECT FROM tenants t WHERE t.id = r.id)""",
        database.role_set_id,
    )


async def role_sets_beside(db: Connection, database: Database) -> set[UUID]:
    """The role sets that other databases on the same server use."""
    rows = await db.fetch(
        "SELECT DISTINCT role_set_id FROM databases WHERE server_id = $1 AND id <> $2",
        database.server_id,
        database.id,
    )
    return {row["role_set_id"] for row in rows}


class PoolCounts(msgspec.Struct, frozen=True):
    """How many databases a server has in its pool, and on the way into it."""

    pooled: int
    preparing: int

    @property
    def total(self) -> int:
        return self.pooled + self.preparing


async def pool_counts(db: Connection, server_id: UUID, fingerprint: str) -> PoolCounts:
    row = await db.fetchrow(
        """SELECT count(*) FILTER (WHERE purpose = 'pooled') AS pooled,
                  count(*) FILTER (WHERE purpose = 'preparing') AS preparing
           FROM databases WHERE server_id = $1 AND template_fingerprint = $2""",
        server_id,
        fingerprint,
    )
    return PoolCounts(**dict(row)) if row else PoolCounts(0, 0)


async def outdated_pooled(db: Connection, template: str, content: str) -> list[Database]:
    """Pooled databases of another version than ``content``, where that is ready to be cloned."""
    rows = await db.fetch(
        f"""SELECT {_DATABASE} FROM databases
            WHERE purpose = 'pooled' AND template = $1 AND template_fingerprint <> $2
              AND EXISTS (SELECT FROM templates t WHERE t.server_id = databases.server_id
                          AND t.fingerprint = $2)
            FOR UPDATE SKIP LOCKED""",  # noqa: S608 - the struct's own field names
        template,
        content,
    )
    return [Database(**dict(row)) for row in rows]


async def put_credential(db: Connection, credential: Credential) -> None:
    """Store a secret in its slot, in place of what was there."""
    await db.execute(
        """INSERT INTO credentials (role_set_id, slot, version, sealed, verifier, state, retire_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7)
           ON CONFLICT (role_set_id, slot) DO UPDATE SET version = excluded.version,
               sealed = excluded.sealed, verifier = excluded.verifier, state = excluded.state,
               retire_at = excluded.retire_at, created_at = clock_timestamp()""",
        credential.role_set_id,
        credential.slot,
        credential.version,
        credential.sealed,
        credential.verifier,
        credential.state,
        credential.retire_at,
    )


async def credentials(db: Connection, role_set_id: UUID) -> dict[Slot, Credential]:
    """The credentials of a role set by slot."""
    rows = await db.fetch(
        f"SELECT {_CREDENTIAL} FROM credentials WHERE role_set_id = $1",  # noqa: S608 - the struct's own field names
        role_set_id,
    )
    return {row["slot"]: Credential(**dict(row)) for row in rows}


async def credential_in(db: Connection, role_set_id: UUID, state: CredentialState) -> Credential:
    """The one credential of a role set in this state.

    Raises:
        NotFound: there is none.
    """
    for credential in (await credentials(db, role_set_id)).values():
        if credential.state == state:
            return credential
    raise NotFound(f"there is no {state} credential")


async def switch_active(db: Connection, role_set_id: UUID, *, grace_seconds: int) -> None:
    """The ``next`` credential becomes active and the active one starts to retire."""
    await db.execute(
        """UPDATE credentials SET state = 'retiring',
               retire_at = clock_timestamp() + make_interval(secs => $2)
           WHERE role_set_id = $1 AND state = 'active'
             AND EXISTS (SELECT FROM credentials WHERE role_set_id = $1 AND state = 'next')""",
        role_set_id,
        grace_seconds,
    )
    await db.execute(
        "UPDATE credentials SET state = 'active' WHERE role_set_id = $1 AND state = 'next'",
        role_set_id,
    )


async def revoke_credential(db: Connection, role_set_id: UUID, slot: Slot) -> None:
    """No pooler may let this login in any more, unless it is active or still in its grace."""
    await db.execute(
        """UPDATE credentials SET state = 'revoked', retire_at = NULL
           WHERE role_set_id = $1 AND slot = $2 AND state = 'retiring'
             AND retire_at <= clock_timestamp()""",
        role_set_id,
        slot,
    )


async def forget_credential(db: Connection, role_set_id: UUID, slot: Slot) -> None:
    """Drop a revoked secret; one that still lets in stays."""
    await db.execute(
        """DELETE FROM credentials
           WHERE role_set_id = $1 AND slot = $2 AND state = 'revoked'""",
        role_set_id,
        slot,
    )


async def due_retirements(db: Connection, limit: int) -> list[tuple[UUID, Slot]]:
    """Tenants (by id) whose retiring login's grace is over and who are not busy."""
    rows = await db.fetch(
        """SELECT c.role_set_id, c.slot FROM credentials c
           JOIN tenants t ON t.id = c.role_set_id AND t.state IN ('active', 'suspended')
           WHERE c.state = 'retiring' AND c.retire_at <= clock_timestamp()
             AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = t.id
                 AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))
           ORDER BY c.retire_at LIMIT $1""",
        limit,
    )
    return [(row["role_set_id"], row["slot"]) for row in rows]
