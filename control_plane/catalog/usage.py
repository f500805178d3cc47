"""Usage in the catalog: rounds over servers, sums per minute, roll-ups, and reading all that."""

import datetime as dt
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection, Record
from control_plane.domain.usage import KEPT, PEAKS, SUMS, Grain, Usage

_ORIGIN = "'2000-01-01 00:00+00'::timestamptz"
_FIELDS = Usage.__struct_fields__
_NAMES = ", ".join(_FIELDS)
_REAL = frozenset({"busy_ms", "idle_in_transaction_ms", "pooled_query_ms", "pool_wait_ms"})
_TOTALS = ", ".join(
    [
        *(f"sum(x.{name}){'' if name in _REAL else '::bigint'} AS {name}" for name in SUMS),
        *(f"max(x.{name}) AS {name}" for name in PEAKS),
    ]
)
# All databases of a server at one moment: their levels add up.
_AT_ONCE = ", ".join(f"sum(x.{name}) AS {name}" for name in Usage.__struct_fields__)
_OF_Z = ", ".join(f"z.{name}" for name in Usage.__struct_fields__)
_ADDED = ", ".join(
    [
        *(f"{name} = u.{name} + excluded.{name}" for name in SUMS),
        *(f"{name} = greatest(u.{name}, excluded.{name})" for name in PEAKS),
    ]
)
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in ("seconds", *_FIELDS))
_COLUMNS_OF_ARRAYS = ", ".join(
    f"${number}::{'float8' if name in _REAL or name == 'pool_longest_wait_ms' else 'bigint'}[]"
    for number, name in enumerate(_FIELDS, start=4)
)
# Who reports late, reports within this time; a bucket is closed after it.
_LATEST_REPORT = dt.timedelta(minutes=2)
_BUCKETS_AT_ONCE = 200
_GRAIN_BELOW: tuple[tuple[Grain, Grain], ...] = ((15, 1), (1440, 15))


class Round(msgspec.Struct, frozen=True):
    """The right to look at a server now, with what the last round left."""

    server_id: UUID
    epoch: int
    counters: bytes | None


class Bucket(msgspec.Struct, frozen=True):
    """What a subject used from ``at`` on, for one grain."""

    at: dt.datetime
    usage: Usage


class Used(msgspec.Struct, frozen=True):
    """What one subject used on one server in some time; ``seconds`` of it were looked at."""

    subject_id: UUID
    seconds: float
    usage: Usage


async def now(db: Connection) -> dt.datetime:
    """The catalog's clock."""
    at: dt.datetime = await db.fetchval("SELECT clock_timestamp()")
    return at


async def begin_round(
    db: Connection, server_id: UUID, *, every: float, patience: float
) -> Round | None:
    """Be the one who looks at this server; ``None`` when somebody does, or just did.

    ``patience``: after so many seconds somebody else may.
    """
    row = await db.fetchrow(
        """INSERT INTO usage_rounds AS r (server_id, epoch, claimed_until)
           VALUES ($1, 1, clock_timestamp() + make_interval(secs => $3))
           ON CONFLICT (server_id) DO UPDATE
              SET epoch = r.epoch + 1,
                  claimed_until = clock_timestamp() + make_interval(secs => $3)
            WHERE (r.claimed_until IS NULL OR r.claimed_until < clock_timestamp())
              AND (r.taken_at IS NULL
                   OR r.taken_at <= clock_timestamp() - make_interval(secs => $2))
           RETURNING epoch, counters""",
        server_id,
        every,
        patience,
    )
    return Round(server_id, row["epoch"], row["counters"]) if row else None


async def end_round(
    db: Connection, taken: Round, *, counters: bytes, databases: int, took_ms: float
) -> bool:
    """Leave the counters for the next round; ``False`` when somebody else has taken this one."""
    return bool(
        await db.fetchval(
            """UPDATE usage_rounds SET counters = $3, databases = $4, took_ms = $5, problem = NULL,
                      taken_at = clock_timestamp(), claimed_until = NULL
               WHERE server_id = $1 AND epoch = $2 RETURNING true""",
            taken.server_id,
            taken.epoch,
            counters,
            databases,
            took_ms,
        )
    )


async def give_up_round(db: Connection, taken: Round, problem: str) -> None:
    """The server did not answer; what it counted meanwhile is seen by the next round."""
    await db.execute(
        """UPDATE usage_rounds SET problem = $3, claimed_until = NULL
           WHERE server_id = $1 AND epoch = $2""",
        taken.server_id,
        taken.epoch,
        problem,
    )


_ADD = f"""
    WITH x AS (
        SELECT d.tenant_id, y.* FROM unnest($3::text[], {_COLUMNS_OF_ARRAYS}) AS y (name, {_NAMES})
          LEFT JOIN databases d ON d.server_id = $1 AND d.name = y.name AND d.purpose = 'primary'
    )
    INSERT INTO usage AS u (grain, subject_id, server_id, at, seconds, {_NAMES})
    SELECT 1, z.subject_id, $1, date_trunc('minute', clock_timestamp()), $2, {_OF_Z}
      FROM (SELECT x.tenant_id AS subject_id, {_TOTALS} FROM x WHERE x.tenant_id IS NOT NULL
             GROUP BY x.tenant_id
            UNION ALL
            SELECT $1, {_AT_ONCE} FROM x) z
     ORDER BY z.subject_id
    ON CONFLICT (grain, subject_id, at, server_id) DO UPDATE
       SET seconds = u.seconds + excluded.seconds, {_ADDED}
"""  # noqa: S608 - the struct's own field names


async def add(db: Connection, server_id: UUID, seconds: float, used: Mapping[str, Usage]) -> None:
    """Add what the databases of a server used, by name, to the present minute.

    The row of the server itself is the sum of all its databases, tenants' and others.
    """
    columns = [[getattr(one, name) for one in used.values()] for name in _FIELDS]
    await db.execute(_ADD, server_id, seconds, list(used), *columns)


class Pooled(msgspec.Struct, frozen=True):
    """What one pooler did for one tenant."""

    tenant_id: UUID
    transactions: int
    queries: int
    query_ms: float
    wait_ms: float
    waiting: int
    longest_wait_ms: float


_ADD_POOLED = """
    WITH x AS (
        SELECT d.server_id, y.* FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::float8[],
                                            $5::float8[], $6::integer[], $7::float8[])
               AS y (tenant_id, transactions, queries, query_ms, wait_ms, waiting, longest)
          JOIN databases d ON d.tenant_id = y.tenant_id AND d.purpose = 'primary'
    )
    INSERT INTO usage AS u (grain, subject_id, server_id, at, pooled_transactions,
           pooled_queries, pooled_query_ms, pool_wait_ms, pool_waiting, pool_longest_wait_ms)
    SELECT 1, z.subject_id, z.server_id, date_trunc('minute', clock_timestamp()),
           z.transactions, z.queries, z.query_ms, z.wait_ms, z.waiting, z.longest
      FROM (SELECT tenant_id AS subject_id, server_id, transactions, queries, query_ms, wait_ms,
                   waiting, longest FROM x
            UNION ALL
            SELECT server_id, server_id, sum(transactions), sum(queries), sum(query_ms),
                   sum(wait_ms), sum(waiting), max(longest) FROM x GROUP BY server_id) z
     ORDER BY z.subject_id
    ON CONFLICT (grain, subject_id, at, server_id) DO UPDATE SET
           pooled_transactions = u.pooled_transactions + excluded.pooled_transactions,
           pooled_queries = u.pooled_queries + excluded.pooled_queries,
           pooled_query_ms = u.pooled_query_ms + excluded.pooled_query_ms,
           pool_wait_ms = u.pool_wait_ms + excluded.pool_wait_ms,
           pool_waiting = greatest(u.pool_waiting, excluded.pool_waiting),
           pool_longest_wait_ms =
               greatest(u.pool_longest_wait_ms, excluded.pool_longest_wait_ms)
"""


async def add_pooled(db: Connection, found: Sequence[Pooled]) -> None:
    """Add what a pooler reports to the present minute of the tenants, and of their servers."""
    columns = [[getattr(one, name) for one in found] for name in Pooled.__struct_fields__]
    await db.execute(_ADD_POOLED, *columns)


async def unsized(db: Connection, server_id: UUID, limit: int, *, hours: float) -> list[str]:
    """Names of the databases of a server whose size was not asked for longest."""
    rows = await db.fetch(
        """SELECT name FROM databases WHERE server_id = $1 AND purpose = 'primary'
              AND (sized_at IS NULL
                   OR sized_at < clock_timestamp() - make_interval(secs => $3 * 3600))
            ORDER BY sized_at NULLS FIRST LIMIT $2""",
        server_id,
        limit,
        hours,
    )
    return [row["name"] for row in rows]


async def record_sizes(db: Connection, server_id: UUID, found: Mapping[str, int]) -> None:
    await db.execute(
        """UPDATE databases d SET size_bytes = x.bytes, sized_at = clock_timestamp()
             FROM unnest($2::text[], $3::bigint[]) AS x (name, bytes)
            WHERE d.server_id = $1 AND d.name = x.name""",
        server_id,
        list(found),
        list(found.values()),
    )


async def size_of(db: Connection, tenant_id: UUID) -> tuple[int, dt.datetime] | None:
    """Bytes of a tenant's database, and when they were counted."""
    row = await db.fetchrow(
        """SELECT size_bytes, sized_at FROM databases
           WHERE tenant_id = $1 AND purpose = 'primary' AND sized_at IS NOT NULL""",
        tenant_id,
    )
    return (row["size_bytes"], row["sized_at"]) if row else None


_ROLL_UP = f"""
    INSERT INTO usage AS u (grain, subject_id, server_id, at, seconds, {_NAMES})
    SELECT $1::smallint, x.subject_id, x.server_id, $3::timestamptz, sum(x.seconds), {_TOTALS}
      FROM usage x
     WHERE x.grain = $2::smallint AND x.server_id IN (SELECT id FROM servers)
       AND x.at >= $3 AND x.at < $3 + make_interval(mins => $1::integer)
     GROUP BY x.subject_id, x.server_id
    ON CONFLICT (grain, subject_id, at, server_id) DO UPDATE SET {_REPLACED}
"""  # noqa: S608 - the struct's own field names


async def roll_up(db: Connection) -> int:
    """Make the quarters and days that are over; how many. Doing it twice changes nothing."""
    made = 0
    for grain, below in _GRAIN_BELOW:
        row = await db.fetchrow(
            """SELECT done_until, clock_timestamp() - $2::interval AS closed FROM usage_rollups
               WHERE grain = $1 FOR UPDATE SKIP LOCKED""",
            grain,
            _LATEST_REPORT,
        )
        if row is None:
            return made
        step, at = dt.timedelta(minutes=grain), row["done_until"]
        last = min(row["closed"], at + _BUCKETS_AT_ONCE * step)
        while at + step <= last:
            await db.execute(_ROLL_UP, grain, below, at)
            at += step
            made += 1
        await db.execute("UPDATE usage_rollups SET done_until = $2 WHERE grain = $1", grain, at)
    return made


async def prune(db: Connection) -> None:
    """Delete what is older than its grain is kept."""
    for grain, kept in KEPT.items():
        await db.execute(
            """DELETE FROM usage WHERE grain = $1 AND server_id IN (SELECT id FROM servers)
                  AND at < clock_timestamp() - $2::interval""",
            grain,
            kept,
        )


# Each grain up to where it was made, and the finer one after that: the present is never missing.
_SERIES = f"""
    WITH done AS (
        SELECT (SELECT done_until FROM usage_rollups WHERE grain = 15) AS quarters,
               (SELECT done_until FROM usage_rollups WHERE grain = 1440) AS days
    ), found AS (
        SELECT u.* FROM usage u, done
         WHERE u.grain = 1440 AND $3::integer = 1440 AND u.subject_id = ANY ($1) AND u.at >= $2
           AND u.at < done.days
        UNION ALL
        SELECT u.* FROM usage u, done
         WHERE u.grain = 15 AND $3 >= 15 AND u.subject_id = ANY ($1) AND u.at >= $2
           AND u.at < done.quarters AND ($3 = 15 OR u.at >= done.days)
        UNION ALL
        SELECT u.* FROM usage u, done
         WHERE u.grain = 1 AND u.subject_id = ANY ($1) AND u.at >= $2
           AND ($3 = 1 OR u.at >= done.quarters)
    )
    SELECT date_bin(make_interval(mins => $3::integer), x.at, {_ORIGIN}) AS at, {_TOTALS}
      FROM found x WHERE $4::uuid IS NULL OR x.server_id = $4 GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - the struct's own field names


async def series(
    db: Connection,
    subjects: Sequence[UUID],
    *,
    since: dt.datetime,
    grain: Grain,
    server_id: UUID | None = None,
) -> list[Bucket]:
    """What the subjects used together since then, bucket by bucket; idle ones are left out."""
    rows = await db.fetch(_SERIES, list(subjects), since, grain, server_id)
    return [Bucket(row["at"], _usage(row)) for row in rows]


async def on_server(db: Connection, server_id: UUID, since: dt.datetime) -> list[Used]:
    """What each subject used on a server in the minutes since then."""
    rows = await db.fetch(
        f"""SELECT x.subject_id, sum(x.seconds) AS seconds, {_TOTALS} FROM usage x
            WHERE x.grain = 1 AND x.server_id = $1 AND x.at >= $2 GROUP BY x.subject_id""",  # noqa: S608 - the struct's own field names
        server_id,
        since,
    )
    return [Used(row["subject_id"], row["seconds"], _usage(row)) for row in rows]


async def past(
    db: Connection, subjects: Sequence[UUID], server_id: UUID, since: dt.datetime
) -> dict[UUID, list[Usage]]:
    """The quarters of these subjects on a server since then; those in which they idled are not."""
    rows = await db.fetch(
        f"""SELECT subject_id, {_NAMES} FROM usage
            WHERE grain = 15 AND subject_id = ANY ($1) AND server_id = $2 AND at >= $3""",  # noqa: S608 - the struct's own field names
        list(subjects),
        server_id,
        since,
    )
    found: dict[UUID, list[Usage]] = {subject: [] for subject in subjects}
    for row in rows:
        found[row["subject_id"]].append(_usage(row))
    return found


def _usage(row: Record) -> Usage:
    return Usage(**{name: row[name] for name in _FIELDS})
