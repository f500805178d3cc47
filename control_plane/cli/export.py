"""``tenantry export``: all of a tenant's data for the customer, in one encrypted file."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from control_plane.cli.commands import Command
from control_plane.cli.complete import tenant_slugs
from control_plane.cli.durations import Duration
from control_plane.cli.following import follow
from control_plane.cli.options import dry_run_option
from control_plane.cli.output import print_json, print_line
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, problem, say
from control_plane.cli.progress import watch
from control_plane.cli.rehearsal import print_rehearsal
from control_plane.cli.session import Session, pass_session

_HOUR_SECONDS = 3600


@click.command(
    "export",
    cls=Command,
    examples=(
        "tenantry export acme --to . --recipient age1…",
        "tenantry export acme --to . --keep 24h",
    ),
)
@click.argument("slug", shell_complete=tenant_slugs)
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="The directory the file goes to.",
)
@click.option("--recipient", metavar="age1…", help="The customer's key; one is made if left out.")
@click.option("--keep", type=Duration(), help="How long the store keeps it. Default: 72h.")
@dry_run_option
@pass_session
def export(
    session: Session,
    *,
    slug: str,
    directory: Path,
    recipient: str | None,
    keep: int | None,
    dry_run: bool,
) -> None:
    """Make a bundle of all of a tenant's data and fetch it.

    It holds a dump, every table as CSV, the schema in words and a signed manifest, and is
    encrypted with age: only the recipient's key opens it. Without --recipient a key is made and
    put beside it, for you to hand over by another way.
    """
    secret = None
    if recipient is None and not dry_run:
        recipient, secret = _new_key()
    body: Json = {"recipient": recipient or _new_key()[0]}
    if keep is not None:
        body["keep_hours"] = max(1, round(keep / _HOUR_SECONDS))
    query = {"dry_run": "true"} if dry_run else None
    answer = session.api.change("POST", path("tenants", slug, "exports"), body, query)
    if dry_run:
        print_rehearsal(session, answer)
        return
    bundle = _finished(session, slug, answer)
    target = directory / f"{slug}-{bundle['id']}.zip.age"
    key = _keep(target.with_suffix(".key"), secret) if secret is not None else None
    _fetch(session, bundle, target)
    _tell(session, bundle, target, key)


def _new_key() -> tuple[str, str]:
    """An age recipient, and the secret that opens what is encrypted to it."""
    import pyrage  # type: ignore[import-untyped]  # noqa: PLC0415 - slow, and it has no stubs

    made = pyrage.x25519.Identity.generate()
    return str(made.to_public()), str(made)


def _finished(session: Session, slug: str, operation: Json) -> Json:
    """The export once its operation has succeeded.

    Raises:
        click.exceptions.Exit: with code 1 when it has not.
    """
    if session.json:
        operation = deque(follow(session.api, operation["id"]), maxlen=1).pop()
        if operation["state"] != "succeeded":
            print_json(operation)
            raise click.exceptions.Exit(Exit.FAILED)
    else:
        watch(session, operation)
    exports = session.api.items(path("tenants", slug, "exports"))
    return next(one for one in exports if one["operation"] == operation["id"])


def _fetch(session: Session, bundle: Json, target: Path) -> None:
    """The bundle at ``target``, once it is known to be the one that was made."""
    from control_plane.cli.client import fetch  # noqa: PLC0415 - httpx is slow to import

    link = session.api.change("POST", path("exports", bundle["id"], "links"))
    coming = target.with_name(f"{target.name}.part")
    try:
        if _write(coming, fetch(link["url"])) != bundle["sha256"]:
            detail = "what came is not the bundle that was made; run the command again"
            raise problem(Exit.FAILED, "damaged", detail)
        coming.replace(target)
    finally:
        coming.unlink(missing_ok=True)


def _write(target: Path, pieces: Iterator[bytes]) -> str:
    """Write a private file; its SHA-256 in hex."""
    digest = hashlib.sha256()
    with _private(target) as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _keep(target: Path, secret: str) -> Path:
    with _private(target) as file:
        file.write(f"{secret}\n".encode())
    return target


def _private(target: Path) -> BinaryIO:
    return os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _tell(session: Session, bundle: Json, target: Path, key: Path | None) -> None:
    if session.json:
        print_json({**bundle, "file": str(target), "key_file": str(key) if key else None})
        return
    print_line(f"{target}: {bundle['rows']} rows of {bundle['tables']} tables")
    opener = key.name if key else "THE RECIPIENT'S KEY FILE"
    print_line(f"open it with: age -d -i {opener} -o {bundle['id']}.zip {target.name}")
    if key is not None:
        say(f"{key} opens it: hand it over by another way than the bundle, then delete it")
