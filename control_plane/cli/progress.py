"""An operation on the screen: one line per step as it turns, and how it ended."""

import time
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from control_plane.cli.durations import between, exact
from control_plane.cli.following import follow, is_over
from control_plane.cli.output import console, print_json, print_line, speaks_unicode
from control_plane.cli.problems import Exit, Json, Problem, one_line, say
from control_plane.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

_SYMBOLS = {"done": "✓", "skipped": "–", "failed": "✗", "again": "↻"}  # noqa: RUF001 - the dash is meant
_ASCII = {"done": "ok", "skipped": "--", "failed": "!!", "again": ".."}
_COLOURS = {"done": "green", "skipped": "magenta", "failed": "red", "again": "yellow"}
_TURNED = frozenset({"done", "skipped", "failed"})
_TIME_WIDTH = 11


def conclude(session: Session, operation: Json, *, wait: bool, wanted: str = "succeeded") -> None:
    """Tell where to follow the work, or with ``wait`` follow it to the end that is ``wanted``.

    Raises:
        click.exceptions.Exit: with code 1 when the operation ended otherwise.
        Problem: it could not be followed to its end.
    """
    if wait:
        watch(session, operation, wanted=wanted)
    elif session.json:
        print_json(operation)
    else:
        print_line(f"{operation['id']} {_title(operation)} {operation['state']}")
        say(f"follow it with: tenantry operations watch {one_line(operation['id'])}")


def watch(session: Session, operation: Json, *, wanted: str = "succeeded") -> None:
    """Follow an operation to its end and print it.

    Raises:
        click.exceptions.Exit: with code 1 when it ended otherwise than ``wanted``.
        Problem: it could not be followed to its end.
    """
    try:
        operation = _follow(session, operation)
    except KeyboardInterrupt:
        _say_it_goes_on(operation)
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
    except Problem as trouble:
        if trouble.unreachable:
            _say_it_goes_on(operation)
        raise
    if session.json:
        print_json(operation)
    else:
        _print_end(operation, wanted)
    if operation["state"] != wanted:
        raise click.exceptions.Exit(Exit.FAILED)


def print_steps(operation: Json) -> None:
    """Every step of the operation with its present state."""
    printer = _StepPrinter(console(), operation)
    for step in operation["steps"]:
        printer.print_step(step)


def _say_it_goes_on(operation: Json) -> None:
    shown = one_line(operation["id"])
    say(f"{one_line(_title(operation))} goes on without us as {shown};")
    say(f"watch it with: tenantry operations watch {shown}")


def _follow(session: Session, operation: Json) -> Json:
    snapshots = follow(session.api, operation["id"])
    if session.json:
        return deque(snapshots, maxlen=1).pop()
    out = console()
    printer = _StepPrinter(out, operation)
    print_line(_title(operation))
    with printer.live() if out.is_terminal else nullcontext():
        for snapshot in snapshots:
            printer.update(snapshot)
    return printer.operation


class _StepPrinter:
    """Prints a step once it has turned, and why a step is tried again when that changes."""

    def __init__(self, out: "Console", operation: Json) -> None:
        self._out = out
        self.operation = operation
        self._printed: set[tuple[str, str]] = set()
        self._marks = _SYMBOLS if speaks_unicode() else _ASCII
        self._width = max((len(step["name"]) for step in operation["steps"]), default=0)
        self._spinner = Spinner("dots" if speaks_unicode() else "line")
        self._current, self._since = "", time.monotonic()

    def live(self) -> Live:
        """The moving line below the printed ones."""
        return Live(
            get_renderable=self._present, console=self._out, transient=True, refresh_per_second=8
        )

    def update(self, operation: Json) -> None:
        self.operation = operation
        for step in operation["steps"]:
            error = (step.get("error") or {}).get("message") or ""
            mark = (step["name"], step["state"] if step["state"] in _TURNED else error)
            if mark[1] and mark not in self._printed:
                self._printed.add(mark)
                self.print_step(step)

    def print_step(self, step: Json) -> None:
        state = step["state"] if step["state"] in _TURNED or not step.get("error") else "again"
        mark = self._marks.get(state, " " * len(self._marks["done"]))
        spent = between(step.get("started_at"), step.get("finished_at"))
        took = exact(spent) if spent is not None and state in _TURNED else ""
        name = one_line(step["name"]).ljust(self._width)
        line = Text(f"  {mark} {name}  {took:>{_TIME_WIDTH}}  {_note(step)}".rstrip())
        line.stylize(_COLOURS.get(state, ""), 2, 2 + len(mark))
        self._out.print(line, soft_wrap=True)

    def _present(self) -> Spinner | Text:
        current = next((s for s in self.operation["steps"] if s["state"] not in _TURNED), None)
        if current is None or is_over(self.operation):
            return Text("")
        if current["name"] != self._current:
            self._current, self._since = current["name"], time.monotonic()
        # Measured here, because the server's clock need not agree with ours.
        spent = exact(time.monotonic() - self._since)
        at_work = self.operation["state"] == "running"
        words = f"{one_line(current['name'])}  {spent}  {_note(current, at_work=at_work)}"
        self._spinner.update(text=Text(words, overflow="ellipsis", no_wrap=True))
        return self._spinner


def _note(step: Json, *, at_work: bool = False) -> str:
    """Why it did not succeed, or what it says; a step ``at_work`` again has more to say."""
    parts = []
    error = step.get("error")
    if error and step["state"] != "done" and not (at_work and step.get("detail")):
        parts.append(error.get("message") or error.get("code"))
    elif step.get("detail"):
        parts.append(step["detail"])
    if (step.get("attempts") or 0) > 1:
        parts.append(f"(attempt {step['attempts']})")
    return one_line(" ".join(str(part) for part in parts))


def _print_end(operation: Json, wanted: str) -> None:
    spent = between(operation.get("created_at"), operation.get("finished_at"))
    state = operation["state"] + (f" after {exact(spent)}" if spent is not None else "")
    if operation["state"] == wanted:
        print_line(f"{_title(operation)}: {state}")
        return
    error = operation.get("error") or {}
    why = f": {error['message']} ({error.get('code', 'error')})" if error.get("message") else ""
    say(f"error: {one_line(f'{_title(operation)} {state}{why}')}")
    if operation["state"] == "failed":
        say(f"  try it again with: tenantry operations retry {one_line(operation['id'])}")


def _title(operation: Json) -> str:
    subject = operation.get("tenant") or operation.get("subject") or ""
    return f"{operation['kind']} {subject}".strip()
