"""The generated clinic is one that its own triggers and foreign keys would have let in."""

import pytest

from tests.integration.query_budget.loading import LoadedClinic, load
from tests.integration.tenant_server.clinic import provision

pytestmark = pytest.mark.timeout(900)

# A statement for each foreign key that counts what it should have refused.
_ORPHANS = """
SELECT format('SELECT count(*) FROM %s c LEFT JOIN %s p ON p.id = c.%I WHERE c.%3$I IS NOT NULL'
              ' AND (p.id IS NULL OR p.deleted_at IS NOT NULL AND c.deleted_at IS NULL)',
              CAST(conrelid AS regclass), CAST(confrelid AS regclass), attname)
  FROM pg_constraint
  JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
  JOIN pg_class t ON t.oid = conrelid AND t.relnamespace = ANY (
       ARRAY['public', 'providers', 'patients', 'bookings']::regnamespace[])
 WHERE contype = 'f' ORDER BY 1
"""
# For each table with rows, a digest of all but the moment at which they were written.
_DIGESTS = """
SELECT format('SELECT md5(string_agg(CAST(to_jsonb(t) - ''created_at'' - ''updated_at'' AS text),'
              ' '','' ORDER BY id)) FROM %s AS t', CAST(oid AS regclass))
  FROM pg_class
 WHERE relkind = 'r' AND reltuples > 0 AND relname <> 'alembic_version' AND relnamespace = ANY (
       ARRAY['public', 'providers', 'patients', 'bookings']::regnamespace[])
 ORDER BY 1
"""
_INDEXES = """
SELECT indexdef FROM pg_indexes
 WHERE schemaname IN ('public', 'providers', 'patients', 'bookings') ORDER BY 1
"""


async def test_every_row_has_its_living_parent(loaded: LoadedClinic) -> None:
    statements = await loaded.admin.fetch(_ORPHANS)
    assert len(statements) >= 14
    for (statement,) in statements:
        assert await loaded.admin.fetchval(statement) == 0, statement


async def test_the_load_is_skewed_as_a_clinic_is(loaded: LoadedClinic) -> None:
    times_the_average = await loaded.admin.fetchval(
        "SELECT max(n) / avg(n) FROM (SELECT count(*) AS n FROM bookings.appointment"
        " GROUP BY provider_id) AS per_provider"
    )
    past = await loaded.admin.fetchval(
        "SELECT avg(CAST(appointment_at < now() AS integer)) FROM bookings.appointment"
    )
    assert times_the_average > 10
    assert past > 0.9


async def test_no_index_of_the_template_was_lost(loaded: LoadedClinic) -> None:
    """The load sets the secondary indexes aside."""
    other = await provision(loaded.clinic.place)
    async with other.inside() as untouched:
        assert await loaded.admin.fetch(_INDEXES) == await untouched.fetch(_INDEXES)


async def test_the_same_rows_every_time(loaded: LoadedClinic) -> None:
    digests = []
    for _ in range(2):
        clinic = await provision(loaded.clinic.place)
        async with clinic.inside() as admin:
            await load(admin, patients=500, providers=50)
            statements = await admin.fetch(_DIGESTS)
            digests.append([await admin.fetchval(statement) for (statement,) in statements])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == len(digests[0]) >= 12
