"""Composition root: settings in, catalog and adapters out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from control_plane.adapters.doorbell import CeleryDoorbell, celery_app
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import Keystore
from control_plane.adapters.kms import LocalKms
from control_plane.adapters.object_stores.opening import open_store
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.providers.opening import open_providers
from control_plane.adapters.template_files import Templates
from control_plane.catalog.pool import Catalog
from control_plane.config import BackupSettings, Settings
from control_plane.services.ports import Ports


def make_ports(settings: Settings) -> Ports:
    """Put one process's ports together; the catalog still has to be opened.

    Raises:
        KeyUnavailable: the keyring file cannot be used.
        SettingsError: the template directory holds no template, or a store is none.
    """
    backup = settings.backup
    keyring = Keyring.load(settings.keyring_file)
    return Ports(
        settings=settings,
        catalog=Catalog(settings),
        keyring=keyring,
        doorbell=CeleryDoorbell(celery_app(settings)),
        templates=Templates(settings.templates),
        programs=Programs(backup.postgres_programs),
        store=open_store(backup.store, backup) if backup.store else None,
        keystore=make_keystore(backup, keyring),
        providers=open_providers(settings.providers),
    )


def make_keystore(settings: BackupSettings, keyring: Keyring) -> Keystore | None:
    """Where tenants' keys are, if there is such a place; nothing is asked of it yet.

    Raises:
        SettingsError: its URL can be no store.
    """
    if settings.keystore is None:
        return None
    store, local = open_store(settings.keystore, settings), LocalKms(keyring)
    if settings.kms == "local":
        return Keystore(store, local)
    from control_plane.adapters.aws_kms import AwsKms  # noqa: PLC0415 - boto3 is slow to import

    key_ids = settings.kms.removeprefix("aws-kms:").split(",")
    aws = AwsKms(key_ids, region=settings.s3_region, endpoint=settings.kms_endpoint)
    return Keystore(store, aws, also=(local,))


@asynccontextmanager
async def open_ports(settings: Settings) -> AsyncIterator[Ports]:
    """The ports with an open catalog, closed at the end."""
    ports = make_ports(settings)
    await ports.catalog.open()
    try:
        yield ports
    finally:
        await ports.catalog.close()
