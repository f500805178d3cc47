"""The revision that docs/clinic-template.md offers for copying keeps every pattern."""

import re
import shutil
from pathlib import Path

import asyncpg
import pytest

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.revision_lint import lint
from control_plane.adapters.revisions import Revision, bind_roles, compile_path
from control_plane.config import REPOSITORY
from tests.integration.tenant_server import test_clinic_catalogs as catalogs
from tests.integration.tenant_server.clinic import DENIED, TEMPLATE, Place, provision, sqlstate
from tests.integration.tenant_server.clinic_rows import acting, add, soft_delete

PAGE = REPOSITORY / "docs" / "clinic-template.md"


@pytest.fixture
def recipe(tmp_path: Path) -> Revision:
    """The page's revision, compiled after all of the template's."""
    directory = tmp_path / "tenant_template"
    skipped = shutil.ignore_patterns("__pycache__", "client", "queries")
    shutil.copytree(TEMPLATE, directory, ignore=skipped)
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (directory / "versions" / "0012_rooms.py").write_text(found[1], encoding="utf-8")
    path = compile_path(directory)
    released = frozenset(revision.id for revision in path[:-1])
    assert lint(path, released) == []
    return path[-1]


async def test_the_recipe_makes_a_table_like_the_others(place: Place, recipe: Revision) -> None:
    clinic = await provision(place)
    async with clinic.inside() as inside:
        await inside.execute(f"SET ROLE {clinic.roles.owner}; SET search_path = pg_catalog")
        async with inside.transaction():
            for statement in recipe.segments[0].statements:
                await inside.execute(bind_roles(statement, clinic.roles))
        room = "'providers.room'::regclass"
        triggers = await inside.fetch(catalogs.TRIGGERS.replace("$1", room))
        assert {row["definition"] for row in triggers} == catalogs.wanted(
            "providers.room", [("city_id", "public.city")]
        )
        audited = "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^zz_audit' AND tgrelid = "
        assert await inside.fetchval(audited + room) == 2
        for query in (catalogs.UNINDEXED_KEYS, catalogs.LOOSE_KEYS, catalogs.REDUNDANT_INDEXES):
            assert await inside.fetch(query) == []
    app = await clinic.app()
    await the_room_lives_by_the_rules(app, clinic.roles.reader)
    await app.close()


async def the_room_lives_by_the_rules(app: Connection, reader: str) -> None:
    async with acting(app):
        city = await add(app, "public.city")
        room = await app.fetchval(
            "INSERT INTO providers.room (city_id, name) VALUES ($1, 'blue') RETURNING id", city
        )
        payment = await add(app, "bookings.payment", receipt_number="2030-1")
    assert await sqlstate(app, "UPDATE providers.room SET deleted_at = now()") == DENIED
    assert await sqlstate(app, "DELETE FROM providers.room") == DENIED
    with pytest.raises(asyncpg.ForeignKeyViolationError, match=r"living rows in providers\.room"):
        async with acting(app):
            await soft_delete(app, "public.city", city)
    async with app.transaction():
        await app.execute(f"SET LOCAL ROLE {reader}")
        assert await app.fetchval("SELECT name FROM providers.room_live") == "blue"
        seen = "SELECT receipt_number FROM bookings.payment_live WHERE id = $1"
        assert await app.fetchval(seen, payment) == "2030-1"
    async with acting(app):
        assert await soft_delete(app, "providers.room", room)
        assert await soft_delete(app, "public.city", city)
        assert await app.fetchval("SELECT count(*) FROM providers.room_live") == 0
