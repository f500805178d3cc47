"""What the catalog knows of itself: whether it was accepted where it is, and its own backups."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog import migrate
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import CatalogMismatch, CatalogNotAccepted

_BACKUP_LOCK = 0x7E4A_4718
_KEPT_ROWS = 500


class Made(msgspec.Struct, frozen=True):
    """A backup of the catalog that is in the store."""

    id: UUID
    snapshot_at: dt.datetime
    stored_bytes: int


class Life(msgspec.Struct, frozen=True):
    """How old the newest backup is, or the catalog's acceptance where there is none since."""

    backed_up: bool
    age_seconds: float


async def is_accepted(db: Connection) -> bool:
    """Whether this catalog is where it was accepted, and no copy that was restored elsewhere."""
    return bool(await db.fetchval("SELECT catalog_is_accepted()"))


async def require_usable(db: Connection) -> None:
    """Nobody works from a copy of the catalog, or from one whose schema he does not know.

    Raises:
        CatalogMismatch: its schema is older than this code, or too new for it.
        CatalogNotAccepted: it was restored from a backup and not accepted yet.
    """
    await require_known(db)
    if not await is_accepted(db):
        raise CatalogNotAccepted(
            "this catalog is a restored copy that nobody has accepted yet, or a primary that was "
            "replaced; if it is the one to work from: tenantry admin catalog accept"
        )


async def require_known(db: Connection) -> None:
    """Old code works on a newer catalog, as long as nothing was taken away that it needs.

    Raises:
        CatalogMismatch: its schema is older than this code, or too new for it.
    """
    revision = await db.fetchval("SELECT version_num FROM alembic_version")
    if revision == migrate.head():
        return
    if revision in migrate.revisions():
        raise CatalogMismatch(
            f"the catalog is at migration {revision} and this process needs {migrate.head()}; "
            "run: tenantry-run migrate"
        )
    needed = await db.fetchval("SELECT needs_code FROM catalog_place")
    if needed not in migrate.revisions():
        raise CatalogMismatch(
            f"the catalog needs code that knows migration {needed} and this process knows none "
            f"after {migrate.head()}; start it from the new release"
        )


async def try_to_back_up(db: Connection) -> bool:
    """Be the only one who backs the catalog up, until this transaction ends."""
    return bool(await db.fetchval("SELECT pg_try_advisory_xact_lock($1)", _BACKUP_LOCK))


async def read_life(db: Connection) -> Life:
    """The age of the newest backup; until there is one, the time since the acceptance."""
    row = await db.fetchrow(
        """SELECT b.snapshot_at IS NOT NULL AS backed_up,
                  extract(epoch FROM clock_timestamp() - coalesce(b.snapshot_at, p.accepted_at))
                      ::float8 AS age_seconds
           FROM catalog_place p LEFT JOIN LATERAL (
               SELECT max(snapshot_at) AS snapshot_at FROM catalog_backups) b ON true"""
    )
    if row is None:
        raise TypeError("the catalog has a place since its migration 0007")
    return Life(**dict(row))


async def record_backup(db: Connection, made: Made) -> None:
    """A backup is in the store, manifest and all; what is known of very old ones is forgotten."""
    await db.execute(
        "INSERT INTO catalog_backups (id, snapshot_at, stored_bytes) VALUES ($1, $2, $3)",
        made.id,
        made.snapshot_at,
        made.stored_bytes,
    )
    await db.execute(
        """DELETE FROM catalog_backups WHERE id NOT IN (
               SELECT id FROM catalog_backups ORDER BY snapshot_at DESC LIMIT $1)""",
        _KEPT_ROWS,
    )


async def describe(db: Connection) -> tuple[str, int]:
    """The migration the catalog is at, and how many tenants live."""
    row = await db.fetchrow(
        """SELECT (SELECT version_num FROM alembic_version) AS migration,
                  (SELECT count(*) FROM tenants WHERE state <> 'deleted') AS tenants"""
    )
    if row is None:
        raise TypeError("a SELECT without FROM has a row")
    return row["migration"], row["tenants"]


async def accept(db: Connection, actor: str) -> None:
    """This is the catalog from now on, here."""
    await db.execute(
        """UPDATE catalog_place SET system_identifier = c.system_identifier, database_oid = d.oid,
               accepted_at = clock_timestamp(), accepted_by = $1
           FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()""",
        actor,
    )
