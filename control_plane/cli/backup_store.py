"""``tenantry admin test-store``: whether backups can be kept where they are to go."""

from typing import Any

import click

from control_plane.adapters.object_stores.opening import open_store
from control_plane.cli.commands import Command
from control_plane.cli.output import print_json, print_line
from control_plane.cli.problems import Exit, problem
from control_plane.cli.session import Session, pass_session
from control_plane.config import BackupSettings, KeySettings, SettingsError
from control_plane.domain.errors import StoreUnavailable, TenantryError


@click.command("test-store", cls=Command)
@pass_session
def test_store(session: Session) -> None:
    """Write, read and delete a test object where backups and keys go, and say what was done."""
    try:
        tested = _tested(KeySettings.from_environment().backup)
    except SettingsError as error:
        raise problem(Exit.USAGE, "settings", str(error)) from error
    except StoreUnavailable as error:
        raise problem(Exit.UNREACHABLE, error.code, error.message) from error
    except TenantryError as error:
        raise problem(Exit.FAILED, error.code, error.message) from error
    if session.json:
        print_json(tested)
        return
    for store in tested:
        print_line(f"{store['store']} can be relied on:")
        for line in store["done"]:
            print_line(f"- {line}")


def _tested(settings: BackupSettings) -> list[dict[str, Any]]:
    urls = [url for url in dict.fromkeys((settings.store, settings.keystore)) if url]
    if not urls:
        raise SettingsError("TENANTRY_BACKUP_STORE is not set; it names where backups go")
    stores = [open_store(url, settings) for url in urls]
    return [{"store": store.url, "done": list(store.self_test())} for store in stores]
