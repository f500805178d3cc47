"""``tenantry doctor``: every part of a deployment looked at, whatever state the others are in."""

import asyncio
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from control_plane.adapters import clock, key_file
from control_plane.adapters.apart import apart
from control_plane.adapters.doorbell import Doorbell
from control_plane.adapters.object_stores.opening import open_store
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.providers.opening import open_providers
from control_plane.adapters.providers.provider import Provider
from control_plane.catalog import catalog_life, migrate, poolers, servers, vital_signs
from control_plane.catalog.pool import Catalog, Connection
from control_plane.catalog.poolers import Pooler
from control_plane.catalog.servers import Server
from control_plane.config import BackupSettings, ProviderSettings, Settings, SettingsError
from control_plane.domain import doctor
from control_plane.domain.doctor import (
    CatalogSigns,
    Diagnosis,
    DirectorySigns,
    KeySigns,
    PoolerSigns,
    ProviderSigns,
    QueueSigns,
    SecretSigns,
    ServerSigns,
)
from control_plane.domain.errors import CatalogUnavailable, KeyUnavailable, TenantryError
from control_plane.services.health import redis_answers

_STORE_SECONDS = _PROVIDER_SECONDS = 30.0
_CATALOG_REMEDY = "start the catalog, or correct TENANTRY_CATALOG_DSN and its password file"


async def examine(
    settings: Settings, catalog: Catalog, doorbell: Doorbell, secrets: Mapping[str, Path]
) -> list[Diagnosis]:
    """A diagnosis for each part, as seen from this machine; ``secrets`` are its secret files.

    Only the store is written to: a test object, which is deleted again.
    """
    found = examine_secrets(secrets)
    found += doctor.keys(await asyncio.to_thread(_keys, settings.keyring_file))
    found += doctor.directories(_directories(settings))
    found += await _catalog(settings, catalog, doorbell)
    found.append(doctor.redis(answers=await redis_answers(settings)))
    found += await examine_providers(settings.providers)
    return found + await _stores(settings.backup)


def examine_secrets(secrets: Mapping[str, Path]) -> list[Diagnosis]:
    """The files with secrets alone, by the variables that name them."""
    return list(doctor.secret_files(map(_secret, secrets, secrets.values())))


async def _catalog(settings: Settings, catalog: Catalog, doorbell: Doorbell) -> list[Diagnosis]:
    try:
        async with catalog.connection() as db:
            signs = await _age(db)
            found = list(doctor.catalog(signs))
            if signs.revision == signs.head or not signs.known:
                found += await _members(db, settings, doorbell)
            return found
    except CatalogUnavailable as error:
        return [Diagnosis("catalog", "problem", error.message, _CATALOG_REMEDY)]


async def _age(db: Connection) -> CatalogSigns:
    before = clock.now()
    age = await vital_signs.read_age(db)
    middle = before + (clock.now() - before) / 2
    known = age.revision is None or age.revision in migrate.revisions()
    return CatalogSigns(
        version_num=age.version_num,
        revision=age.revision,
        head=migrate.head(),
        known=known,
        clock_ahead=age.now - middle.timestamp(),
        accepted=age.accepted,
    )


async def _members(db: Connection, settings: Settings, doorbell: Doorbell) -> list[Diagnosis]:
    """Those who work from the catalog, as far as it knows of them."""
    queues = [
        QueueSigns(one.queue, await doorbell.unheard(one.queue), one.held, one.waiting_seconds)
        for one in await vital_signs.read_queues(db)
    ]
    programs = Programs(settings.backup.postgres_programs)
    backup = settings.backup
    silent = await vital_signs.read_silence(db, planning=backup.store is not None)
    found = list(doctor.beat_and_workers(silent, queues))
    if backup.store is not None:
        life = await catalog_life.read_life(db)
        seconds = backup.catalog_minutes * 60
        found.append(doctor.catalog_backup(life.age_seconds, seconds, any_made=life.backed_up))
    listed = await servers.every(db)
    found += doctor.servers([await asyncio.to_thread(_server, one, programs) for one in listed])
    served = await vital_signs.count_served(db)
    found += doctor.poolers(map(_pooler, await poolers.every(db)), served)
    return found


def _server(server: Server, programs: Programs) -> ServerSigns:
    missing = None
    try:
        major = server.version_num // 10_000
        _ = programs.dump(major), programs.restore(major), programs.amcheck(major)
    except TenantryError as error:
        missing = error.message
    return ServerSigns(server.name, server.version_num, server.reachable, server.problem, missing)


def _pooler(pooler: Pooler) -> PoolerSigns:
    behind = pooler.wanted_version - pooler.served_version
    return PoolerSigns(pooler.name, pooler.alive, behind, pooler.version, pooler.problem)


def _keys(path: Path) -> KeySigns:
    try:
        content = key_file.read(path)
    except KeyUnavailable as error:
        return KeySigns(path, error.message)
    active = content.epochs[str(content.active)]
    return KeySigns(path, None, active.escrowed is not None, active.drilled is not None)


def _secret(variable: str, path: Path) -> SecretSigns:
    try:
        with path.open("rb") as file:
            return SecretSigns(variable, path, os.fstat(file.fileno()).st_mode & 0o7777)
    except OSError:
        return SecretSigns(variable, path, None)


def _directories(settings: Settings) -> Iterator[DirectorySigns]:
    """The spool, and stores that are directories of this machine."""
    backup = settings.backup
    if backup.store is not None:
        # A worker makes the spool when it needs it: what counts is the place it is made in.
        yield _directory("TENANTRY_SPOOL_DIR", _nearest(backup.spool))
    named = {"TENANTRY_BACKUP_STORE": backup.store, "TENANTRY_KEYSTORE": backup.keystore}
    places = {url: variable for variable, url in reversed(named.items()) if url}
    for url, variable in places.items():
        if url.startswith("file:"):
            yield _directory(variable, Path(urlsplit(url).path))


def _nearest(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _directory(variable: str, path: Path) -> DirectorySigns:
    if not path.is_dir():
        return DirectorySigns(variable, path, "is not there", 0)
    writable = os.access(path, os.W_OK | os.X_OK)
    free = shutil.disk_usage(path).free
    return DirectorySigns(variable, path, None if writable else "cannot be written to", free)


async def examine_providers(settings: ProviderSettings) -> list[Diagnosis]:
    """Those who make servers, as far as they are set up; nothing is made."""
    try:
        found = open_providers(settings)
    except SettingsError as error:
        remedy = "docs/configuration.md lists every setting"
        return [Diagnosis("providers", "problem", str(error), remedy)]
    return list(doctor.providers(await asyncio.gather(*map(_provider, found.values()))))


async def _provider(provider: Provider) -> ProviderSigns:
    try:
        async with asyncio.timeout(_PROVIDER_SECONDS):
            standing = await provider.examine()
    except TimeoutError:
        problem = f"did not answer within {_PROVIDER_SECONDS:.0f} s"
        return ProviderSigns(provider.kind, problem=problem)
    except TenantryError as error:
        return ProviderSigns(provider.kind, problem=error.message)
    return ProviderSigns(
        provider.kind,
        standing.seen,
        missing=standing.missing,
        looks_only=standing.looks_only,
        unverified=standing.unverified,
    )


async def _stores(settings: BackupSettings) -> list[Diagnosis]:
    urls = [url for url in dict.fromkeys((settings.store, settings.keystore)) if url]
    if not urls:
        remedy = "name a place for them: TENANTRY_BACKUP_STORE"
        return [Diagnosis("store", "advice", "there is none, and so there are no backups", remedy)]
    return [await _store(url, settings) for url in urls]


async def _store(url: str, settings: BackupSettings) -> Diagnosis:
    part, remedy = f"store {url}", "correct what docs/configuration.md says of the store"
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            done = await apart(lambda: open_store(url, settings).self_test())
    except TimeoutError:
        found = f"did not answer within {_STORE_SECONDS:.0f} s"
        return Diagnosis(part, "problem", found, remedy)
    except SettingsError as error:
        return Diagnosis(part, "problem", str(error), remedy)
    except TenantryError as error:
        return Diagnosis(part, "problem", error.message, remedy)
    return Diagnosis(part, "ok", f"passed its {len(done)} tests")
