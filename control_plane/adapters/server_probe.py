"""Looking at a tenant server: everything about it at enrolment, a glance every few seconds."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec

from control_plane.adapters import clock
from control_plane.adapters.administrator import abilities
from control_plane.adapters.postgres_server import Connection, ServerAddress, connect, translated
from control_plane.domain.administrators import EVERYTHING
from control_plane.domain.errors import ServerRefused, TenantryError
from control_plane.domain.preflight import OLDEST_MAJOR, SETTINGS
from control_plane.domain.preflight_facts import ServerFacts

_PROBE_SECONDS = 5.0
_GLANCE_SECONDS = 3.0
_CLOSE_SECONDS = 1.0

# to_jsonb(d): the names of the locale's columns differ between major versions.
_FACTS = """
SELECT jsonb_build_object(
    'version_num', current_setting('server_version_num')::integer,
    'system_identifier', (SELECT system_identifier FROM pg_control_system()),
    'user', r.rolname,
    'public_databases', (SELECT coalesce(jsonb_agg(o.datname ORDER BY o.datname), '[]')
                           FROM pg_database o
                          WHERE o.datallowconn AND o.datname IN ('postgres', 'template1')
                            AND NOT pg_has_role(r.oid, o.datdba, 'USAGE')
                            AND EXISTS (SELECT FROM aclexplode(coalesce(
                                            o.datacl, acldefault('d', o.datdba))) AS e
                                         WHERE e.grantee = 0 AND e.privilege_type = 'CONNECT')),
    'foreign_roles', (SELECT count(*) FROM pg_roles o
                       WHERE o.rolname ~ '^(cp_dbowner$|cp_template_|(t|cp)_[0-9a-z]{26}_)'
                         AND NOT pg_has_role(r.oid, o.oid, 'USAGE')),
    'in_recovery', pg_is_in_recovery(),
    'encrypted', coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
    'settings', (SELECT coalesce(jsonb_object_agg(name, setting), '{}')
                   FROM pg_settings WHERE name = ANY ($1::text[])),
    'slots_used', (SELECT count(*) FROM pg_replication_slots),
    'senders_used', (SELECT count(*) FROM pg_stat_replication),
    'encoding', pg_encoding_to_char(d.encoding),
    'locale_provider', CASE to_jsonb(d) ->> 'datlocprovider'
                            WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
    'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate),
    'extensions', (SELECT coalesce(jsonb_agg(name), '[]') FROM pg_available_extensions),
    'other_databases', (SELECT count(*) FROM pg_database o
                         WHERE o.datname NOT IN ('postgres', 'template0', 'template1'))
)::text
  FROM pg_roles r, pg_database d
 WHERE r.rolname = current_user AND d.datname = 'template0'
"""
# Only what differs: the functions exist since Postgres 15.
_STALE_COLLATIONS = """
SELECT datname, format('made with %s, runs on %s', datcollversion, coalesce(actual, 'none')) AS said
  FROM (SELECT datname, datcollversion, pg_database_collation_actual_version(oid) AS actual
          FROM pg_database WHERE datcollversion IS NOT NULL) d
 WHERE datcollversion IS DISTINCT FROM actual
 ORDER BY datname
"""
_GLANCE = "SELECT system_identifier, pg_is_in_recovery() AS in_recovery FROM pg_control_system()"


class Glance(msgspec.Struct, frozen=True):
    """Who answers at an address."""

    system_identifier: int
    in_recovery: bool


async def probe(address: ServerAddress) -> ServerFacts:
    """Everything enrolment wants to know, over one connection, within 5 seconds.

    Raises:
        ServerUnavailable: nobody answers, or not in time.
        ServerRefused: wrong password, unsafe authentication, no Postgres, or one too old to ask.
    """
    async with _session(address, "cp:probe", _PROBE_SECONDS) as connection:
        ahead = await _clock_ahead(connection)
        text = await connection.fetchval(_FACTS, list(SETTINGS))
        facts = msgspec.json.decode(text, type=ServerFacts)
        may, stale = EVERYTHING, dict[str, str]()
        if facts.major >= OLDEST_MAJOR:
            may = await abilities(connection)
            stale = {
                row["datname"]: row["said"] for row in await connection.fetch(_STALE_COLLATIONS)
            }
    return msgspec.structs.replace(
        facts, may=may, stale_collations=stale, clock_ahead_seconds=ahead
    )


async def glance(address: ServerAddress) -> Glance:
    """Who answers there now, by one query within 3 seconds.

    Raises:
        ServerUnavailable, ServerRefused: see ``probe``.
    """
    async with _session(address, "cp:watch", _GLANCE_SECONDS) as connection:
        row = await connection.fetchrow(_GLANCE)
    return msgspec.convert(dict(row or {}), Glance)


async def _clock_ahead(connection: Connection) -> float:
    before = clock.now()
    theirs = await connection.fetchval("SELECT clock_timestamp()")
    after = clock.now()
    seconds: float = (theirs - (before + (after - before) / 2)).total_seconds()
    return seconds


@asynccontextmanager
async def _session(address: ServerAddress, name: str, seconds: float) -> AsyncIterator[Connection]:
    with _explained(), translated():
        async with asyncio.timeout(seconds):
            connection = await connect(address, application_name=name, timeout=seconds)
            try:
                yield connection
            except BaseException:
                connection.terminate()
                raise
            # With a goodbye: a dropped connection is a line in the server's log.
            await connection.close(timeout=_CLOSE_SECONDS)


# What servers answer to the settings our connections start with, when they are not what is meant.
_NOT_A_SERVER: dict[tuple[str, str], str] = {
    ("08P01", "unsupported startup parameter"): (
        "a pooler answers here, no Postgres server; give the address of the server itself"
    ),
    ("42704", "unrecognized configuration parameter"): (
        f"this Postgres is too old to ask; enrol Postgres {OLDEST_MAJOR} or newer"
    ),
}


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except TenantryError as error:
        for (state, words), remedy in _NOT_A_SERVER.items():
            if error.facts.get("state") == state and words in error.message:
                raise ServerRefused(remedy, state=state) from error
        raise
