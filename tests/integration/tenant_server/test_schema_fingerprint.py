"""The fingerprint is one for all databases of one schema, and every change to a schema shows."""

import hashlib

import pytest

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.schema_fingerprint import (
    TEMPLATE_ROLES,
    read_definition,
    read_fingerprint,
    role_names,
)
from control_plane.domain.schema_diff import SchemaReading, as_ddl, difference
from tests.integration.tenant_server.clinic import Clinic, Place


async def reading(clinic: Clinic) -> SchemaReading:
    async with clinic.inside() as inside:
        return await read_definition(inside, role_names(clinic.roles))


async def test_clones_and_their_template_are_one_schema(
    place: Place, administrator: Connection, clinics: list[Clinic]
) -> None:
    found = [await reading(clinic) for clinic in clinics[:2]]
    await administrator.execute(f"ALTER DATABASE {place.template} ALLOW_CONNECTIONS true")
    template = await place.server.admin(place.template)
    found.append(await read_definition(template, TEMPLATE_ROLES))
    await template.close()
    await administrator.execute(f"ALTER DATABASE {place.template} ALLOW_CONNECTIONS false")
    assert difference(found[2].definition, found[0].definition) == []
    assert {one.fingerprint for one in found} == {found[0].fingerprint}
    assert len(found[0].fingerprint) == 2 * hashlib.sha256().digest_size
    assert found[0].definition == found[1].definition == found[2].definition


async def test_both_ways_of_reading_give_one_fingerprint(clinics: list[Clinic]) -> None:
    async with clinics[0].inside() as inside:
        cheap = await read_fingerprint(inside, role_names(clinics[0].roles))
    assert cheap == (await reading(clinics[0])).fingerprint


async def test_the_owner_reads_what_the_administrator_reads(clinics: list[Clinic]) -> None:
    roles = role_names(clinics[0].roles)
    async with clinics[0].inside() as inside:
        before = await read_fingerprint(inside, roles)
        await inside.execute(f"SET ROLE {clinics[0].roles.owner}")
        assert await read_fingerprint(inside, roles) == before


async def test_no_name_of_the_tenant_is_in_the_definition(clinics: list[Clinic]) -> None:
    found = await reading(clinics[0])
    assert clinics[0].roles.prefix not in str(found.definition)
    assert "cp_template" not in str(found.definition)
    assert "cp_meta" not in str(found.definition)


SAME = {
    "a role with another name": "ALTER ROLE {app} RENAME TO renamed_app",
    "contents": "INSERT INTO public.alembic_version VALUES ('x'); ANALYZE public.city",
    "positions of columns": """
        ALTER TABLE public.city ADD COLUMN passing text;
        ALTER TABLE public.city DROP COLUMN passing;
        ALTER TABLE audit.seal_block ALTER block SET STATISTICS 100
    """,
    "what the backup role may do": """
        REVOKE ALL ON ALL TABLES IN SCHEMA patients FROM {backup};
        ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE ALL ON SCHEMAS FROM {backup};
        ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE ALL ON TABLES FROM {backup}
    """,
    "who came first in a list of privileges": """
        REVOKE SELECT ON public.city FROM {app}; GRANT SELECT ON public.city TO {app};
    """,
    "months to come of the audit log": "SELECT audit.ensure_partitions(12)",
    "objects of the control plane": "CREATE TABLE cp_meta.more (id int)",
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
async def test_what_is_no_part_of_the_schema_changes_nothing(
    clinics: list[Clinic], change: str
) -> None:
    roles = role_names(clinics[0].roles)
    words = {word: name for name, word in roles.items()}
    async with clinics[0].inside() as inside:
        before = await read_fingerprint(inside, roles)
        transaction = inside.transaction()
        await transaction.start()
        await inside.execute(change.format(**words))
        if "renamed_app" in change:
            roles = {("renamed_app" if word == "app" else n): word for n, word in roles.items()}
        after = await read_definition(inside, roles)
        await transaction.rollback()
    assert difference((await reading(clinics[0])).definition, after.definition) == []
    assert after.fingerprint == before


DIFFERENT = {
    # Not SET: that would depend on the rows that other tests leave in this clinic.
    "ALTER TABLE public.city ALTER name DROP NOT NULL": ("column public.city.name",),
    "ALTER TABLE public.alembic_version ALTER version_num TYPE text": (
        "column public.alembic_version.version_num",
    ),
    "ALTER TABLE providers.service ALTER currency SET DEFAULT 'EUR'": (
        "column providers.service.currency",
    ),
    "ALTER TABLE providers.service ALTER currency SET COMPRESSION pglz": (
        "column providers.service.currency",
    ),
    "ALTER TABLE public.city ADD COLUMN mayor text": ("column public.city.mayor",),
    "ALTER TABLE public.city ADD COLUMN n int GENERATED ALWAYS AS IDENTITY": None,
    "ALTER TABLE public.city ADD COLUMN big text GENERATED ALWAYS AS (upper(name)) STORED": (
        "column public.city.big",
    ),
    "DROP INDEX bookings.appointment_upcoming": ("index bookings.appointment_upcoming",),
    "CREATE INDEX mine ON public.city (name)": ("index public.mine",),
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
    "'bookings.appointment_upcoming'::regclass": ("index bookings.appointment_upcoming",),
    "UPDATE pg_index SET indisready = false WHERE indexrelid = 'public.city_pkey'::regclass": (
        "index public.city_pkey",
    ),
    "ALTER TABLE bookings.review DROP CONSTRAINT review_rating_check": (
        "constraint bookings.review.review_rating_check",
    ),
    "ALTER TABLE bookings.review ADD CONSTRAINT odd CHECK (rating <> 4) NOT VALID": (
        "constraint bookings.review.odd",
    ),
    "ALTER TABLE patients.patient DISABLE TRIGGER refuse_delete": (
        "trigger patients.patient.refuse_delete",
    ),
    "ALTER TABLE bookings.payment DISABLE TRIGGER ALL": None,
    "DROP TRIGGER touch_updated_at ON public.city": ("trigger public.city.touch_updated_at",),
    "CREATE OR REPLACE FUNCTION public.refuse_delete() RETURNS trigger LANGUAGE plpgsql "
    "SET search_path = pg_catalog AS 'BEGIN RETURN OLD; END'": ("function public.refuse_delete()",),
    "ALTER FUNCTION public.refuse_delete() SECURITY DEFINER": ("function public.refuse_delete()",),
    "ALTER FUNCTION public.refuse_delete() RESET search_path": ("function public.refuse_delete()",),
    "ALTER FUNCTION public.refuse_delete() OWNER TO {app}": (
        "access function public.refuse_delete()",
    ),
    "GRANT EXECUTE ON FUNCTION public.refuse_delete() TO PUBLIC": (
        "access function public.refuse_delete()",
    ),
    "GRANT DELETE ON patients.patient TO {app}": ("access table patients.patient",),
    "GRANT SELECT ON patients.patient TO {migrator} WITH GRANT OPTION": (
        "access table patients.patient",
    ),
    "GRANT UPDATE (id) ON patients.patient TO {app}": ("access column patients.patient.id",),
    "GRANT CREATE ON SCHEMA bookings TO {app}": ("access schema bookings",),
    "ALTER TABLE patients.patient OWNER TO {app}": None,
    "GRANT SELECT ON patients.patient TO pg_monitor": ("access table patients.patient",),
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA bookings "
    "GRANT DELETE ON TABLES TO {app}": ("access default privileges for owner in bookings on r",),
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT EXECUTE ON FUNCTIONS TO PUBLIC": None,
    "CREATE TABLE public.mine (id int)": None,
    "CREATE UNLOGGED TABLE public.mine ()": None,
    "ALTER TABLE public.city SET (fillfactor = 50)": ("table public.city",),
    "ALTER TABLE public.city REPLICA IDENTITY FULL": ("table public.city",),
    "ALTER TABLE public.city ENABLE ROW LEVEL SECURITY": ("table public.city",),
    "CREATE POLICY mine ON public.city FOR SELECT TO {app} USING (name = 'a' || 'b')": (
        "policy public.city.mine",
    ),
    "CREATE RULE mine AS ON DELETE TO public.city DO INSTEAD NOTHING": ("rule public.city.mine",),
    "CREATE VIEW public.mine AS SELECT name FROM public.city": None,
    "CREATE SEQUENCE public.mine": None,
    "CREATE TYPE public.mood AS ENUM ('fine', 'so so')": None,
    "CREATE TYPE public.pair AS (a int, b text)": None,
    "CREATE TYPE public.span AS RANGE (SUBTYPE = date)": None,
    "CREATE DOMAIN public.code AS text CHECK (VALUE <> '')": None,
    "CREATE COLLATION public.mine (LOCALE = 'C')": ("other collation public.mine",),
    "CREATE STATISTICS public.mine ON name, region FROM public.city": None,
    "CREATE AGGREGATE public.total (int) (SFUNC = int4pl, STYPE = int)": None,
    "CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION public.watch()": None,
    "CREATE SCHEMA mine": None,
    "UPDATE pg_extension SET extnamespace = 'public'::regnamespace": ("extension plpgsql",),
    "ALTER TABLE audit.audit_log_default DISABLE TRIGGER USER": ("partition audit.audit_log/*",),
}


@pytest.mark.parametrize("change", DIFFERENT.keys())
async def test_every_change_shows_and_is_named(clinics: list[Clinic], change: str) -> None:
    roles = role_names(clinics[1].roles)
    words = {word: name for name, word in roles.items()}
    async with clinics[1].inside() as inside:
        before = await read_definition(inside, roles)
        transaction = inside.transaction()
        await transaction.start()
        await inside.execute(change.format(**words))
        after = await read_definition(inside, roles)
        assert await read_fingerprint(inside, roles) == after.fingerprint
        await transaction.rollback()
        assert await read_fingerprint(inside, roles) == before.fingerprint
    assert after.fingerprint != before.fingerprint
    changes = difference(before.definition, after.definition)
    named = tuple(f"{one.kind} {one.name}" for one in changes)
    assert named
    if (expected := DIFFERENT[change]) is not None:
        assert named == expected
    assert all(entry.startswith("-- ") for entry in as_ddl(changes))
