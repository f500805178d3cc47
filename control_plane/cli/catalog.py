"""``tenantry admin catalog …``: backups of the catalog itself, and the way back from its loss.

Works with the settings of a machine of the deployment, without the API. ``restore`` needs the
store, the root keys and an empty database, and nothing else.
"""

import asyncio
import os
import pwd
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

import click
import structlog

from control_plane.bootstrap import make_ports, open_ports
from control_plane.catalog.audit import Caller
from control_plane.catalog.pool import Connection
from control_plane.cli.commands import Group
from control_plane.cli.output import print_json, print_line, size, when
from control_plane.cli.problems import Exit, Json, problem, say
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table
from control_plane.config import Settings, SettingsError
from control_plane.domain.catalog_backups import CatalogManifest, StoredCatalog
from control_plane.domain.errors import (
    CatalogUnavailable,
    Conflict,
    NotFound,
    StoreUnavailable,
    TenantryError,
)
from control_plane.domain.keys import Principal
from control_plane.domain.names import show
from control_plane.services import catalog_backups, catalog_recovery, forgetting
from control_plane.services.backups import require_store
from control_plane.services.catalog_reconciliation import read_stores
from control_plane.services.catalog_recovery import Accepted
from control_plane.services.ports import Ports
from control_plane.services.rehearsal import rehearse

_NO_KEY = UUID(int=0)
_NEXT = "tenantry check; it names what is not as this catalog says, and how to mend it"

Result = TypeVar("Result")


@click.group(
    "catalog",
    cls=Group,
    examples=(
        "tenantry admin catalog backup",
        "tenantry admin catalog list",
        "tenantry admin catalog restore",
        "tenantry admin catalog accept --dry-run",
    ),
)
def catalog() -> None:
    """Back up the catalog itself, and restore it when it is lost."""


@catalog.command("backup")
@pass_session
def backup(session: Session) -> None:
    """Back the catalog up now, beside what beat does, and read the backup back."""
    manifest = _ran(catalog_backups.back_up)
    if session.json:
        print_json(_facts(manifest))
        return
    stored = size(manifest.stored_bytes)
    print_line(show("bk", manifest.backup_id))
    say(f"{manifest.content.rows} rows of {manifest.tenants} tenants' catalog in {stored}")


@catalog.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the backups of the catalog that are in the store, the newest first."""
    with _told():
        ports = make_ports(Settings.from_environment())
        store = require_store(ports)
        rows = [_row(ports, one) for one in catalog_backups.every(store)]
    columns = (
        Column("BACKUP", lambda b: b["id"]),
        Column("DATA OF", lambda b: when(session, b["snapshot_at"])),
        Column("MIGRATION", lambda b: b["migration"]),
        Column("TENANTS", lambda b: b["tenants"] and str(b["tenants"]), right=True),
        Column("STORED", lambda b: size(b["stored_bytes"]), right=True),
        Column("PROBLEM", lambda b: b["problem"]),
    )
    print_table(session, rows, columns, "no backup of the catalog is stored")


@catalog.command("restore")
@click.option("--backup", "shown", metavar="BK", help="Default: the newest one.")
@pass_session
def restore(session: Session, shown: str | None) -> None:
    """Load a backup of the catalog into the empty database of TENANTRY_CATALOG_DSN.

    It is proven before anything is loaded, and compared row for row afterwards. Nobody works from
    the copy until it is accepted.
    """
    with _told():
        ports = make_ports(Settings.from_environment())
        manifest = asyncio.run(catalog_recovery.restore(ports, shown))
    if session.json:
        print_json(_facts(manifest))
        return
    print_line(show("bk", manifest.backup_id))
    say(f"{manifest.content.rows} rows of {len(manifest.content.tables)} tables are equal")
    say("nobody works from it yet; look at it, then: tenantry admin catalog accept")


@catalog.command("accept")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@pass_session
def accept(session: Session, *, dry_run: bool) -> None:
    """Let everybody work from a restored catalog, after what may be wrong in it was put right.

    Operations of the backup are ended, databases that may have changed hands are forgotten (and
    stay where they are), and what the store has and the catalog does not know is put on record.
    """

    async def work(ports: Ports) -> Accepted:
        stores = await asyncio.to_thread(read_stores, require_store(ports), ports.keystore)

        async def take(db: Connection) -> Accepted:
            return await catalog_recovery.accept(db, stores, _caller())

        if dry_run:
            return await rehearse(ports, take)
        async with ports.catalog.transaction() as db:
            return await take(db)

    report = _ran(work)
    if session.json:
        print_json(_report(report))
        return
    for line in _lines(report):
        print_line(line)
    say("nothing was changed" if dry_run else f"the catalog is accepted; now: {_NEXT}")


@catalog.command("forget-server")
@click.argument("name")
@pass_session
def forget_server(session: Session, name: str) -> None:
    """Take a server out of the fleet that is gone for good, and forget what was on it.

    Refused while tenants are on it, or while it answers.
    """

    async def work(ports: Ports) -> int:
        async with ports.catalog.transaction() as db:
            return await forgetting.forget_server(db, _caller(), name)

    databases = _ran(work)
    if session.json:
        print_json({"server": name, "databases": databases})
        return
    print_line(f"{name} is forgotten, with {databases} databases that were on it")


@catalog.command("forget-tenant")
@click.argument("slug")
@pass_session
def forget_tenant(session: Session, slug: str) -> None:
    """Mark a tenant as deleted that was destroyed after the backup this catalog comes from.

    Refused while it has a key or a backup.
    """

    async def work(ports: Ports) -> int:
        async with ports.catalog.transaction() as db:
            return await forgetting.forget_tenant(db, ports, _caller(), slug)

    databases = _ran(work)
    if session.json:
        print_json({"tenant": slug, "databases": databases})
        return
    print_line(f"{slug} is deleted; {databases} databases were on record")


def _ran(work: Callable[[Ports], Awaitable[Result]]) -> Result:
    async def run(settings: Settings) -> Result:
        async with open_ports(settings) as ports:
            return await work(ports)

    with _told():
        return asyncio.run(run(Settings.from_environment()))


def _caller() -> Caller:
    """The account of this machine that runs the command, for the audit log."""
    account = pwd.getpwuid(os.getuid()).pw_name
    return Caller(Principal(_NO_KEY, f"cli:{account}", frozenset()))


def _facts(manifest: CatalogManifest) -> Json:
    return {
        "id": show("bk", manifest.backup_id),
        "snapshot_at": manifest.snapshot_at.isoformat(),
        "migration": manifest.migration,
        "tenants": manifest.tenants,
        "rows": manifest.content.rows,
        "content": manifest.content.digest,
        "stored_bytes": manifest.stored_bytes,
    }


def _row(ports: Ports, stored: StoredCatalog) -> Json:
    """One that does not open is listed with the reason."""
    unknown: Json = dict.fromkeys(("migration", "tenants", "rows", "content", "stored_bytes"))
    row = {"id": show("bk", stored.id), "snapshot_at": stored.at.isoformat(), "problem": None}
    try:
        manifest = catalog_backups.open_one(require_store(ports), ports.keyring, stored)
    except TenantryError as error:
        return unknown | row | {"problem": error.message}
    return row | _facts(manifest)


def _report(report: Accepted) -> Json:
    found = report.found
    return {
        "operations_ended": [
            {"id": show("op", one.id), "kind": one.kind, "subject": one.subject}
            for one in report.ended
        ],
        "databases_forgotten": [
            {"name": one.name, "server": one.server, "purpose": one.purpose}
            for one in report.forgotten
        ],
        "tenants_adopted": found.adopted,
        "tenants_refused": found.refused,
        "tenants_without_keys": found.destroyed,
        "backups_found": found.backups,
        "backups_missing": found.pruned,
        "keys_found": found.keys,
        "unreadable": report.unreadable,
    }


def _lines(report: Accepted) -> Iterator[str]:
    found = report.found
    for one in report.ended:
        shown = show("op", one.id)
        yield f"{one.kind} {one.subject} is ended; tenantry operations retry {shown} goes on"
    for gone in report.forgotten:
        yield f"{gone.purpose} database {gone.name} on {gone.server} is forgotten, and stays there"
    for slug in found.adopted:
        yield f"{slug} was made since: it is archived now; tenantry tenants unarchive {slug}"
    for refused in found.refused:
        yield f"{refused}; its backups: tenantry admin stored list"
    for slug in found.destroyed:
        remedy = f"tenantry admin catalog forget-tenant {slug}"
        yield f"{slug} has no key any more; if it was deleted: {remedy}"
    for name, words in report.unreadable.items():
        yield f"{name}: {words}"
    yield (
        f"{found.backups} backups and {found.keys} keys were found in the store, "
        f"{found.pruned} backups are not there any more"
    )


@contextmanager
def _told() -> Iterator[None]:
    """Every refusal as the one problem that a command prints; what is logged goes to stderr."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    except SettingsError as error:
        raise problem(Exit.USAGE, "settings", str(error)) from error
    except (CatalogUnavailable, StoreUnavailable) as error:
        raise problem(Exit.UNREACHABLE, error.code, error.message) from error
    except NotFound as error:
        raise problem(Exit.NOT_FOUND, error.code, error.message) from error
    except Conflict as error:
        raise problem(Exit.CONFLICT, error.code, error.message) from error
    except TenantryError as error:
        raise problem(Exit.FAILED, error.code, error.message) from error
