"""What a move finds before it begins: in the database, on its server, on the server it goes to."""

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import load
from control_plane.domain.moves import SourceFacts, TargetFacts


async def read_source(inside: Connection) -> SourceFacts:
    """Everything about the database ``inside`` is in; the administrator's connection."""
    with translated():
        text = await inside.fetchval(load("move_source"))
    return msgspec.json.decode(text, type=SourceFacts)


async def read_target(admin: Connection, collate: str) -> TargetFacts:
    """Everything about a server that a database sorted by ``collate`` shall go to."""
    with translated():
        text = await admin.fetchval(load("move_target"), collate)
    return msgspec.json.decode(text, type=TargetFacts)
