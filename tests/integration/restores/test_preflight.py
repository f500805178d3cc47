"""Why a backup cannot be restored is known before anything is made, and all of it at once."""

from pathlib import Path

import msgspec
import pytest

from control_plane.adapters import restore_preflight
from control_plane.adapters.object_stores.files import FileStore
from control_plane.domain.backups import Extension, Locale
from control_plane.domain.errors import ServerUnsuitable
from tests.integration.restores.restoring import Backup, back_up, drop, load_into, scratch_for
from tests.integration.tenant_server.clinic import Clinic, Place, provision

SUPERUSERS = """
CREATE FUNCTION public.noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER noticing ON ddl_command_end EXECUTE FUNCTION public.noted();
CREATE FUNCTION public.sine(double precision) RETURNS double precision
    LANGUAGE internal IMMUTABLE AS 'dsin';
CREATE CAST (oid AS xid) WITHOUT FUNCTION;
CREATE OPERATOR FAMILY public.family USING btree;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE TEXT SEARCH TEMPLATE public.templating (LEXIZE = dsimple_lexize);
CREATE TABLE public."of the ""administrator" (id integer);
"""

LOCALE = """
SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')
  FROM pg_database d WHERE datname = current_database()
"""


async def obstacles(clinic: Clinic, place: Place, store: FileStore, **changes: object) -> list[str]:
    backup = await back_up(clinic, store)
    manifest = msgspec.structs.replace(backup.manifest, **changes)
    admin = await place.server.admin()
    try:
        return await restore_preflight.obstacles(admin, manifest, place.server.version * 10_000)
    finally:
        await admin.close()


@pytest.mark.parametrize(("source", "target"), [(15, 15), (18, 18), (15, 18)])
async def test_what_fits_has_no_obstacles(
    places: dict[int, Place],
    filled: dict[int, Clinic],
    store: FileStore,
    source: int,
    target: int,
) -> None:
    older = Locale("UTF8", "C.UTF-8", "C.UTF-8", "c", version="1.0")
    assert await obstacles(filled[source], places[target], store) == []
    # A collation of another version sorts what is loaded, and so its indexes, anew.
    assert await obstacles(filled[source], places[target], store, locale=older) == []


async def test_every_obstacle_is_told(
    places: dict[int, Place], filled: dict[int, Clinic], store: FileStore
) -> None:
    found = await obstacles(
        filled[18],
        places[15],
        store,
        extensions=[Extension("postgis", "3.4", "public"), Extension("citext", "1.6", "public")],
        locale=Locale("UTF8", "xx_YY.UTF-8", "xx_YY.UTF-8", "c"),
    )
    assert found[:2] == [
        "it has Postgres 15, the backup is of Postgres 18",
        "extension postgis is not installed on it",
    ]
    assert "could not create locale" in found[2]
    assert len(found) == 3


@pytest.mark.parametrize(
    ("locale", "target", "words"),
    [
        (Locale("KLINGON", "C", "C", "c"), 15, "does not know the encoding KLINGON"),
        (Locale("UTF8", "C", "C", "b", "C.UTF-8"), 15, "unrecognized collation provider"),
        (Locale("UTF8", "C", "C", "i", "de-DE"), 18, "ICU is not supported"),
    ],
)
async def test_a_locale_that_is_not_there(
    places: dict[int, Place],
    filled: dict[int, Clinic],
    store: FileStore,
    locale: Locale,
    target: int,
    words: str,
) -> None:
    (found,) = await obstacles(filled[15], places[target], store, locale=locale)
    assert words in found


@pytest.mark.parametrize(
    ("locale", "version"),
    [
        (Locale("WIN1252", "C", "C", "c"), 15),
        (Locale("UTF8", "C", "C.UTF-8", "i", "de-DE"), 15),
        (Locale("UTF8", "C", "C", "b", "C.UTF-8"), 18),
    ],
)
async def test_a_database_is_made_with_the_locale_it_had(
    places: dict[int, Place], store: FileStore, tmp_path: Path, locale: Locale, version: int
) -> None:
    place = places[version]
    clinic = await provision(place)
    assert await obstacles(clinic, place, store, locale=locale) == []
    backup = await back_up(clinic, store)
    manifest = msgspec.structs.replace(backup.manifest, locale=locale)
    scratch = scratch_for(Backup(manifest, store), place, tmp_path)
    await load_into(scratch)
    async with scratch.inside() as inside:
        row = await inside.fetchrow(LOCALE)
    assert row is not None
    assert Locale(*row) == msgspec.structs.replace(locale, version=None)
    await drop(scratch)


async def test_what_only_a_superuser_can_make_is_named(
    places: dict[int, Place], store: FileStore, tmp_path: Path
) -> None:
    clinic = await provision(places[15])
    async with clinic.inside() as inside:
        await inside.execute(SUPERUSERS)
        await inside.execute(
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {clinic.roles.backup}"
        )
    backup = await back_up(clinic, store)
    scratch = scratch_for(backup, places[15], tmp_path)
    with pytest.raises(ServerUnsuitable) as caught:
        await load_into(scratch)
    for words in (
        "only a superuser can make event trigger noticing",
        "only a superuser can make function public.sine(double precision)",
        'only a superuser can make cast CAST ("oid" AS "xid")',
        "only a superuser can make operator family public.family",
        "only a superuser can make foreign data wrapper nowhere",
        "only a superuser can make text search template public.templating",
        'table public.of the "administrator belongs to tenantry_admin',
    ):
        assert words in caught.value.message
    await drop(scratch)
