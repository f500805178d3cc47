"""``tenantry admin keys …``: the file with the root keys, its escrow, and new keys in it.

Works on this machine's files, without the API; only what looks for uses of a key asks the catalog.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from control_plane.adapters import escrow as shares_of
from control_plane.adapters import key_file
from control_plane.adapters.key_file import KeyFile
from control_plane.adapters.keyring import Keyring
from control_plane.bootstrap import make_keystore, make_ports, open_ports
from control_plane.cli.commands import Group
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.problems import Exit, Json, problem, say
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table
from control_plane.config import BackupSettings, KeySettings, Settings, SettingsError
from control_plane.domain.errors import (
    CatalogUnavailable,
    KeyUnavailable,
    StoreUnavailable,
    TenantryError,
)
from control_plane.domain.names import show
from control_plane.services.catalog_backups import release_epoch
from control_plane.services.root_keys import Needs, compare_keys, needs, open_one

_FILE = "file://"

_from_shares = click.option(
    "--from-shares",
    "paths",
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with a share; repeatable. Without it, shares are read from standard input.",
)


@click.group(
    "keys",
    cls=Group,
    examples=(
        "tenantry admin keys init",
        "tenantry admin keys escrow --to /media/usb",
        "tenantry admin keys restore-drill --from-shares share-1.txt --from-shares share-3.txt",
        "tenantry admin keys retire-epoch 1",
    ),
)
def root_keys() -> None:
    """The root keys of this machine: make, escrow, rebuild, replace."""


@root_keys.command("init")
@pass_session
def init(session: Session) -> None:
    """Make the file with the first root key. An existing one is never touched."""
    path = make_key_file()
    if session.json:
        print_json({"file": str(path), "epoch": 1})
        return
    click.echo(str(path))
    say("without it nothing opens again; put it into escrow now: tenantry admin keys escrow")


@root_keys.command("escrow")
@click.option(
    "--to",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the shares to files there instead of printing them.",
)
@pass_session
def escrow(session: Session, directory: Path | None) -> None:
    """Split the root keys, all epochs, into three shares; any two give them back.

    Give each share to another keeper, on paper. They are shown this once and kept nowhere.
    """
    path = _settings().keyring_file
    with _reported():
        content = key_file.read(path)
        shares = shares_of.split(content.keys())
        files = _write_shares(directory, shares)
        key_file.change(path, lambda now: now.noting(content.keys(), "escrowed"))
    if session.json:
        print_json({"files": [str(file) for file in files]} if files else {"shares": shares})
        return
    click.echo("\n".join(map(str, files) if files else shares))
    say("prove them with two of the shares: tenantry admin keys restore-drill")


@root_keys.command("restore-drill")
@_from_shares
@pass_session
def restore_drill(session: Session, paths: tuple[Path, ...]) -> None:
    """Rebuild the root keys from shares, in memory, and prove that they are the ones in use.

    They are compared with the key file of this machine, and a key in the keystore is opened.
    """
    settings = _settings()
    path = settings.keyring_file
    with _reported():
        keys = shares_of.join(_texts(paths))
        proofs = _open_one(settings, keys)
        if path.exists():
            proofs.append(compare_keys(keys, key_file.read(path).keys()))
            key_file.change(path, lambda now: now.noting(keys, "drilled"))
        if not proofs:
            raise KeyUnavailable("no key file and no key in a keystore to prove the shares with")
    _tell(session, keys, proofs)


@root_keys.command("rebuild")
@_from_shares
@pass_session
def rebuild(session: Session, paths: tuple[Path, ...]) -> None:
    """Write the key file anew from shares, on a machine that has none."""
    settings = _settings()
    with _reported():
        keys = shares_of.join(_texts(paths))
        proofs = _open_one(settings, keys)
        content = key_file.rebuilt(keys)
        key_file.create(settings.keyring_file, content, apart_from=_stores(settings.backup))
    _tell(session, keys, [*proofs, f"{settings.keyring_file} is written"])


@root_keys.command("new-epoch")
@pass_session
def new_epoch(session: Session) -> None:
    """Make a new root key, which seals from now on; the ones before still open.

    Every process of this machine reads the file again by itself. Copy it to all other machines
    that run the API or workers before anything else.
    """
    with _reported():
        content = key_file.change(_settings().keyring_file, KeyFile.with_new_epoch)
    if session.json:
        print_json({"active": content.active})
        return
    print_line(f"epoch {content.active} seals from now on")
    say("1. copy the key file to every other machine that runs the API or workers")
    say("2. put it into escrow: tenantry admin keys escrow")
    say("3. put everything under it: tenantry keys rekey --wait")


@root_keys.command("retire-epoch")
@click.argument("epoch", type=click.IntRange(min=1))
@click.option(
    "--destroy-backups", is_flag=True, help="Destroy the backups of the catalog that need it, too."
)
@pass_session
def retire_epoch(session: Session, epoch: int, *, destroy_backups: bool) -> None:
    """Destroy an old root key. Refused while the catalog, its backups or the keystore need it.

    Copies of the keystore that are older than the last rekey cannot be opened afterwards: wait
    until they are gone. This is what makes the shredding of a tenant final.
    """
    path = _settings().keyring_file
    with _reported():
        _refuse_retiring(key_file.read(path), epoch)
        settings = Settings.from_environment()
        left = asyncio.run(_look(settings)).of_epoch(epoch)
        if left:
            raise KeyUnavailable(
                f"{left} keys and secrets need epoch {epoch}; run first: tenantry keys rekey --wait"
            )
        destroyed = release_epoch(make_ports(settings), epoch, destroy=destroy_backups)
        key_file.change(path, lambda now: _refuse_retiring(now, epoch).without(epoch))
    shown = [show("bk", one.id) for one in destroyed]
    if session.json:
        print_json({"retired": epoch, "catalog_backups_destroyed": shown})
        return
    for backup in shown:
        print_line(f"backup {backup} of the catalog is destroyed")
    print_line(f"epoch {epoch} is destroyed on this machine; do the same on all others")


@root_keys.command("status")
@pass_session
def status(session: Session) -> None:
    """Show the root keys and what needs them; exit 1 while one has no proven escrow."""
    with _reported():
        content = key_file.read(_settings().keyring_file)
    found = _needs_if_any()
    rows = [_row(int(number), content, found) for number in sorted(content.epochs, key=int)]
    columns = (
        Column("EPOCH", lambda r: str(r["epoch"])),
        Column("STATE", lambda r: r["state"], words=True),
        Column("CREATED", lambda r: when(session, r["created"])),
        Column("ESCROWED", lambda r: when(session, r["escrowed"])),
        Column("DRILLED", lambda r: when(session, r["drilled"])),
        Column("NEEDED BY", lambda r: "?" if r["needed_by"] is None else str(r["needed_by"])),
    )
    print_table(session, rows, columns, "no root keys")
    unproven = [row["epoch"] for row in rows if not (row["escrowed"] and row["drilled"])]
    if unproven:
        say(f"no proven escrow: epoch {', '.join(map(str, unproven))}")
        raise click.exceptions.Exit(Exit.FAILED)


def make_key_file() -> Path:
    """Make the key file that the settings name.

    Raises:
        Problem: it exists, or its place gives it away.
    """
    settings = _settings()
    path = settings.keyring_file
    with _reported():
        key_file.create(path, key_file.new(), apart_from=_stores(settings.backup))
    return path


def _settings() -> KeySettings:
    try:
        return KeySettings.from_environment()
    except SettingsError as error:
        raise problem(Exit.USAGE, "settings", str(error)) from error


@contextmanager
def _reported() -> Iterator[None]:
    """Turn our errors into problems with an exit code.

    Raises:
        Problem: something went wrong.
    """
    try:
        yield
    except (CatalogUnavailable, StoreUnavailable) as error:
        raise problem(Exit.UNREACHABLE, error.code, error.message) from error
    except TenantryError as error:
        raise problem(Exit.FAILED, error.code, error.message) from error


def _stores(settings: BackupSettings) -> list[Path]:
    """The directories of stores on this machine."""
    urls = [url for url in (settings.store, settings.keystore) if url]
    return [Path(url.removeprefix(_FILE)) for url in urls if url.startswith(_FILE)]


def _write_shares(directory: Path | None, shares: list[str]) -> list[Path]:
    """One file for each share, for its owner alone; none without a directory.

    Raises:
        KeyUnavailable: one of them is there already, or cannot be written.
    """
    if directory is None:
        return []
    files = [directory / f"share-{number}.txt" for number in range(1, len(shares) + 1)]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, share in zip(files, shares, strict=True):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as sink:
                sink.write(share)
    except OSError as error:
        raise KeyUnavailable(f"cannot write {error.filename}: {error.strerror}") from error
    return files


def _texts(paths: tuple[Path, ...]) -> list[str]:
    if not paths:
        say("enter the lines of two shares, one after the other; end with Ctrl-D")
    try:
        return [path.read_text() for path in paths] or [sys.stdin.read()]
    except (OSError, ValueError) as error:
        raise KeyUnavailable(f"a share cannot be read: {error}") from error


def _open_one(settings: KeySettings, keys: Mapping[int, bytes]) -> list[str]:
    """The proof that these keys open what is in the keystore, if they have wrapped something."""
    alone = msgspec.structs.replace(settings.backup, kms="local")
    keystore = make_keystore(alone, Keyring(dict(keys), max(keys)))
    proof = open_one(keystore) if keystore is not None else None
    return [proof] if proof else []


def _tell(session: Session, keys: Mapping[int, bytes], proofs: list[str]) -> None:
    if session.json:
        print_json({"epochs": sorted(keys), "proofs": proofs})
        return
    for proof in proofs:
        print_line(proof)


def _refuse_retiring(content: KeyFile, epoch: int) -> KeyFile:
    """The file, if this epoch may go.

    Raises:
        KeyUnavailable: there is no such epoch, or it is the active one.
    """
    if str(epoch) not in content.epochs:
        raise KeyUnavailable(f"there is no epoch {epoch} in the key file")
    if epoch == content.active:
        raise KeyUnavailable(f"epoch {epoch} is the active one; make a new one first")
    return content


async def _look(settings: Settings) -> Needs:
    async with open_ports(settings) as ports, ports.catalog.connection() as db:
        return await needs(db, ports)


def _needs_if_any() -> Needs | None:
    """What needs the root keys; ``None``, with a word why, when that cannot be told here."""
    try:
        return asyncio.run(_look(Settings.from_environment()))
    except (SettingsError, TenantryError) as error:
        say(f"what needs them is unknown: {error}")
        return None


def _row(number: int, content: KeyFile, found: Needs | None) -> Json:
    epoch = content.epochs[str(number)]
    return {
        "epoch": number,
        "state": epoch.state,
        "created": epoch.created,
        "escrowed": epoch.escrowed,
        "drilled": epoch.drilled,
        "needed_by": None if found is None else found.of_epoch(number),
    }
