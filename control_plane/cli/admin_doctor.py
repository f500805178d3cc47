"""``tenantry admin doctor``: what is wrong with a deployment, looked at from this machine."""

import asyncio
import sys

import click
import httpx
import msgspec
import structlog

from control_plane.adapters.doorbell import CeleryDoorbell, celery_app
from control_plane.catalog.pool import Catalog
from control_plane.cli.commands import Command
from control_plane.cli.doctor import conclude
from control_plane.cli.session import Session, pass_session
from control_plane.config import ClientSettings, Settings, SettingsError, secret_files
from control_plane.domain.doctor import Diagnosis
from control_plane.services.doctor import examine, examine_secrets

_API_SECONDS = 5.0


@click.command("doctor", cls=Command)
@pass_session
def admin_doctor(session: Session) -> None:
    """Say what is wrong with this machine and with the deployment, and how to mend it.

    Works without the API, which is looked at too if TENANTRY_URL names it. Exit 0 when no part
    has a problem, 1 when one has; advice does not count.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    conclude(session, [msgspec.to_builtins(one) for one in _examined()])


def _examined() -> list[Diagnosis]:
    try:
        settings, url = Settings.from_environment(), ClientSettings.from_environment().url
    except SettingsError as error:
        remedy = "correct it; docs/configuration.md lists every setting"
        return [
            Diagnosis("settings", "problem", str(error), remedy),
            *examine_secrets(secret_files()),
        ]
    api = [_api(url)] if url else []
    return [*api, *asyncio.run(_examine(settings))]


async def _examine(settings: Settings) -> list[Diagnosis]:
    catalog = Catalog(settings)
    await catalog.open(max_size=1)
    try:
        doorbell = CeleryDoorbell(celery_app(settings))
        return await examine(settings, catalog, doorbell, secret_files())
    finally:
        await catalog.close()


def _api(url: str) -> Diagnosis:
    remedy = "start the API, or correct TENANTRY_URL; its log says why it stopped"
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health/ready", timeout=_API_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        found = f"{url} does not answer ({str(error) or type(error).__name__})"
        return Diagnosis("api", "problem", found, remedy)
    if answer.status_code != httpx.codes.OK:
        return Diagnosis("api", "problem", f"{url} answers {answer.status_code}", remedy)
    return Diagnosis("api", "ok", "ready")
