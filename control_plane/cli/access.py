"""``tenantry dsn`` and ``psql``: reaching a tenant's database as its application does."""

import os
import re
import shlex
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import click

from control_plane.cli.commands import Command
from control_plane.cli.complete import pooler_names
from control_plane.cli.output import print_json, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, problem, say, unreachable
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tenants import slug_argument
from control_plane.config import child_environment

_REVEALS = 2
# libpq lets these override address and password file, and a pooler refuses or ignores start-up
# options.
_OVERRIDING = ("PGHOSTADDR", "PGSERVICE", "PGOPTIONS", "PGPASSWORD")

_pool_option = click.option(
    "--pool",
    type=click.Choice(("transaction", "session")),
    default="transaction",
    show_default=True,
    help="The endpoint: session pooling allows LISTEN, advisory locks and SET.",
)
_reason_option = click.option("--reason", help="Why; it goes into the audit log.")


@click.command(
    "dsn",
    cls=Command,
    examples=(
        'psql "$(tenantry dsn acme)"',
        "tenantry dsn acme --format env > .env",
        "tenantry dsn acme --pool session --json",
    ),
)
@slug_argument
@_pool_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(("uri", "env", "json")),
    default="uri",
    show_default=True,
    help="env prints DATABASE_URL and the PG… variables of libpq.",
)
@_reason_option
@pass_session
def dsn(session: Session, slug: str, pool: str, format_: str, reason: str | None) -> None:
    """Reveal the DSN of a tenant's application. Every call is audited."""
    revealed = _reveal(session, slug, pool, reason)
    if session.json or format_ == "json":
        print_json(revealed)
        return
    if format_ == "env":
        for name, value in _libpq(revealed).items():
            click.echo(f"{name}={shlex.quote(value)}")
        click.echo(f"DATABASE_URL={shlex.quote(revealed['dsn'])}")
    else:
        click.echo(revealed["dsn"])
    if revealed.get("expires_at"):
        say(f"these credentials end {when(session, revealed['expires_at'])}")


@click.command(
    "psql",
    cls=Command,
    examples=(
        "tenantry psql acme",
        "tenantry psql acme -- -c 'select current_user'",
        "tenantry psql acme --pool session --pooler p2",
    ),
)
@slug_argument
@_pool_option
@click.option(
    "--pooler", shell_complete=pooler_names, help="Go through this pooler instead of the first."
)
@_reason_option
@click.argument("psql_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- PSQL ARGS]")
@pass_session
def psql(
    session: Session,
    slug: str,
    pool: str,
    pooler: str | None,
    reason: str | None,
    psql_arguments: tuple[str, ...],
) -> None:
    """Open psql through the pooler, with the login of the tenant's application.

    The password goes to psql as a file in memory (in its environment where the system has no such
    files, as only Linux has), never on its command line.
    """
    revealed = _reveal(session, slug, pool, reason)
    if pooler is not None:
        revealed |= _pooler(revealed, pooler)
    _become_psql(revealed, psql_arguments)


def _reveal(session: Session, slug: str, pool: str, reason: str | None) -> Json:
    """The DSN. A secret is sent once: when its answer was lost on the way, it is asked for anew.

    Raises:
        Problem: it may not be shown, or was lost again.
    """
    body = {"pool": pool} | ({"reason": reason} if reason else {})
    for _ in range(_REVEALS):
        revealed = session.api.change("POST", path("tenants", slug, "dsn"), body)
        if revealed["dsn"] is not None:
            return revealed
    raise unreachable(
        f"the DSN of {slug} was sent {_REVEALS} times and lost on the way each time; "
        "mend the connection to the API, then ask again"
    )


def _pooler(revealed: Json, name: str) -> Json:
    """Host and port of the tenant's pooler with this name.

    Raises:
        Problem: there is none; the message names those there are.
    """
    known = {item["name"]: item for item in revealed["poolers"]}
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise problem(
            Exit.NOT_FOUND, "not_found", f"there is no pooler {name!r}; there are: {names}"
        )
    return {"host": known[name]["host"], "port": known[name]["port"]}


def _libpq(revealed: Json) -> dict[str, str]:
    return {
        "PGHOST": str(revealed["host"]),
        "PGPORT": str(revealed["port"]),
        "PGDATABASE": str(revealed["database"]),
        "PGUSER": str(revealed["login"]),
        "PGPASSWORD": unquote(urlsplit(revealed["dsn"]).password or ""),
    }


def _handed_on(password: str) -> dict[str, str]:
    """A password file in memory, which whoever takes our place inherits, and which ends with it."""
    if not hasattr(os, "memfd_create"):
        # Only Linux has such files.
        return {"PGPASSWORD": password}
    line = re.sub(r"([\\:])", r"\\\1", password)
    descriptor = os.memfd_create("tenantry", 0)
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, f"*:*:*:*:{line}\n".encode())
    return {"PGPASSFILE": f"/proc/self/fd/{descriptor}"}


def _become_psql(revealed: Json, arguments: tuple[str, ...]) -> NoReturn:
    variables = _libpq(revealed)
    environment = child_environment(**variables)
    for name in _OVERRIDING:
        environment.pop(name, None)
    environment |= _handed_on(variables["PGPASSWORD"])
    try:
        os.execvpe("psql", ["psql", *arguments], environment)  # noqa: S606, S607 - the psql the person has, without a shell
    except OSError as error:
        raise problem(
            Exit.FAILED,
            "no_psql",
            f"cannot start psql ({error.strerror}); install the package postgresql-client",
        ) from error
