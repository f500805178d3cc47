"""``tenantry schedule …``: when a tenant is backed up, how long that is kept, how well it goes."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

from control_plane.cli.commands import Group
from control_plane.cli.durations import Duration, brief, exact
from control_plane.cli.options import dry_run_option
from control_plane.cli.output import print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table
from control_plane.cli.tenants import slug_argument
from control_plane.domain.tenants import TIERS

F = TypeVar("F", bound=Callable[..., Any])

_MINUTE, _DAY = 60, 86_400
_PERIODS = ("daily", "weekly", "monthly", "yearly")


def _policy_options(command: F) -> F:
    """The options that make up a policy; what is left out is as in the tier's."""
    options = (
        click.option("--cron", required=True, help='Five fields, such as "0 2 * * *".'),
        click.option("--timezone", help="In which the cron line is read, e.g. Europe/Berlin."),
        click.option(
            "--jitter", type=Duration(), help="Spread tenants over this time after a slot."
        ),
        click.option("--rpo", type=Duration(), help="How old the newest backup may be, e.g. 30h."),
        click.option(
            "--drill", type=Duration(), help="How old the newest verified restore may be, e.g. 14d."
        ),
        click.option("--keep-last", type=int, help="Keep so many of the newest backups."),
        click.option("--keep-daily", type=int, help="One of each of so many days."),
        click.option("--keep-weekly", type=int, help="One of each of so many weeks."),
        click.option("--keep-monthly", type=int, help="One of each of so many months."),
        click.option("--keep-yearly", type=int, help="One of each of so many years."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    cls=Group,
    examples=(
        'tenantry schedule set acme --cron "0 2 * * *" --timezone Europe/Berlin --keep-daily 14',
        "tenantry schedule show acme",
        "tenantry schedule tiers",
    ),
)
def schedule() -> None:
    """When tenants are backed up, how long backups are kept, and whether the RPO is met."""


@schedule.command(
    "set",
    examples=(
        'tenantry schedule set acme --cron "0 2 * * *" --timezone Europe/Berlin',
        'tenantry schedule set acme --cron "0 3 * * 0" --rpo 8d --keep-weekly 26 --dry-run',
    ),
)
@slug_argument
@_policy_options
@dry_run_option
@pass_session
def set_(session: Session, /, *, slug: str, dry_run: bool, **policy: Any) -> None:  # noqa: ANN401 - one per option
    """Give a tenant a schedule of its own.

    What is left out is as in the policy of its tier, see: tenantry schedule tiers.
    """
    target = path("tenants", slug, "backup-schedule")
    answer = session.api.change("PUT", target, _body(policy), _query(dry_run=dry_run))
    _print_schedule(session, answer, dry_run=dry_run)


@schedule.command("show")
@slug_argument
@pass_session
def show(session: Session, slug: str) -> None:
    """Show what a tenant follows, where that comes from, and how well it is kept."""
    answer = session.api.get(path("tenants", slug, "backup-schedule"))
    _print_schedule(session, answer, dry_run=False)


@schedule.command("clear")
@slug_argument
@dry_run_option
@pass_session
def clear(session: Session, *, slug: str, dry_run: bool) -> None:
    """Let a tenant follow its tier again."""
    target = path("tenants", slug, "backup-schedule")
    answer = session.api.change("DELETE", target, query=_query(dry_run=dry_run))
    _print_schedule(session, answer, dry_run=dry_run)


@schedule.command("tiers")
@pass_session
def tiers(session: Session) -> None:
    """List the policies of the tiers, which tenants without their own schedule follow."""
    columns = (
        Column("TIER", lambda p: p["tier"]),
        Column("CRON", lambda p: p["cron"]),
        Column("TIMEZONE", lambda p: p["timezone"]),
        Column("SPREAD", lambda p: brief(p["jitter_minutes"] * _MINUTE)),
        Column("RPO", lambda p: _minutes(p["rpo_minutes"])),
        Column("DRILL", lambda p: f"{p['drill_days']} d"),
        Column("KEEPS", _keeps),
        Column("CHANGED", lambda p: f"{when(session, p['changed_at'])} by {p['changed_by']}"),
    )
    found = session.api.get(path("backup-policies"))["items"]
    print_table(session, found, columns, "no policies")


@schedule.command(
    "set-tier",
    examples=('tenantry schedule set-tier standard --cron "0 1 * * *" --timezone Europe/Berlin',),
)
@click.argument("tier", type=click.Choice(TIERS))
@_policy_options
@dry_run_option
@pass_session
def set_tier(session: Session, /, *, tier: str, dry_run: bool, **policy: Any) -> None:  # noqa: ANN401 - one per option
    """Change what the tenants of a tier follow that have no schedule of their own.

    What is left out stays as it is.
    """
    target = path("backup-policies", tier)
    answer = session.api.change("PUT", target, _body(policy), _query(dry_run=dry_run))
    _print(session, answer, (("tier", answer["tier"]), *_policy_facts(answer)), dry_run=dry_run)


def _body(options: Json) -> Json:
    body = {name: value for name, value in options.items() if value is not None}
    for option, field, unit in (
        ("jitter", "jitter_minutes", _MINUTE),
        ("rpo", "rpo_minutes", _MINUTE),
        ("drill", "drill_days", _DAY),
    ):
        if option in body:
            body[field] = round(body.pop(option) / unit)
    return body


def _query(*, dry_run: bool) -> dict[str, str] | None:
    return {"dry_run": "true"} if dry_run else None


def _print_schedule(session: Session, schedule: Json, *, dry_run: bool) -> None:
    own = schedule["source"] == "tenant"
    source = "its own" if own else f"that of tier {schedule['tier']}"
    facts = (
        ("tenant", schedule["tenant"]),
        (
            "policy",
            f"{source}, set {when(session, schedule['changed_at'])} by {schedule['changed_by']}",
        ),
        *_policy_facts(schedule),
        ("next backup", _next(session, schedule)),
        ("newest backup", _newest(session, schedule["newest_backup"])),
        ("newest proof", _proof(session, schedule["newest_drill"])),
        ("stored", _stored(schedule)),
        ("health", _health(session, schedule)),
        ("note", schedule["note"]),
    )
    _print(session, schedule, facts, dry_run=dry_run)


def _print(
    session: Session, answer: Json, facts: Sequence[tuple[str, str | None]], *, dry_run: bool
) -> None:
    print_facts(session, answer, facts)
    if dry_run and not session.json:
        print_line("nothing was changed")


def _policy_facts(policy: Json) -> tuple[tuple[str, str | None], ...]:
    spread = policy["jitter_minutes"] * _MINUTE
    return (
        ("cron", f"{policy['cron']} in {policy['timezone']}"),
        ("spread", f"up to {brief(spread)} after a slot" if spread else None),
        ("keeps", _keeps(policy)),
        ("rpo", _minutes(policy["rpo_minutes"])),
        ("drill", f"within {policy['drill_days']} d"),
    )


def _keeps(policy: Json) -> str:
    kept = [
        f"{policy[f'keep_{period}']} {period}" for period in _PERIODS if policy[f"keep_{period}"]
    ]
    return ", ".join([f"{policy['keep_last']} last", *kept])


def _minutes(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{rest} min"] if rest else [])])


def _next(session: Session, schedule: Json) -> str | None:
    """In the time zone of the schedule: there it says what the cron line says."""
    if not schedule["next_due_at"]:
        return None
    zone = dt.UTC if session.utc else ZoneInfo(schedule["timezone"])
    slot, due = (
        dt.datetime.fromisoformat(schedule[name]).astimezone(zone)
        for name in ("next_slot_at", "next_due_at")
    )
    shown = f"{due:%Y-%m-%d %H:%M %Z} for the slot {slot:%H:%M}"
    if due <= dt.datetime.now(dt.UTC):
        return f"waits for its place since {shown}"
    return shown if session.utc else f"{when(session, schedule['next_due_at'])}: {shown}"


def _newest(session: Session, backup: Json | None) -> str:
    if backup is None:
        return "none"
    verified = when(session, backup["verified_at"])
    proof = f"verified {verified}" if verified else "not verified"
    return f"{backup['id']} {when(session, backup['snapshot_at'])}, {proof}"


def _proof(session: Session, drill: Json | None) -> str:
    if drill is None:
        return "none"
    ended, took = when(session, drill["finished_at"]), exact(drill["seconds"])
    return f"{drill['backup']} {ended} ({drill['cause']}), took {took}"


def _stored(schedule: Json) -> str:
    stored, prunable = schedule["stored_backups"], schedule["prunable_backups"]
    return f"{stored} backups" + (f", {prunable} of them kept by no rule" if prunable else "")


def _health(session: Session, schedule: Json) -> str | None:
    rpo = schedule["rpo"]
    if rpo["state"] == "unwatched":
        return None
    word = "breached" if rpo["state"] == "breached" else "ok"
    return f"{word} · everything up to {when(session, rpo['covered_until'])} is in a backup"
