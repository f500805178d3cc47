"""The migration of a release on the catalog of a later one, as in the midst of an upgrade."""

import pytest

from control_plane.catalog.migrate import migrate
from control_plane.catalog.pool import Connection
from control_plane.services.ports import Ports


async def test_a_catalog_of_a_later_release_stays_as_it_is(
    ports: Ports, db: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await db.execute("UPDATE alembic_version SET version_num = '9999'")
    migrate(ports.settings)
    assert "9999 is of a later release" in capsys.readouterr().err
    assert await db.fetchval("SELECT version_num FROM alembic_version") == "9999"
