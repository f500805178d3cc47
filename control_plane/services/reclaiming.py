"""Handing a database nobody uses to a reclaim operation, inside somebody's transaction."""

from control_plane.adapters import clock
from control_plane.catalog import databases, operations, servers
from control_plane.catalog.databases import Database
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS

# Nobody's yet, as far as the catalog knows.
_UNCLAIMED = ("preparing", "pooled")


async def condemn(
    db: Connection,
    database: Database,
    actor: str,
    *,
    unclaimed: bool = False,
    unserved: bool = False,
) -> Operation:
    """Mark the database condemned and record the operation that drops it.

    A place that was held for it on its server is given back. One that no tenant has had
    (``unclaimed``), or that has not served one yet (``unserved``), is dropped only if it says so
    itself: a catalog that lost its last commits may have forgotten whom it was given to. One that
    is condemned already is asked what the first operation was to ask it.
    """
    unclaimed = unclaimed or database.purpose in _UNCLAIMED
    unserved = unserved or database.purpose == "scratch"
    told = _told(database, unclaimed=unclaimed, unserved=unserved)
    if database.purpose == "condemned":
        first = await operations.newest_of_database(db, database.id, "reclaim")
        told = first.input if first else _told(database, unclaimed=False, unserved=True)
    if database.holds_place:
        await servers.release(db, database.server_id)
    await databases.condemn(db, database.id)
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["reclaim"],
            subject=database.name,
            actor=actor,
            server_id=database.server_id,
            database_id=database.id,
            input=told,
        ),
    )


def _told(database: Database, *, unclaimed: bool, unserved: bool) -> dict[str, object]:
    told: dict[str, object] = {}
    # A certificate of destruction tells which databases of the tenant were dropped.
    if database.tenant_id is not None:
        told["tenant"] = str(database.tenant_id)
    if unclaimed:
        told["unclaimed"] = True
    if unserved:
        told["unserved"] = True
    return told
