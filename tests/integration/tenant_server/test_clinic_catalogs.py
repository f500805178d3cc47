"""The patterns of the finished clinic, read from the catalogs: what a new table may forget."""

from collections.abc import AsyncIterator

import pytest

from control_plane.adapters.postgres_server import Connection
from tests.integration.tenant_server.clinic import Clinic
from tests.integration.tenant_server.clinic_rows import MINIMAL

DOMAIN_TABLES = """
SELECT c.oid, format('%s.%s', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('public', 'providers', 'patients', 'bookings')
   AND c.relname <> 'alembic_version'
"""
# pg_get_triggerdef says everything that can be wrong with a trigger.
TRIGGERS = """
SELECT tgname, tgenabled, pg_get_triggerdef(oid) AS definition FROM pg_trigger
 WHERE tgrelid = $1 AND NOT tgisinternal AND tgname !~ '^zz_'
"""
LOOSE_KEYS = """
SELECT format('%s %s', conrelid::regclass, conname) AS name FROM pg_constraint
 WHERE contype = 'f' AND (confdeltype <> 'r' OR confupdtype NOT IN ('a', 'r') OR NOT convalidated)
"""
UNINDEXED_KEYS = """
SELECT format('%s %s', conrelid::regclass, conname) AS name FROM pg_constraint
 WHERE contype = 'f' AND NOT EXISTS (
           SELECT FROM pg_index i
            WHERE i.indrelid = conrelid AND i.indpred IS NULL AND i.indisvalid AND i.indisready
              AND (i.indkey::smallint[])[0:cardinality(conkey) - 1] @> conkey)
"""
# Two indexes of one table where the first adds nothing but work for every write.
REDUNDANT_INDEXES = """
SELECT format('%s is a beginning of %s', a.indexrelid::regclass, b.indexrelid::regclass) AS name
  FROM pg_index a JOIN pg_index b ON a.indrelid = b.indrelid AND a.indexrelid <> b.indexrelid
  JOIN pg_class c ON c.oid = a.indrelid
 WHERE c.relnamespace::regnamespace::text IN ('public', 'providers', 'patients', 'bookings')
   AND NOT a.indisunique AND a.indexprs IS NULL AND b.indexprs IS NULL
   AND pg_get_expr(a.indpred, a.indrelid) IS NOT DISTINCT FROM pg_get_expr(b.indpred, b.indrelid)
   AND b.indkey::text || ' ' LIKE a.indkey::text || ' %'
"""
PHI_COLUMNS = """
SELECT format('%s.%s.%s', n.nspname, c.relname, a.attname) AS name,
       format_type(a.atttypid, NULL) AS type, col_description(c.oid, a.attnum) AS comment
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND a.attname ~ '_(ciphertext|blind_index)$'
"""


@pytest.fixture
async def inside(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    async with clinics[0].inside() as connection:
        await connection.execute("SET search_path = pg_catalog")
        yield connection


async def test_every_table_is_known_to_these_tests(inside: Connection) -> None:
    assert {row["name"] for row in await inside.fetch(DOMAIN_TABLES)} == set(MINIMAL)


async def test_every_table_has_its_triggers_and_each_foreign_key_its_guard(
    inside: Connection,
) -> None:
    for table in await inside.fetch(DOMAIN_TABLES):
        keys = await inside.fetch(
            """SELECT attname::text AS part, format('%s.%s', n.nspname, p.relname) AS parent
                 FROM pg_constraint k
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
                 JOIN pg_class p ON p.oid = k.confrelid
                 JOIN pg_namespace n ON n.oid = p.relnamespace
                WHERE k.conrelid = $1 AND k.contype = 'f'""",
            table["oid"],
        )
        found = await inside.fetch(TRIGGERS, table["oid"])
        assert {row["definition"] for row in found} == wanted(
            table["name"], [(key["part"], key["parent"]) for key in keys]
        )
        assert {row["tgenabled"] for row in found} == {b"O"}


def wanted(table: str, keys: list[tuple[str, str]]) -> set[str]:
    each = f"ON {table} FOR EACH ROW"
    return {
        (
            f"CREATE TRIGGER touch_updated_at BEFORE UPDATE {each} "
            "WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.touch_updated_at()"
        ),
        (
            f"CREATE TRIGGER refuse_delete BEFORE DELETE {each} "
            "EXECUTE FUNCTION public.refuse_delete()"
        ),
        (
            f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT "
            "EXECUTE FUNCTION public.refuse_delete()"
        ),
        (
            f"CREATE TRIGGER refuse_orphans BEFORE UPDATE OF deleted_at {each} WHEN "
            "(((old.deleted_at IS NULL) AND (new.deleted_at IS NOT NULL))) "
            "EXECUTE FUNCTION public.refuse_orphans()"
        ),
        *(
            f"CREATE TRIGGER live_{part} BEFORE INSERT OR UPDATE OF {part}, deleted_at {each} "
            "WHEN ((new.deleted_at IS NULL)) "
            f"EXECUTE FUNCTION public.require_live_parent('{part}', '{parent}')"
            for part, parent in keys
        ),
    }


async def test_no_key_cascades_and_every_key_is_indexed(inside: Connection) -> None:
    assert [row["name"] for row in await inside.fetch(LOOSE_KEYS)] == []
    assert [row["name"] for row in await inside.fetch(UNINDEXED_KEYS)] == []


async def test_no_index_repeats_another(inside: Connection) -> None:
    assert [row["name"] for row in await inside.fetch(REDUNDANT_INDEXES)] == []


@pytest.mark.parametrize(
    ("change", "query"),
    [
        (
            (
                "ALTER TABLE bookings.review ADD other uuid REFERENCES bookings.payment "
                "ON DELETE CASCADE"
            ),
            LOOSE_KEYS,
        ),
        ("ALTER TABLE bookings.review ADD other uuid REFERENCES bookings.payment", UNINDEXED_KEYS),
        ("CREATE INDEX again ON bookings.review (appointment_id)", REDUNDANT_INDEXES),
    ],
    ids=["a cascade", "a key without an index", "an index twice"],
)
async def test_the_queries_would_find_one(inside: Connection, change: str, query: str) -> None:
    before = len(await inside.fetch(query))
    trial = inside.transaction()
    await trial.start()
    await inside.execute(change)
    assert len(await inside.fetch(query)) > before
    await trial.rollback()


async def test_ciphertext_is_bytes_and_says_what_it_is(inside: Connection) -> None:
    columns = await inside.fetch(PHI_COLUMNS)
    assert len(columns) == 12
    assert [row["name"] for row in columns if row["type"] != "bytea"] == []
    words = {"ciphertext": "encrypted by the application", "blind_index": "equality only"}
    unsaid = [
        row["name"]
        for row in columns
        for ending, word in words.items()
        if row["name"].endswith(ending) and word not in (row["comment"] or "")
    ]
    assert unsaid == []


async def test_only_the_email_is_unique_among_the_blind_indexes(inside: Connection) -> None:
    found = await inside.fetch(
        """SELECT i.indexrelid::regclass::text AS name, pg_get_expr(indpred, indrelid) AS part
             FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
                  AND a.attnum = i.indkey[0]
            WHERE a.attname ~ 'blind_index$' AND i.indisunique"""
    )
    assert [tuple(row) for row in found] == [("patients.patient_email_key", "(deleted_at IS NULL)")]


async def test_every_constraint_was_validated(inside: Connection) -> None:
    loose = await inside.fetch("SELECT conname FROM pg_constraint WHERE NOT convalidated")
    assert [row[0] for row in loose] == []
