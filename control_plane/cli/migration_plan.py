"""The answer to ``--dry-run`` of a change to schemas: the plan, the SQL, what stands against it."""

import click

from control_plane.cli.output import print_json, print_line
from control_plane.cli.problems import Exit, Json, one_line, say
from control_plane.cli.session import Session
from control_plane.cli.tables import Column, print_table

_PYTHON = "    -- it runs Python against the database: its SQL cannot be known beforehand"
_SHOWN = 10


def print_rollout_plan(session: Session, preview: Json) -> None:
    """What a rollout would do.

    Raises:
        click.exceptions.Exit: with code 1 when it would be refused.
    """
    if session.json:
        print_json(preview)
    else:
        target = f"template {preview['template']} to revision {preview['to_revision']}"
        print_line(f"rollout of {target}: {preview['tenants']} tenants; nothing was changed")
        columns = (
            Column("WAVE", lambda w: w["name"]),
            Column("TENANTS", lambda w: str(w["tenants"]), right=True),
            Column("SUCH AS", lambda w: ", ".join(w["sample"])),
        )
        print_table(session, preview["waves"], columns, "every tenant is there already")
        _print_left_out(preview["left_out"])
        _print_options(preview["options"])
        _print_revisions(preview)
    _refuse(preview)


def print_migration_plan(session: Session, preview: Json) -> None:
    """What the migration of one tenant would do.

    Raises:
        click.exceptions.Exit: with code 1 when it would be refused.
    """
    if session.json:
        print_json(preview)
    else:
        way = f"from {preview['from_revision']} to {preview['to_revision']}"
        print_line(f"migrate {preview['tenant']} {way} would run these steps; nothing was changed:")
        for number, step in enumerate(preview["steps"], start=1):
            click.echo(f"  {number:>2}  {one_line(step)}")
        _print_revisions(preview)
    _refuse(preview)


def _print_left_out(slugs: list[str]) -> None:
    if slugs:
        more = f" and {len(slugs) - _SHOWN} more" if len(slugs) > _SHOWN else ""
        print_line(
            f"left out, at a revision that the template does not have: "
            f"{', '.join(slugs[:_SHOWN])}{more}"
        )


def _print_options(options: Json) -> None:
    print_line(
        f"at most {options['max_parallel']} at one time, {options['per_server']} on one server; "
        f"halts when more than {options['halt_at']} of a wave fail or more than "
        f"{options['halt_at_lock_wait']} wait for locks"
    )


def _print_revisions(preview: Json) -> None:
    for revision in preview["revisions"]:
        click.echo()
        marks = [
            words
            for words, marked in (
                ("outside of a transaction", not revision["transactional"]),
                ("as the administrator", revision["privileged"]),
            )
            if marked
        ]
        noted = f" ({', '.join(marks)})" if marks else ""
        print_line(f"revision {revision['id']}{noted}: {revision['title']}")
        if revision["runs_python"]:
            click.echo(_PYTHON)
        for statement in revision["sql"]:
            _print_statement(statement)
    _print_findings(preview["findings"])


def _print_statement(statement: str) -> None:
    """As it was written, but no character that could steer the terminal."""
    for line in f"{statement.strip()};".splitlines():
        shown = "".join(c if c.isprintable() else "?" for c in line.expandtabs(4))
        click.echo(f"    {shown}" if shown else "")


def _print_findings(findings: list[Json]) -> None:
    if not findings:
        return
    click.echo()
    refused = sum(finding["overridden"] is None for finding in findings)
    print_line(f"lint: {refused} of {len(findings)} findings stand against it")
    for finding in findings:
        where = f"statement {finding['statement']}" if finding["statement"] else "as a whole"
        print_line(f"{finding['revision']} {where}: {finding['rule']}: {finding['message']}")
        if finding["overridden"] is None:
            click.echo(f"  remedy: {one_line(finding['remedy'])}")
        else:
            click.echo(f"  overridden: {one_line(finding['overridden'])}")


def _refuse(preview: Json) -> None:
    if preview["refusal"] is not None:
        say(f"error: it would be refused: {one_line(preview['refusal'])}")
        raise click.exceptions.Exit(Exit.FAILED)
