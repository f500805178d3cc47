"""The backup login has one password at a time, and one who has it."""

import pytest

from control_plane.adapters.backup_login import close_backup_login, open_backup_login
from control_plane.domain.errors import ObjectInUse
from tests.integration.tenant_server.clinic import Clinic, Place


async def test_who_has_the_login_keeps_it_until_it_is_closed(
    place: Place, clinics: list[Clinic]
) -> None:
    first, second = await place.server.admin(), await place.server.admin()
    roles = clinics[0].roles
    password = await open_backup_login(first, roles)
    with pytest.raises(ObjectInUse, match="in use"):
        await open_backup_login(second, roles)
    session = await place.server.login(roles.backup, password, clinics[0].database)
    assert await session.fetchval("SELECT current_user") == roles.backup
    await close_backup_login(first, roles)
    assert await open_backup_login(second, roles) is not None
    await close_backup_login(second, roles)
    await open_backup_login(first, roles)
    await close_backup_login(first, roles)
    await first.close()
    await second.close()
