"""The command ``tenantry``: finds the command, runs it, turns what happened into an exit code."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing

import click

from control_plane.cli.commands import Lazy, LazyGroup
from control_plane.cli.problems import Exit, Problem, problem, say, usage
from control_plane.cli.session import Session
from control_plane.config import SettingsError

_COMMANDS = {
    "tenants": Lazy("control_plane.cli.tenants:tenants", "Create, list, suspend tenants."),
    "dsn": Lazy("control_plane.cli.access:dsn", "Reveal a tenant's DSN (audited)."),
    "psql": Lazy("control_plane.cli.access:psql", "Open psql as the application would."),
    "rotate": Lazy("control_plane.cli.tenants:rotate", "Give a tenant new credentials."),
    "backup": Lazy("control_plane.cli.backups:backup", "Back a tenant up now."),
    "backups": Lazy("control_plane.cli.backups:backups", "Backups, and who is past its RPO."),
    "drills": Lazy("control_plane.cli.backups:drills", "Restores that were compared; the RTO."),
    "restore": Lazy("control_plane.cli.restore:restore", "Bring a tenant back, or make a copy."),
    "export": Lazy("control_plane.cli.export:export", "All of a tenant's data for the customer."),
    "schedule": Lazy("control_plane.cli.schedule:schedule", "When tenants are backed up."),
    "servers": Lazy("control_plane.cli.servers:servers", "The Postgres servers of the fleet."),
    "poolers": Lazy("control_plane.cli.servers:poolers", "The PgBouncer processes."),
    "migrate": Lazy("control_plane.cli.migrate:migrate", "Bring one tenant to a revision."),
    "move": Lazy("control_plane.cli.moves:move", "Move a tenant to another server."),
    "rollout": Lazy("control_plane.cli.rollout:rollout", "Bring the fleet to a revision."),
    "usage": Lazy("control_plane.cli.usage:usage", "What a tenant uses of its server."),
    "noisy": Lazy("control_plane.cli.usage:noisy", "Who disturbs whom, and what to do."),
    "operations": Lazy("control_plane.cli.operations:operations", "Work in progress and done."),
    "keys": Lazy("control_plane.cli.keys:keys", "API keys and their roles."),
    "people": Lazy("control_plane.cli.people:people", "Who may sign in to the console."),
    "audit": Lazy("control_plane.cli.audit:audit", "Who did what to what, and when."),
    "check": Lazy("control_plane.cli.check:check", "Compare the catalog with reality."),
    "doctor": Lazy("control_plane.cli.doctor:doctor", "What is wrong here, and how to mend it."),
    "drift": Lazy("control_plane.cli.drift:drift", "Schemas that are not their template's."),
    "revisions": Lazy("control_plane.cli.revisions:revisions", "Find dangerous DDL in revisions."),
    "plans": Lazy("control_plane.cli.operations:plans", "The steps of every kind of work."),
    "completion": Lazy("control_plane.cli.completion:completion", "Completion for your shell."),
    "admin": Lazy(
        "control_plane.cli.admin:admin", "First set-up and break-glass, without the API."
    ),
}


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - the signature click calls
    del parameter
    if value and not context.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and seldom asked for

        click.echo(f"tenantry {version('tenantry')}")
        context.exit()


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        'tenantry tenants create acme --name "Acme Clinic" --wait',
        "tenantry psql acme -- -c 'select current_user'",
        "tenantry operations list --state failed --json",
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def tenantry() -> None:
    """Give every tenant its own Postgres database.

    The API is named by TENANTRY_URL and TENANTRY_TOKEN; without them, the local stack under
    TENANTRY_HOME is used.

    Exit codes: 0 done, 1 failed or findings, 2 usage, 3 not found, 4 conflict, 5 unreachable,
    6 denied.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code is returned."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    session = Session()
    try:
        with closing(session):
            code = tenantry.main(given, prog_name="tenantry", standalone_mode=False, obj=session)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return Exit.INTERRUPTED
    except (Problem, SettingsError, click.ClickException) as error:
        return _report(error, as_json=session.json or _asks_for_json(given))
    return code if isinstance(code, int) else Exit.DONE


def _asks_for_json(given: Sequence[str]) -> bool:
    """Whether the option is there, for a line whose parsing stopped before it was seen."""
    return "--json" in given[: given.index("--") if "--" in given else None]


def _report(error: Problem | SettingsError | click.ClickException, *, as_json: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return Exit.USAGE
    found = _as_problem(error)
    if as_json:
        click.echo(json.dumps(found.document, indent=2))
        return found.exit_code
    for line in found.lines():
        say(line)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        say(f"  {error.ctx.get_usage()}")
        say(f"  Try: {error.ctx.command_path} --help")
    return found.exit_code


def _as_problem(error: Problem | SettingsError | click.ClickException) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, SettingsError):
        return usage(str(error))
    if isinstance(error, click.UsageError):
        return usage(error.format_message())
    return problem(Exit.FAILED, "failed", error.format_message())
