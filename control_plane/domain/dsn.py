"""What a driver must set to work through PgBouncer: a pure function of version and pool mode."""

import re
from typing import Literal

_PREPARED_SINCE = (1, 21)


def driver_hints(
    pgbouncer_versions: list[str | None], pool: Literal["transaction", "session"]
) -> dict[str, str]:
    """Hints by driver; the oldest PgBouncer of the cell decides.

    Protocol-level prepared statements survive transaction pooling only from PgBouncer 1.21 with
    ``max_prepared_statements`` (https://www.pgbouncer.org/changelog.html).
    """
    if pool == "session":
        return {"all": "session pooling: nothing to set; close connections you do not use"}
    oldest = min((_parse(version) for version in pgbouncer_versions), default=(0, 0))
    shared = (
        "transaction pooling: no SET outside a transaction, no session advisory locks, no LISTEN, "
        "no temporary tables, no WITH HOLD cursors; use the session pool for those"
    )
    if oldest >= _PREPARED_SINCE:
        return {"all": shared}
    return {
        "all": shared,
        "asyncpg": "statement_cache_size=0",
        "sqlalchemy+asyncpg": (
            "connect_args={'statement_cache_size': 0, 'prepared_statement_cache_size': 0}"
        ),
        "psycopg": "prepare_threshold=None",
        "jdbc": "prepareThreshold=0",
    }


def _parse(version: str | None) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)
