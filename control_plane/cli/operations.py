"""``tenantry operations …`` and ``plans``: work in progress, done, and how each kind goes."""

import click

from control_plane.cli.commands import Command, Group
from control_plane.cli.complete import operation_ids, tenant_slugs
from control_plane.cli.durations import between, exact
from control_plane.cli.following import is_over
from control_plane.cli.options import limit_option, wait_option
from control_plane.cli.output import when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json
from control_plane.cli.progress import conclude, print_steps, watch
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table

_STATES = ("pending", "running", "waiting", "succeeded", "failed", "cancelling", "cancelled")
_LATEST = 50

operation_argument = click.argument("operation", metavar="OP", shell_complete=operation_ids)


@click.group(
    cls=Group,
    examples=(
        "tenantry operations list --state failed",
        "tenantry operations watch op_01k8z…",
        "tenantry operations retry op_01k8z… --wait",
    ),
)
def operations() -> None:
    """List, show, watch, cancel and retry operations."""


@operations.command("list")
@click.option("--tenant", shell_complete=tenant_slugs, help="Only of this tenant.")
@click.option("--state", type=click.Choice(_STATES))
@limit_option(default=_LATEST)
@pass_session
def list_(session: Session, tenant: str | None, state: str | None, limit: int) -> None:
    """List operations, newest first."""
    columns = (
        Column("ID", lambda o: o["id"]),
        Column("KIND", lambda o: o["kind"]),
        Column("SUBJECT", _subject),
        Column("STATE", _state, words=True),
        Column("CREATED", lambda o: when(session, o["created_at"])),
        Column("TOOK", _took, right=True),
        Column("BY", lambda o: o.get("actor")),
    )
    query = {"tenant": tenant, "state": state}
    found = session.api.items(path("operations"), query, most=limit)
    print_table(session, found, columns, "no operations")


@operations.command("show")
@operation_argument
@pass_session
def show(session: Session, operation: str) -> None:
    """Show one operation with its steps."""
    found = session.api.get(path("operations", operation))
    error = found.get("error") or {}
    facts = (
        ("id", found["id"]),
        ("kind", found["kind"]),
        ("subject", _subject(found)),
        ("state", found["state"]),
        ("error", f"{error.get('message')} ({error.get('code')})" if error else None),
        ("asked by", found.get("actor")),
        ("created", when(session, found["created_at"])),
        ("finished", when(session, found.get("finished_at"))),
        ("deadline", None if is_over(found) else when(session, found.get("deadline"))),
        ("took", _took(found)),
    )
    print_facts(session, found, facts)
    if not session.json:
        print_steps(found)


@operations.command("watch")
@operation_argument
@pass_session
def watch_(session: Session, operation: str) -> None:
    """Follow an operation to its end; exit 0 only if it succeeds."""
    watch(session, session.api.get(path("operations", operation)))


@operations.command("cancel")
@operation_argument
@wait_option
@pass_session
def cancel(session: Session, operation: str, *, wait: bool) -> None:
    """Stop an operation at its next step, while going back is still safe.

    With --wait, exit 0 only if it was really cancelled.
    """
    answer = session.api.change("POST", path("operations", operation, "cancel"))
    conclude(session, answer, wait=wait, wanted="cancelled")


@operations.command("retry")
@operation_argument
@wait_option
@pass_session
def retry(session: Session, operation: str, *, wait: bool) -> None:
    """Let a failed operation go on at the step that failed."""
    answer = session.api.change("POST", path("operations", operation, "retry"))
    conclude(session, answer, wait=wait)


@click.command("plans", cls=Command)
@pass_session
def plans(session: Session) -> None:
    """Show the steps of every kind of operation."""
    columns = (
        Column("KIND", lambda p: p["kind"]),
        Column("STEPS", lambda p: " · ".join(p["steps"])),
    )
    print_table(session, session.api.items(path("plans")), columns, "no plans")


def _subject(operation: Json) -> str | None:
    return operation.get("tenant") or operation.get("subject")


def _state(operation: Json) -> str:
    """The state, and while it lives how far it is."""
    state: str = operation["state"]
    progress = operation.get("progress") or {}
    if is_over(operation) or not progress:
        return state
    return f"{state} {progress['done']}/{progress['total']} {progress.get('detail') or ''}".strip()


def _took(operation: Json) -> str | None:
    seconds = between(operation.get("created_at"), operation.get("finished_at"))
    return None if seconds is None else exact(seconds)
