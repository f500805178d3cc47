"""Composition root: settings in, catalog and adapters out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from control_plane.adapters.doorbell import CeleryDoorbell, celery_app
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.template_files import Templates
from control_plane.catalog.pool import Catalog
from control_plane.config import Settings
from control_plane.services.ports import Ports


def make_ports(settings: Settings) -> Ports:
    """Put one process's ports together; the catalog still has to be opened.

    Raises:
        KeyUnavailable: the keyring file cannot be used.
        SettingsError: the template directory holds no template.
    """
    return Ports(
        settings=settings,
        catalog=Catalog(settings),
        keyring=Keyring.load(settings.keyring_file),
        doorbell=CeleryDoorbell(celery_app(settings)),
        templates=Templates(settings.templates),
        programs=Programs(settings.backup.postgres_programs),
    )


@asynccontextmanager
async def open_ports(settings: Settings) -> AsyncIterator[Ports]:
    """The ports with an open catalog, closed at the end."""
    ports = make_ports(settings)
    await ports.catalog.open()
    try:
        yield ports
    finally:
        await ports.catalog.close()
