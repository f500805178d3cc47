"""``tenantry check``: the catalog against reality."""

import click

from control_plane.cli.commands import Command
from control_plane.cli.output import print_json, print_line
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, one_line
from control_plane.cli.session import Session, pass_session


@click.command("check", cls=Command)
@click.option("--repair", is_flag=True, help="Mend what is provably safe to mend, then look again.")
@pass_session
def check(session: Session, *, repair: bool) -> None:
    """Compare the catalog with the servers and the poolers, in both directions.

    Exit 0 when nothing was found, 1 when something was; each finding names its remedy.
    """
    api = session.api.patiently()
    report = api.change("POST", path("check", "repairs")) if repair else api.get(path("check"))
    if session.json:
        print_json(report)
    else:
        _print(report)
    if report["findings"]:
        raise click.exceptions.Exit(Exit.FAILED)


def _print(report: Json) -> None:
    for finding in report["repaired"]:
        print_line(f"mended {finding['code']} {finding['subject']}: {finding['message']}")
    for finding in report["findings"]:
        print_line(f"{finding['code']} {finding['subject']}: {finding['message']}")
        click.echo(f"  {one_line(finding['remedy'])}")
        if finding["repair"]:
            click.echo("  safe to mend with: tenantry check --repair")
    found = len(report["findings"])
    print_line(
        f"{found} finding{'s' * (found > 1)}" if found else "clean: the catalog matches reality"
    )
