"""``tenantry doctor``: what is wrong with a deployment, asked of its API."""

from collections.abc import Sequence

import click

from control_plane.cli.commands import Command
from control_plane.cli.output import print_json, print_line
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, Problem, one_line, say
from control_plane.cli.session import Session, pass_session


@click.command("doctor", cls=Command, examples=("tenantry doctor", "tenantry admin doctor"))
@pass_session
def doctor(session: Session) -> None:
    """Say what is wrong with this deployment and how to mend it.

    Exit 0 when no part has a problem, 1 when one has; advice does not count. What is on a machine
    (files, programs, room) is looked at on the API's; `tenantry admin doctor` looks at the one it
    runs on, and needs no API.
    """
    try:
        report = session.api.patiently().get(path("doctor"))
    except Problem as error:
        if error.unreachable:
            say("on a machine of the deployment this needs no API: tenantry admin doctor")
        raise
    conclude(session, report["diagnoses"])


def conclude(session: Session, diagnoses: Sequence[Json]) -> None:
    """Print every diagnosis, what is worst last, and end with the exit code.

    Raises:
        Exit: some part has a problem.
    """
    sick = [one for one in diagnoses if one["level"] == "problem"]
    if session.json:
        print_json({"healthy": not sick, "diagnoses": list(diagnoses)})
    else:
        for level in ("ok", "advice", "problem"):
            for one in diagnoses:
                if one["level"] == level:
                    _print(one)
    if sick:
        raise click.exceptions.Exit(Exit.FAILED)


def _print(diagnosis: Json) -> None:
    print_line(f"{diagnosis['level']} - {diagnosis['part']}: {diagnosis['found']}")
    if diagnosis["remedy"]:
        click.echo(f"  {one_line(diagnosis['remedy'])}")
