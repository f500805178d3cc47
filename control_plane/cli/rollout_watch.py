"""A rollout on the screen: a line for every change, until it has ended or stands still."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from control_plane.cli.durations import brief
from control_plane.cli.following import PATIENCE_SECONDS
from control_plane.cli.output import print_json, print_line
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, Problem, one_line, say
from control_plane.cli.session import Session

if TYPE_CHECKING:
    from control_plane.cli.client import Api

POLL_SECONDS = 0.5
_RUNNING = "running"


def watch_rollout(session: Session, rollout_id: str) -> None:
    """Follow a rollout for as long as it runs, and tell how it ended or why it stands still.

    Raises:
        click.exceptions.Exit: with code 1 unless it succeeded.
        Problem: it could not be followed.
    """
    rollout: Json = {}
    said = ""
    try:
        for rollout in follow_rollout(session.api, rollout_id):
            line = progress_line(rollout)
            if not session.json and _without_estimate(rollout) != said:
                said = _without_estimate(rollout)
                print_line(line)
    except KeyboardInterrupt:
        _say_it_goes_on(rollout_id)
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
    except Problem as trouble:
        if trouble.unreachable:
            _say_it_goes_on(rollout_id)
        raise
    if session.json:
        print_json(rollout)
    _tell_the_end(session, rollout)


def follow_rollout(
    api: "Api", rollout_id: str, patience: float = PATIENCE_SECONDS
) -> Iterator[Json]:
    """The rollout every half second, until it does not run any more.

    Raises:
        Problem: it cannot be read, or nothing answered for ``patience`` seconds.
    """
    heard = time.monotonic()
    while True:
        try:
            rollout = api.get(path("rollouts", rollout_id))
            heard = time.monotonic()
            yield rollout
            if rollout["state"] != _RUNNING:
                return
        except Problem as trouble:
            if not trouble.passing or time.monotonic() - heard > patience:
                raise
        time.sleep(POLL_SECONDS)


def progress_line(rollout: Json) -> str:
    """``wave 1: 12 of 500 tenants, 3 failed, about 2 min left``."""
    left = rollout.get("seconds_left")
    estimate = f", about {brief(max(left, 1))} left" if left is not None else ""
    return _without_estimate(rollout) + estimate


def go_on_with(rollout: Json) -> str | None:
    """The command that lets it go on, if it can."""
    if rollout["state"] not in {"paused", "halted", "incomplete"}:
        return None
    return f"tenantry rollout resume {one_line(rollout['id'])}"


def _without_estimate(rollout: Json) -> str:
    counted = f"{rollout['done']} of {rollout['total']} tenants"
    failed = f", {rollout['failed']} failed" if rollout["failed"] else ""
    waves = {wave["wave"]: wave for wave in rollout["waves"]}
    now = waves.get(rollout["wave"])
    working = any(wave["running"] for wave in rollout["waves"])
    what = now["name"] if now and (working or rollout["done"]) else rollout.get("detail") or ""
    return f"{what or rollout['state']}: {counted}{failed}"


def _tell_the_end(session: Session, rollout: Json) -> None:
    shown, state = one_line(rollout["id"]), rollout["state"]
    if state == "succeeded":
        if not session.json:
            print_line(f"rollout {shown}: {rollout['done']} tenants at {rollout['to_revision']}")
        return
    why = f": {rollout['reason']}" if rollout.get("reason") else ""
    say(f"error: {one_line(f'rollout {shown} is {state}{why}')}")
    if rollout["failed"]:
        say(f"  see why with: tenantry rollout show {shown} --failed")
    if command := go_on_with(rollout):
        say(f"  go on with: {command}")
    raise click.exceptions.Exit(Exit.FAILED)


def _say_it_goes_on(rollout_id: str) -> None:
    say(f"rollout {one_line(rollout_id)} goes on without us;")
    say(f"look at it with: tenantry rollout show {one_line(rollout_id)}")
