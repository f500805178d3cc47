"""Survey: the schema of every database read again, many at a time, in short slices."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar
from uuid import UUID

import structlog

from control_plane.adapters.postgres_server import Connection, connect, translated
from control_plane.adapters.schema_fingerprint import (
    read_definition,
    read_fingerprint,
    role_names,
)
from control_plane.catalog import schemas
from control_plane.catalog.schemas import Unread
from control_plane.catalog.servers import Server
from control_plane.domain.errors import ServerUnavailable, TenantryError
from control_plane.domain.plans import PLANS
from control_plane.services.drift import surveyed
from workers.engine.step import Done, Outcome, StepContext, Verb, Wait

_log = structlog.get_logger(__name__)
_PER_SLICE = 400
_PER_SERVER = 8
# Until the watch over the servers has had a look at one that went away under our hands.
_AWAY_SECONDS = 2.0

Answer = TypeVar("Answer")
Question: TypeAlias = Callable[[Connection, Mapping[str, str]], Awaitable[Answer]]


async def read_schemas(ctx: StepContext) -> Outcome:
    """Every database that can be reached was read since the survey began."""
    tenants, since = surveyed(ctx.operation), ctx.operation.created_at
    async with ctx.catalog_read() as db:
        due, now = await schemas.unread(db, tenants, since, _PER_SLICE)
    put_off = await _read(ctx, due, now) if due else 0
    async with ctx.catalog_read() as db:
        seen = await schemas.progress(db, tenants, since)
    detail = f"{seen.done} of {seen.asked} databases read"
    if seen.unreachable:
        detail += f", {seen.unreachable} on servers that do not answer"
    if put_off:
        return Wait(_AWAY_SECONDS, detail)
    return Wait(0, detail) if len(due) == _PER_SLICE else Done(detail)


async def conclude_survey(ctx: StepContext) -> Outcome:
    """What was found is told."""
    async with ctx.catalog_read() as db:
        seen = await schemas.progress(db, surveyed(ctx.operation), ctx.operation.created_at)
    parts = [f"{seen.asked} databases", f"{seen.differ} not as their golden schema"]
    if seen.unknown:
        parts.append(f"{seen.unknown} could not be read")
    if seen.unreachable:
        parts.append(f"{seen.unreachable} on servers that do not answer")
    return Done(", ".join(parts))


async def _read(ctx: StepContext, due: Sequence[Unread], now: dt.datetime) -> int:
    """Read and record; returns how many were put off: their server went away, or they changed."""
    turns = {key: asyncio.Semaphore(_PER_SERVER) for key in {one.server_id for one in due}}
    servers = {key: await ctx.server(key) for key in turns}
    found: dict[UUID, str | None] = {}
    away: set[UUID] = set()

    async def read(one: Unread) -> None:
        async with turns[one.server_id]:
            if one.server_id not in away:
                server = servers[one.server_id]
                found[one.database_id] = await _ask(ctx, server, one, read_fingerprint, away)

    await asyncio.gather(*(read(one) for one in due))
    await _learn(ctx, servers, {found.get(one.database_id): one for one in due})
    async with ctx.catalog_write() as db:
        known = await schemas.known(db, [key for key in found.values() if key is not None])
        # One that changed under our eyes is read again in the next slice.
        told = {key: seen for key, seen in found.items() if seen is None or seen in known}
        for database_id, fingerprint in told.items():
            await schemas.record_reading(db, database_id, fingerprint, now)
    return len(due) - len(told)


async def _learn(
    ctx: StepContext, servers: dict[UUID, Server], examples: dict[str | None, Unread]
) -> None:
    """Record the definition behind each fingerprint that is new, from one database that has it."""
    async with ctx.catalog_read() as db:
        known = await schemas.known(db, [key for key in examples if key is not None])
    for fingerprint, one in examples.items():
        if fingerprint is None or fingerprint in known:
            continue
        reading = await _ask(ctx, servers[one.server_id], one, read_definition, set())
        if reading is not None:
            async with ctx.catalog_write() as db:
                await schemas.record(db, reading)


async def _ask(
    ctx: StepContext, server: Server, one: Unread, question: Question[Answer], away: set[UUID]
) -> Answer | None:
    """The answer of one database, or ``None``; adds its server to ``away`` if that is why."""
    try:
        connection = await connect(ctx.address(server), one.database, ctx.session_name)
        try:
            with translated():
                async with connection.transaction(readonly=True):
                    return await question(connection, role_names(one.roles))
        finally:
            connection.terminate()
    except TenantryError as error:
        if isinstance(error, ServerUnavailable):
            away.add(server.id)
        _log.warning("schema_not_read", tenant=one.slug, error=error.message)
        return None


VERB = Verb(plan=PLANS["survey"], steps=(read_schemas, conclude_survey))
