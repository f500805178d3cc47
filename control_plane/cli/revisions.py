"""``tenantry revisions``: what can be said of revisions from their files, without the API."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click
import msgspec

from control_plane.adapters.revision_lint import LintFinding, lint
from control_plane.adapters.revisions import Revision, compile_path
from control_plane.cli.commands import Command, Group
from control_plane.cli.output import print_json, print_line
from control_plane.cli.problems import Exit, one_line, problem, usage
from control_plane.cli.session import Session, pass_session
from control_plane.config import REPOSITORY
from control_plane.domain.errors import TenantryError

_CLINIC = REPOSITORY / "tenant_template"


@click.group(cls=Group, examples=("tenantry revisions lint",))
def revisions() -> None:
    """The revisions of a template, read from its files: no server and no API is asked."""


@revisions.command(
    "lint",
    cls=Command,
    examples=(
        "tenantry revisions lint",
        "tenantry revisions lint /srv/lab --from 0007 --json",
    ),
)
@click.argument("directory", type=click.Path(path_type=Path), default=_CLINIC)
@click.option(
    "--from",
    "start",
    metavar="REVISION",
    help="Report only what comes after this revision, which databases have already.",
)
@pass_session
def lint_(session: Session, *, directory: Path, start: str | None) -> None:
    """Find DDL that would lock, rewrite, lose or leak in a fleet that is in use.

    DIRECTORY has the template's alembic.ini; the clinic's, if none is given. Exit 0 when every
    finding has a recorded reason (lint_overrides in the revision), 1 when one has none.
    """
    try:
        # What a template prints is not part of the answer.
        with redirect_stdout(sys.stderr):
            path = compile_path(directory.resolve())
    except TenantryError as error:
        raise problem(Exit.FAILED, error.code, error.message) from error
    findings = lint(path, _applied(path, start) if start is not None else None)
    if session.json:
        print_json(msgspec.to_builtins(findings))
    else:
        _print(findings, len(path))
    if any(finding.overridden is None for finding in findings):
        raise click.exceptions.Exit(Exit.FAILED)


def _applied(path: tuple[Revision, ...], start: str) -> frozenset[str]:
    ids = [revision.id for revision in path]
    if start not in ids:
        raise usage(f"--from {start}: there is no such revision; there are {', '.join(ids)}")
    return frozenset(ids[: ids.index(start) + 1])


def _print(findings: list[LintFinding], read: int) -> None:
    for finding in findings:
        where = f"{finding.revision} statement {finding.statement_number}"
        place = where if finding.statement_number else finding.revision
        print_line(f"{place}: {finding.rule}: {finding.message}")
        if finding.overridden is None:
            click.echo(f"  {one_line(finding.remedy)}")
        else:
            click.echo(f"  recorded reason: {one_line(finding.overridden)}")
    open_ = sum(finding.overridden is None for finding in findings)
    recorded = len(findings) - open_
    say = f"{open_} finding{'s' * (open_ != 1)}" if open_ else "clean"
    also = f", {recorded} with a recorded reason" if recorded else ""
    print_line(f"{say}: {read} revisions read{also}")
