"""What creating and deleting a provided server have in common."""

from control_plane.catalog import provided_servers
from control_plane.catalog.provided_servers import ProvidedServer
from control_plane.services.providing import key_of
from workers.engine.step import StepContext


async def provided(ctx: StepContext) -> ProvidedServer:
    """The server that this operation is about, as the catalog has it now."""
    async with ctx.catalog_read() as db:
        return await provided_servers.get(db, key_of(ctx.operation))
