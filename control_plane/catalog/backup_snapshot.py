"""The catalog's side of what ``tenantry check`` asks about backups."""

import datetime as dt

import msgspec

from control_plane.catalog.backup_schedules import JOIN_POLICY
from control_plane.catalog.backup_watch import PROVEN
from control_plane.catalog.pool import Connection
from control_plane.domain import backups as naming
from control_plane.domain.backup_invariants import DrillState, ExpectedBackup

# A day of grace: the drill of a tenant whose turn it is may be waiting for its place.
_UNDRILLED = f"""
    SELECT t.slug, coalesce(s.drill_days, p.drill_days) AS drill_days,
           proven.finished_at AS verified_at
    FROM tenants t {JOIN_POLICY} {PROVEN}
    WHERE t.state IN ('active', 'suspended', 'archived')
      AND coalesce(proven.finished_at,
                   (SELECT min(b.finished_at) FROM backups b
                    WHERE b.tenant_id = t.id AND b.state = 'complete'))
          < clock_timestamp() - make_interval(days => coalesce(s.drill_days, p.drill_days) + 1)
"""  # noqa: S608 - constants
_COMPLETE = """
    SELECT b.id, t.slug, b.object_key, b.manifest_key, b.stored_bytes
    FROM backups b JOIN tenants t ON t.id = b.tenant_id WHERE b.state = 'complete'
"""
_BACKUPS = """
    SELECT tenant_id, id FROM backups WHERE state IN ('running', 'complete', 'corrupt')
"""
_EXPORTS = "SELECT object_key FROM exports WHERE state IN ('running', 'ready') AND object_key <> ''"

_KEYS = """
    SELECT k.tenant_id, k.version, t.slug FROM tenant_keys k JOIN tenants t ON t.id = k.tenant_id
    WHERE k.state IN ('active', 'retired') AND k.sealed IS NULL
"""


class StoredSnapshot(msgspec.Struct, frozen=True):
    """What the catalog expects of the store, and ``now`` on its clock.

    ``keys`` maps the tenant (in hex) and version of each usable key to the tenant's slug.
    """

    now: dt.datetime
    backups: list[ExpectedBackup]
    undrilled: list[DrillState]
    wanted: frozenset[str]
    keys: dict[tuple[str, int], str]


async def read(db: Connection) -> StoredSnapshot:
    """Read everything in the caller's REPEATABLE READ transaction."""
    now: dt.datetime = await db.fetchval("SELECT clock_timestamp()")
    backups = [ExpectedBackup(**dict(row)) for row in await db.fetch(_COMPLETE)]
    undrilled = [DrillState(**dict(row)) for row in await db.fetch(_UNDRILLED)]
    folders = {naming.folder(row["tenant_id"], row["id"]) for row in await db.fetch(_BACKUPS)}
    exports = {row["object_key"] for row in await db.fetch(_EXPORTS)}
    keys = {(row["tenant_id"].hex, row["version"]): row["slug"] for row in await db.fetch(_KEYS)}
    return StoredSnapshot(now, backups, undrilled, frozenset(folders | exports), keys)
