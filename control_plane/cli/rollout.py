"""``tenantry rollout …``: the fleet brought to a revision, wave by wave."""

from collections.abc import Callable, Sequence

import click

from control_plane.cli.commands import Group
from control_plane.cli.complete import rollout_ids
from control_plane.cli.durations import brief, exact, seconds_of
from control_plane.cli.migration_plan import print_rollout_plan
from control_plane.cli.options import dry_run_option, limit_option, wait_option
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, one_line, problem, say, usage
from control_plane.cli.rollout_watch import go_on_with, watch_rollout
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table
from control_plane.domain.errors import Invalid
from control_plane.domain.rollouts import LIVE, parse_selector, parse_share

_TARGET_STATES = ("waiting", "running", "done", "failed", "skipped")
_LATEST = 50

id_argument = click.argument("rollout", metavar="[ID]", required=False, shell_complete=rollout_ids)


def _share(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    return _shares(context, parameter, given)[0] if given else None


def _shares(context: click.Context, parameter: click.Parameter, given: str | None) -> list[str]:
    found = [part.strip() for part in given.split(",")] if given else []
    try:
        for part in found:
            parse_share(part)
    except Invalid as error:
        raise click.BadParameter(error.message, context, parameter) from error
    return found


def _select(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Json:
    try:
        selector = parse_selector(given)
    except Invalid as error:
        raise click.BadParameter(
            error.message.removeprefix("select: "), context, parameter
        ) from error
    found = {
        "tiers": list(selector.tiers),
        "servers": list(selector.servers),
        "tenants": list(selector.tenants),
        "labels": selector.labels,
    }
    return {name: value for name, value in found.items() if value}


def _seconds(context: click.Context, parameter: click.Parameter, given: str | None) -> float | None:
    seconds = seconds_of(given) if given else None
    if given and seconds is None:
        message = f"{given!r} is not a duration; write for example 0.5s, 2s or 10m"
        raise click.BadParameter(message, context, parameter)
    return seconds


@click.group(
    cls=Group,
    examples=(
        "tenantry rollout start --dry-run",
        "tenantry rollout start --to 0005 --canary 2 --waves 5%,25%,100% --wait",
        "tenantry rollout show --failed",
        "tenantry rollout resume --wait",
    ),
)
def rollout() -> None:
    """Bring the fleet to a revision: start, look, pause, resume, abort."""


@rollout.command(
    "start",
    examples=(
        "tenantry rollout start --dry-run",
        "tenantry rollout start --select tier=standard --select label.team=north --wait",
        "tenantry rollout start --select tenant=acme,apex --canary 0 --waves 100%",
        "tenantry rollout start --template lab --halt-at 0%",
    ),
)
@click.option("--template", help="The class of tenants. Default: clinic.")
@click.option("--to", "revision", help="A revision. Default: the newest of the template.")
@click.option(
    "--select",
    multiple=True,
    callback=_select,
    metavar="WHAT=…",
    help="tier=…, server=…, tenant=… (commas list), label.KEY=…; repeatable, all must fit.",
)
@click.option("--canary", type=click.IntRange(min=0), help="So many tenants go first. Default: 1.")
@click.option(
    "--waves", callback=_shares, metavar="SHARES", help="Cumulative. Default: 5%,25%,100%."
)
@click.option("--max-parallel", type=click.IntRange(1, 256), help="At one time. Default: 32.")
@click.option("--per-server", type=click.IntRange(1, 256), help="Of one server. Default: 8.")
@click.option(
    "--halt-at", callback=_share, metavar="SHARE", help="More failures halt it. Default: 2%."
)
@click.option(
    "--halt-at-lock-wait",
    callback=_share,
    metavar="SHARE",
    help="More tenants that wait for locks halt it. Default: 10%.",
)
@click.option(
    "--lock-timeout", callback=_seconds, metavar="DURATION", help="Then it gives way. Default: 2s."
)
@click.option(
    "--statement-timeout",
    callback=_seconds,
    metavar="DURATION",
    help="Then a statement has failed. Default: 10m.",
)
@dry_run_option
@wait_option
@pass_session
def start(session: Session, /, *, dry_run: bool, wait: bool, **options: object) -> None:
    """Bring tenants to a revision: the canary first, then wave by wave.

    With --dry-run: the waves, the SQL and what stands against it; exit 1 if it would be refused.
    """
    # Zero is a choice; nothing, and an empty list, is none.
    body: Json = {name: value for name, value in options.items() if value not in (None, [], {})}
    if dry_run:
        query = {"dry_run": "true"}
        print_rollout_plan(session, session.api.change("POST", path("rollouts"), body, query))
        return
    answer = session.api.change("POST", path("rollouts"), body)
    _conclude(session, answer, "started", wait=wait)


@rollout.command("list")
@limit_option(default=_LATEST)
@pass_session
def list_(session: Session, limit: int) -> None:
    """List rollouts, newest first."""
    columns = (
        Column("ID", lambda r: r["id"]),
        Column("TEMPLATE", lambda r: r["template"]),
        Column("TO", lambda r: r["to_revision"]),
        Column("STATE", lambda r: r["state"], words=True),
        Column("DONE", lambda r: f"{r['done']}/{r['total']}", right=True),
        Column("FAILED", lambda r: str(r["failed"]), right=True),
        Column("STARTED", lambda r: when(session, r["created_at"])),
        Column("BY", lambda r: r["created_by"]),
    )
    found = session.api.items(path("rollouts"), most=limit)
    print_table(session, found, columns, "no rollouts; make one with: tenantry rollout start")


@rollout.command("show")
@id_argument
@click.option("--failed", is_flag=True, help="Also list every tenant that failed.")
@pass_session
def show(session: Session, *, rollout: str | None, failed: bool) -> None:
    """Show a rollout (the newest one unless you name it): its waves, and failures by reason."""
    found = session.api.get(path("rollouts", rollout or _newest(session)))
    targets = _targets(session, found["id"], "failed") if failed else []
    if session.json:
        print_json({**found, "targets": targets} if failed else found)
        return
    _print_rollout(session, found)
    if targets:
        click.echo()
        _print_targets(session, targets)
    if command := go_on_with(found):
        say(f"go on with: {command}")


@rollout.command("targets")
@id_argument
@click.option("--state", type=click.Choice(_TARGET_STATES))
@pass_session
def list_targets(session: Session, *, rollout: str | None, state: str | None) -> None:
    """List the tenants of a rollout (the newest one unless you name it)."""
    _print_targets(session, _targets(session, rollout or _newest(session), state))


@rollout.command("pause")
@id_argument
@pass_session
def pause(session: Session, rollout: str | None) -> None:
    """Begin no further tenant until it is resumed; those in the works are finished."""
    found = session.api.change("POST", path("rollouts", rollout or _live(session), "pause"))
    _tell(session, found, f"rollout {found['id']} is {found['state']}")
    say(f"go on with: tenantry rollout resume {one_line(found['id'])}")


@rollout.command("resume")
@id_argument
@wait_option
@pass_session
def resume(session: Session, *, rollout: str | None, wait: bool) -> None:
    """Go on where it stands, with the template as it is now; failed tenants are tried again."""
    chosen = rollout or _live(session, or_incomplete=True)
    answer = session.api.change("POST", path("rollouts", chosen, "resume"))
    _conclude(session, answer, "resumed", wait=wait)


@rollout.command("abort")
@id_argument
@pass_session
def abort(session: Session, rollout: str | None) -> None:
    """End it here; every tenant keeps the revision that it has reached."""
    answer = session.api.change("POST", path("rollouts", rollout or _live(session), "abort"))
    _tell(session, answer, f"rollout {answer['subject']} is being aborted")


def _conclude(session: Session, operation: Json, word: str, *, wait: bool) -> None:
    shown = operation["subject"]
    if wait:
        if not session.json:
            print_line(f"rollout {shown} {word}")
        watch_rollout(session, shown)
        return
    _tell(session, operation, f"{operation['id']} rollout {shown} {word}")
    say(f"look at it with: tenantry rollout show {one_line(shown)}")


def _tell(session: Session, document: Json, words: str) -> None:
    if session.json:
        print_json(document)
    else:
        print_line(words)


def _newest(session: Session) -> str:
    found = session.api.items(path("rollouts"), most=1)
    if not found:
        raise _nothing("there is no rollout; make one with: tenantry rollout start")
    return str(found[0]["id"])


def _live(session: Session, *, or_incomplete: bool = False) -> str:
    """The one that is alive; else, if wanted, the newest one that left tenants behind."""
    found = session.api.items(path("rollouts"), most=_LATEST)
    alive = [one for one in found if one["state"] in LIVE]
    if len(alive) > 1:
        names = ", ".join(f"{one['id']} ({one['template']})" for one in alive)
        raise usage(f"several rollouts are alive; name one: {names}")
    if not alive and or_incomplete:
        alive = [one for one in found if one["state"] == "incomplete"]
    if not alive:
        raise _nothing("no rollout is alive; see: tenantry rollout list")
    return str(alive[0]["id"])


def _nothing(detail: str) -> Exception:
    return problem(Exit.NOT_FOUND, "not_found", detail)


def _targets(session: Session, rollout_id: str, state: str | None) -> list[Json]:
    return session.api.items(path("rollouts", rollout_id, "targets"), {"state": state})


def _print_rollout(session: Session, found: Json) -> None:
    left = found["seconds_left"]
    facts = (
        ("id", found["id"]),
        ("operation", found["operation"]),
        ("template", found["template"]),
        ("to revision", found["to_revision"]),
        ("state", found["state"]),
        ("reason", found["reason"]),
        ("doing", found["detail"] if found["state"] == "running" else None),
        ("tenants", f"{found['done']} of {found['total']} done, {found['failed']} failed"),
        ("left", f"about {brief(max(left, 1))}" if left is not None else None),
        ("selected", _selected(found["selector"])),
        ("started", when(session, found["created_at"])),
        ("by", found["created_by"]),
        ("ended", when(session, found["finished_at"])),
    )
    print_facts(session, found, facts)
    if found["waves"]:
        click.echo()
        print_table(session, found["waves"], _WAVES, "")
    for failure in found["failures"]:
        click.echo()
        sample = ", ".join(failure["sample"])
        more = ", …" if failure["tenants"] > len(failure["sample"]) else ""
        print_line(f"{failure['tenants']} failed with {failure['code']}: {sample}{more}")
        click.echo(f"  {one_line(failure['message'])}")


def _selected(selector: Json) -> str:
    parts = [
        f"{word}={','.join(selector[name])}"
        for word, name in (("tier", "tiers"), ("server", "servers"), ("tenant", "tenants"))
        if selector[name]
    ]
    parts += [f"label.{key}={value}" for key, value in selector["labels"].items()]
    return " ".join(parts) or "the whole fleet"


def _count(name: str) -> Callable[[Json], str]:
    return lambda wave: str(wave[name])


_WAVES: Sequence[Column] = (
    Column("WAVE", lambda w: w["name"]),
    *(
        Column(name.upper(), _count(name), right=True)
        for name in ("tenants", "done", "failed", "running", "waiting", "skipped", "locked")
    ),
)


def _print_targets(session: Session, targets: Sequence[Json]) -> None:
    columns = (
        Column("TENANT", lambda t: t["tenant"]),
        Column("STATE", lambda t: t["state"], words=True),
        Column("WAVE", lambda t: str(t["wave"]), right=True),
        Column("SERVER", lambda t: t["server"]),
        Column("FROM", lambda t: t["from_revision"]),
        Column("TOOK", lambda t: None if t["seconds"] is None else exact(t["seconds"]), right=True),
        Column("TRIES", lambda t: str(t["attempts"]), right=True),
        Column("ERROR", lambda t: _error(t["error"])),
        Column("OPERATION", lambda t: t["operation"]),
    )
    print_table(session, targets, columns, "no tenants")


def _error(error: Json | None) -> str | None:
    return f"{error['message']} ({error['code']})" if error else None
