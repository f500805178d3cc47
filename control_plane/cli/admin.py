"""``tenantry admin``: first set-up and break-glass, without the API.

The only commands that open the catalog themselves; whoever may run them holds the settings and
the secrets of the deployment anyway.
"""

import asyncio
import datetime as dt
import os
import pwd
from typing import cast
from uuid import UUID

import click

from control_plane.catalog.audit import Caller
from control_plane.catalog.pool import Catalog
from control_plane.cli.admin_doctor import admin_doctor
from control_plane.cli.backup_store import test_store
from control_plane.cli.catalog import catalog
from control_plane.cli.commands import Command, Group
from control_plane.cli.problems import Exit, problem
from control_plane.cli.root_keys import make_key_file, root_keys
from control_plane.cli.stored_backups import stored_backups
from control_plane.config import Settings, SettingsError
from control_plane.domain.errors import CatalogUnavailable, TenantryError
from control_plane.domain.keys import ROLES, Principal, Role
from control_plane.services.keys import IssuedKey, NewKey, create_key

# The audit log wants a key id, and the first key of all is made without one.
_NO_KEY = UUID(int=0)


@click.group(cls=Group, examples=("tenantry admin create-key --name local-admin --role operator",))
def admin() -> None:
    """First set-up and break-glass, with the settings that the API has (TENANTRY_…)."""


admin.add_command(admin_doctor)
admin.add_command(catalog)
admin.add_command(root_keys)
admin.add_command(stored_backups)
admin.add_command(test_store)


@admin.command("init-keyring", cls=Command)
def init_keyring() -> None:
    """The same as keys init, without a word about what comes next."""
    click.echo(str(make_key_file()))


@admin.command("create-key", cls=Command)
@click.option("--name", required=True, help="What the audit log will call it.")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(ROLES), help="Repeatable."
)
@click.option("--tenant", help="Bind an app key to this tenant.")
@click.option("--days", type=click.IntRange(min=1), help="How long it lives. Default: 90.")
def create_key_(name: str, roles: tuple[str, ...], tenant: str | None, days: int | None) -> None:
    """Make an API key and print its token, and nothing else. It is shown this once."""
    wanted = NewKey(
        name=name,
        roles=cast("tuple[Role, ...]", roles),
        tenant=tenant,
        lifetime=dt.timedelta(days=days) if days is not None else None,
    )
    try:
        issued = asyncio.run(_create(_settings(), wanted))
    except CatalogUnavailable as error:
        raise problem(Exit.UNREACHABLE, error.code, error.message) from error
    except TenantryError as error:
        raise problem(Exit.FAILED, error.code, error.message) from error
    click.echo(issued.plain_token)


async def _create(settings: Settings, wanted: NewKey) -> IssuedKey:
    catalog = Catalog(settings)
    await catalog.open(max_size=1)
    try:
        async with catalog.transaction() as db:
            return await create_key(db, _caller(), wanted)
    finally:
        await catalog.close()


def _caller() -> Caller:
    """The account of this machine that runs the command, for the audit log."""
    account = pwd.getpwuid(os.getuid()).pw_name
    return Caller(Principal(_NO_KEY, f"cli:{account}", frozenset()))


def _settings() -> Settings:
    try:
        return Settings.from_environment()
    except SettingsError as error:
        raise problem(Exit.USAGE, "settings", str(error)) from error
