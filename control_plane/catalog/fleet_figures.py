"""The fleet in numbers: work, poolers, servers, and the tenants that use most."""

from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection

_LATELY = "interval '1 hour'"
# The minutes of usage that are told: the last whole one and the present one.
_USED_SINCE = "date_trunc('minute', clock_timestamp()) - interval '1 minute'"


class StepFigures(msgspec.Struct, frozen=True):
    """One step of one verb, of operations begun within the last hour."""

    verb: str
    step: str
    done: int
    median: float
    longest: float


class ServerFigures(msgspec.Struct, frozen=True):
    """One server in the last minute or two; ``sampled``: how many seconds since the last look."""

    server: str
    reachable: bool
    sampled: float | None
    busy: float
    connections: int
    waiting: int
    wait_seconds: float
    deadlocks: int


class TopTenant(msgspec.Struct, frozen=True):
    """A tenant among those that use most: by id, since anybody may read it."""

    tenant_id: UUID
    server: str
    busy: float
    share: float
    wait_seconds: float


class FleetFigures(msgspec.Struct, frozen=True):
    """What ``/metrics`` tells beside the backups."""

    operations: dict[str, int]
    failed: dict[str, int]
    overdue: int
    takeovers: int
    oldest_due: float
    poolers: dict[str, int]
    disturbances: dict[str, int]
    steps: list[StepFigures]
    servers: list[ServerFigures]
    top: list[TopTenant]


async def figures(db: Connection, *, most: int) -> FleetFigures:
    """The numbers of now; the ``most`` tenants that use most are told one by one."""
    return FleetFigures(
        operations=await _counts(
            db,
            """SELECT state, count(*) FROM operations
               WHERE state IN ('pending', 'running', 'waiting', 'cancelling') GROUP BY 1""",
        ),
        failed=await _counts(
            db,
            f"""SELECT kind, count(*) FROM operations
                WHERE state = 'failed' AND created_at > clock_timestamp() - {_LATELY}
                GROUP BY 1""",  # noqa: S608 - constants of this module
        ),
        overdue=await _number(
            db,
            """SELECT count(*) FROM operations WHERE deadline < clock_timestamp()
                  AND state IN ('pending', 'running', 'waiting', 'cancelling')""",
        ),
        takeovers=await _number(
            db,
            f"""SELECT coalesce(sum(takeovers), 0)::bigint FROM operations
                WHERE created_at > clock_timestamp() - {_LATELY}""",  # noqa: S608 - constants
        ),
        oldest_due=await _seconds(
            db,
            """SELECT extract(epoch FROM clock_timestamp() - min(due_at)) FROM operations
               WHERE state IN ('pending', 'waiting') AND due_at < clock_timestamp()
                 AND (lease_until IS NULL OR lease_until < clock_timestamp())""",
        ),
        poolers=await _counts(
            db,
            """SELECT CASE WHEN p.last_seen_at < clock_timestamp() - interval '10 s' THEN 'away'
                           WHEN p.served_version < c.version THEN 'behind' ELSE 'serving' END,
                      count(*)
               FROM poolers p JOIN cells c ON c.id = p.cell_id GROUP BY 1""",
        ),
        disturbances=await _counts(
            db,
            """SELECT level, count(*) FROM disturbances
               WHERE ended_at IS NULL AND announced_at IS NOT NULL GROUP BY 1""",
        ),
        steps=await _steps(db),
        servers=await _servers(db),
        top=await _top(db, most),
    )


async def _counts(db: Connection, query: str) -> dict[str, int]:
    return {row[0]: row[1] for row in await db.fetch(query)}


async def _number(db: Connection, query: str) -> int:
    found: int = await db.fetchval(query)
    return found


async def _seconds(db: Connection, query: str) -> float:
    return float(await db.fetchval(query) or 0.0)


async def _steps(db: Connection) -> list[StepFigures]:
    rows = await db.fetch(
        f"""SELECT o.kind AS verb, s.name AS step, count(*) AS done,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds) AS median,
                   max(t.seconds) AS longest
              FROM operations o JOIN steps s ON s.operation_id = o.id AND s.state = 'done',
                   LATERAL (SELECT extract(epoch FROM s.finished_at - s.started_at)::float8
                                   AS seconds) t
             WHERE o.created_at > clock_timestamp() - {_LATELY}
             GROUP BY 1, 2 ORDER BY 1, 2"""  # noqa: S608 - constants of this module
    )
    return [StepFigures(**dict(row)) for row in rows]


async def _servers(db: Connection) -> list[ServerFigures]:
    rows = await db.fetch(
        f"""SELECT s.name AS server, s.reachable,
                   extract(epoch FROM clock_timestamp() - r.taken_at)::float8 AS sampled,
                   coalesce(u.busy_ms / 1000 / nullif(u.seconds, 0), 0)::float8 AS busy,
                   coalesce(u.connections, 0) AS connections, coalesce(u.waiting, 0) AS waiting,
                   coalesce(u.wait_ms / 1000 / nullif(u.transactions, 0), 0)::float8
                       AS wait_seconds,
                   coalesce(u.deadlocks, 0)::bigint AS deadlocks
              FROM servers s LEFT JOIN usage_rounds r ON r.server_id = s.id
              LEFT JOIN LATERAL (
                   SELECT sum(busy_ms) AS busy_ms, sum(seconds) AS seconds,
                          max(connections) AS connections, max(pool_waiting) AS waiting,
                          sum(pool_wait_ms) AS wait_ms, sum(pooled_transactions) AS transactions,
                          sum(deadlocks) AS deadlocks
                     FROM usage WHERE grain = 1 AND subject_id = s.id AND at >= {_USED_SINCE}
                   ) u ON true
             WHERE s.state <> 'removed' ORDER BY s.name"""  # noqa: S608 - constants of this module
    )
    return [ServerFigures(**dict(row)) for row in rows]


async def _top(db: Connection, most: int) -> list[TopTenant]:
    rows = await db.fetch(
        f"""WITH used AS (
                SELECT subject_id, server_id, sum(busy_ms) AS busy_ms, sum(seconds) AS seconds,
                       sum(pool_wait_ms) AS wait_ms, sum(pooled_transactions) AS transactions
                  FROM usage
                 WHERE grain = 1 AND at >= {_USED_SINCE} AND server_id IN (SELECT id FROM servers)
                 GROUP BY 1, 2)
            SELECT t.id AS tenant_id, s.name AS server,
                   (u.busy_ms / 1000 / w.seconds)::float8 AS busy,
                   least(1, u.busy_ms / nullif(w.busy_ms, 0))::float8 AS share,
                   coalesce(u.wait_ms / 1000 / nullif(u.transactions, 0), 0)::float8
                       AS wait_seconds
              FROM used u JOIN tenants t ON t.id = u.subject_id
              JOIN servers s ON s.id = u.server_id
              JOIN used w ON w.subject_id = u.server_id AND w.seconds > 0 AND w.busy_ms > 0
             ORDER BY u.busy_ms DESC, t.id LIMIT $1""",  # noqa: S608 - constants of this module
        most,
    )
    return [TopTenant(**dict(row)) for row in rows]
