"""Taking a PgBouncer out of its cell; it joins by itself when its agent starts."""

from control_plane.catalog import audit, poolers
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict


async def remove_pooler(db: Connection, caller: Caller, name: str) -> None:
    """Forget a pooler that is gone for good, so that nobody waits for it any more.

    Raises:
        Conflict: its agent reports, or DSNs of tenants name its address.
        NotFound: there is none.
    """
    pooler = await poolers.find(db, name)
    if pooler.alive:
        raise Conflict(
            f"the agent of {name} reports; stop it and its PgBouncer, and ask again after "
            f"{poolers.ALIVE_SECONDS:.0f} s"
        )
    if named := await poolers.named_in_dsns(db, pooler):
        raise Conflict(
            f"the DSNs of {named} tenants name {pooler.host}:{pooler.port}; start a PgBouncer with "
            f"its agent there, under the name {name}"
        )
    await poolers.remove(db, pooler)
    facts: dict[str, object] = {"address": f"{pooler.host}:{pooler.port}", "cell": pooler.cell}
    await audit.record(db, caller, Entry("pooler.remove", name, facts=facts))
