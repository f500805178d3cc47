"""Schemas in the catalog: golden ones, what each database was found to be, and the comparison."""

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.names import RoleSet
from control_plane.domain.schema_diff import Definition, SchemaReading

_SAMPLES = 5
# server_version_num counts 10,000 for each major version. The golden schema is that of the very
# template a database was made from; failing that, of the newest that has the revision.
_FOUND = """
    FROM databases d
    JOIN tenants t ON t.id = d.tenant_id
    JOIN servers s ON s.id = d.server_id
    LEFT JOIN LATERAL (
        SELECT g.fingerprint FROM golden_schemas g
         WHERE g.template = d.template AND g.revision = d.schema_revision
           AND g.major = s.version_num / 10000
         ORDER BY g.content = d.template_fingerprint DESC, g.recorded_at DESC LIMIT 1) AS g ON true
    WHERE d.purpose = 'primary'
"""


class DriftGroup(msgspec.Struct, frozen=True):
    """Tenants whose databases are of one template, revision, Postgres major and schema.

    ``fingerprint`` is ``None`` while their schema is not known, ``golden`` while nothing is known
    to compare it with. ``slugs`` are some of the tenants, ``read_at`` is the oldest reading.
    """

    template: str
    revision: str | None
    major: int
    fingerprint: str | None
    golden: str | None
    tenants: int
    slugs: list[str]
    read_at: dt.datetime | None

    @property
    def matches(self) -> bool | None:
        """Whether the schema is the golden one; ``None`` if that cannot be told."""
        if self.fingerprint is None or self.golden is None:
            return None
        return self.fingerprint == self.golden


class Found(msgspec.Struct, frozen=True):
    """What a tenant's database was last found to be, and what it should be."""

    template: str
    revision: str | None
    major: int
    fingerprint: str | None
    golden: str | None
    read_at: dt.datetime | None
    definition: Definition | None
    golden_definition: Definition | None


class Golden(msgspec.Struct, frozen=True):
    """What a revision of a template makes: the schema, and its cheap mark (64 hex digits each)."""

    reading: SchemaReading
    mark: str


class Unread(msgspec.Struct, frozen=True):
    """A database that a survey has yet to read."""

    database_id: UUID
    server_id: UUID
    role_set_id: UUID
    database: str
    slug: str

    @property
    def roles(self) -> RoleSet:
        return RoleSet(self.role_set_id)


async def record(db: Connection, reading: SchemaReading) -> None:
    """Keep what a fingerprint stands for."""
    await db.execute(
        """INSERT INTO schemas (fingerprint, definition) VALUES ($1, $2)
           ON CONFLICT (fingerprint) DO NOTHING""",
        reading.fingerprint,
        reading.definition,
    )


async def record_golden(
    db: Connection, template: str, content: str, revision: str, major: int, golden: Golden
) -> None:
    """Keep what ``revision`` of this version of a template makes on this major of Postgres."""
    await record(db, golden.reading)
    await db.execute(
        """INSERT INTO golden_schemas (template, content, revision, major, fingerprint, mark)
           VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (template, content, revision, major)
           DO UPDATE SET fingerprint = excluded.fingerprint, mark = excluded.mark,
                         recorded_at = clock_timestamp()
              WHERE (golden_schemas.fingerprint, golden_schemas.mark)
                    <> (excluded.fingerprint, excluded.mark)""",
        template,
        content,
        revision,
        major,
        golden.reading.fingerprint,
        golden.mark,
    )


async def marks(db: Connection, template: str, content: str, major: int) -> dict[str, str]:
    """The mark of every revision of this version of a template."""
    rows = await db.fetch(
        """SELECT revision, mark FROM golden_schemas
           WHERE template = $1 AND content = $2 AND major = $3""",
        template,
        content,
        major,
    )
    return {row["revision"]: row["mark"] for row in rows}


async def golden(
    db: Connection, template: str, content: str, revision: str, major: int
) -> SchemaReading | None:
    """The golden schema; if not that of ``content``, the newest of this template and revision."""
    row = await db.fetchrow(
        """SELECT s.fingerprint, s.definition
             FROM golden_schemas g JOIN schemas s USING (fingerprint)
            WHERE g.template = $1 AND g.revision = $3 AND g.major = $4
            ORDER BY g.content = $2 DESC, g.recorded_at DESC LIMIT 1""",
        template,
        content,
        revision,
        major,
    )
    return SchemaReading(row["fingerprint"], row["definition"]) if row else None


async def record_reading(
    db: Connection, database_id: UUID, fingerprint: str | None, before: dt.datetime | None = None
) -> None:
    """The database was found to have this schema; ``None``: it could not be read.

    A reading that began at ``before`` yields to a later one. The fingerprint must be recorded.
    """
    await db.execute(
        """UPDATE databases SET schema_fingerprint = $2, schema_read_at = clock_timestamp()
           WHERE id = $1 AND ($3::timestamptz IS NULL OR schema_read_at IS NULL
                              OR schema_read_at < $3)""",
        database_id,
        fingerprint,
        before,
    )


async def known(db: Connection, fingerprints: Sequence[str]) -> set[str]:
    """Those of the fingerprints whose definition is recorded."""
    rows = await db.fetch(
        "SELECT fingerprint FROM schemas WHERE fingerprint = ANY ($1::text[])", list(fingerprints)
    )
    return {row["fingerprint"] for row in rows}


async def unread(
    db: Connection, tenants: Sequence[UUID] | None, since: dt.datetime, limit: int
) -> tuple[list[Unread], dt.datetime]:
    """Up to ``limit`` databases on reachable servers not read since, and the present instant.

    ``tenants`` ``None`` is every tenant; one whose database is still being made is left out.
    """
    rows = await db.fetch(
        """SELECT d.id AS database_id, d.server_id, d.role_set_id, d.name AS database, t.slug
             FROM databases d JOIN tenants t ON t.id = d.tenant_id
             JOIN servers s ON s.id = d.server_id
            WHERE d.purpose = 'primary' AND d.schema_revision IS NOT NULL AND s.reachable
              AND (d.schema_read_at IS NULL OR d.schema_read_at < $2)
              AND ($1::uuid[] IS NULL OR d.tenant_id = ANY ($1))
            ORDER BY d.schema_read_at NULLS FIRST, d.id LIMIT $3""",
        list(tenants) if tenants is not None else None,
        since,
        limit,
    )
    now: dt.datetime = await db.fetchval("SELECT clock_timestamp()")
    return [Unread(**dict(row)) for row in rows], now


class Survey(msgspec.Struct, frozen=True):
    """How far a survey is: databases asked for, read, and away with their server."""

    asked: int
    done: int
    unreachable: int
    differ: int
    unknown: int


async def progress(db: Connection, tenants: Sequence[UUID] | None, since: dt.datetime) -> Survey:
    """How far the survey is that began at ``since``."""
    row = await db.fetchrow(
        f"""SELECT count(*) AS asked,
                   count(*) FILTER (WHERE d.schema_read_at >= $2) AS done,
                   count(*) FILTER (WHERE NOT s.reachable
                                      AND (d.schema_read_at < $2) IS NOT FALSE) AS unreachable,
                   count(*) FILTER (WHERE d.schema_fingerprint <> g.fingerprint) AS differ,
                   count(*) FILTER (WHERE d.schema_read_at >= $2 AND d.schema_fingerprint IS NULL)
                       AS unknown
            {_FOUND} AND d.schema_revision IS NOT NULL
                 AND ($1::uuid[] IS NULL OR d.tenant_id = ANY ($1))""",
        list(tenants) if tenants is not None else None,
        since,
    )
    return Survey(**dict(row)) if row else Survey(0, 0, 0, 0, 0)


async def groups(db: Connection, template: str | None) -> list[DriftGroup]:
    """The fleet by template, revision, major and schema; the largest groups first."""
    rows = await db.fetch(
        f"""SELECT d.template, d.schema_revision AS revision, s.version_num / 10000 AS major,
                   d.schema_fingerprint AS fingerprint, g.fingerprint AS golden,
                   count(*) AS tenants, (array_agg(t.slug ORDER BY t.slug))[:$2] AS slugs,
                   min(d.schema_read_at) AS read_at
            {_FOUND} AND ($1::text IS NULL OR d.template = $1)
            GROUP BY 1, 2, 3, 4, 5
            ORDER BY template, revision, major, tenants DESC, fingerprint""",
        template,
        _SAMPLES,
    )
    return [DriftGroup(**dict(row)) for row in rows]


async def of_tenant(db: Connection, tenant_id: UUID) -> Found | None:
    """What the tenant's database was last found to be; ``None`` if it has no database."""
    row = await db.fetchrow(
        f"""SELECT d.template, d.schema_revision AS revision, s.version_num / 10000 AS major,
                   d.schema_fingerprint AS fingerprint, g.fingerprint AS golden,
                   d.schema_read_at AS read_at,
                   (SELECT definition FROM schemas x WHERE x.fingerprint = d.schema_fingerprint)
                       AS definition,
                   (SELECT definition FROM schemas x WHERE x.fingerprint = g.fingerprint)
                       AS golden_definition
            {_FOUND} AND d.tenant_id = $1""",  # noqa: S608 - a constant of this module
        tenant_id,
    )
    return Found(**dict(row)) if row else None
