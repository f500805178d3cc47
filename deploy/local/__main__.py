"""``./dev up | down | status | logs | reset``: the commands that need Python."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from control_plane.config import default_home
from deploy.local import terminal
from deploy.local.invitation import invite
from deploy.local.layout import Layout, forget
from deploy.local.options import StackOptions
from deploy.local.problem import StackError, one_line
from deploy.local.stack import Stack, quiet

INTERRUPTED = 130
# Of what a person may have set, what shapes the local stack.
_HANDED_ON = ("TENANTRY_TEMPLATE_DIR", "TENANTRY_TEMPLATES")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except (StackError, OSError, ExceptionGroup) as error:
        print(f"dev: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dev: interrupted", file=sys.stderr)
        return INTERRUPTED


def up(parsed: argparse.Namespace) -> int:
    wanted = msgspec.structs.replace(
        _options(), demo=parsed.demo, doubled=parsed.doubled, limited=parsed.limited
    )
    stack = Stack(wanted)
    facts = stack.start(terminal.progress)
    link = invite(facts)
    if parsed.json:
        psql = terminal.psql_line(facts) if parsed.demo else None
        _print_json({**facts, "psql": psql, "sign_in": link})
    else:
        print(terminal.summary(facts, demo=parsed.demo, link=link))
    return 0


def down(_: argparse.Namespace) -> int:
    stack = Stack(_options())
    was_running = stack.running
    stack.stop(terminal.progress)
    print("stopped" if was_running else "nothing was running", file=sys.stderr)
    return 0


def status(parsed: argparse.Namespace) -> int:
    """Print what runs; the exit code is 0 only if all of it does."""
    stack = Stack(_options())
    try:
        facts = stack.facts()
    except StackError as error:
        if not parsed.json:
            raise
        _print_json({"phase": "stopped", "state_dir": str(stack.layout.home), "processes": []})
        print(f"dev: {error}", file=sys.stderr)
        return 1
    if parsed.json:
        _print_json(facts)
    else:
        print(f"API  {facts['api_url']}  ({facts['phase']})\n{terminal.table(facts)}")
    return 0 if all(process["pid"] for process in facts["processes"]) else 1


def logs(parsed: argparse.Namespace) -> int:
    layout = Layout(_home())
    known = sorted(path.stem for path in layout.logs.glob("*.log"))
    names = [parsed.name] if parsed.name else known
    if not names or not set(names) <= set(known):
        raise StackError(f"there is no such log in {layout.logs}; there are: {', '.join(known)}")
    for line in terminal.tail(layout, names, parsed.lines):
        print(line)
    if parsed.follow:
        for line in terminal.follow(layout, names):
            print(line, flush=True)
    return 0


def reset(parsed: argparse.Namespace) -> int:
    """Stop the stack and delete everything it knows, after a question."""
    layout = Layout(_home())
    if not layout.home.exists():
        print(f"{layout.home} does not exist: nothing to forget", file=sys.stderr)
        return 0
    if not parsed.yes and not _confirmed(layout.home):
        print("nothing was deleted", file=sys.stderr)
        return 1
    Stack(_options()).stop(quiet)
    forget(layout)
    print(f"{layout.home} is gone", file=sys.stderr)
    return 0


def _confirmed(home: Path) -> bool:
    if not sys.stdin.isatty():
        raise StackError("reset deletes every database of the stack; say so with --yes")
    print(f"Stop the stack and delete {home} with every database in it? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _home() -> Path:
    return Path(os.environ.get("TENANTRY_HOME") or default_home()).absolute()


def _options() -> StackOptions:
    given = {name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)}
    return StackOptions(home=_home(), environment=given)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev", description="The local stack of Tenantry.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    adding = commands.add_parser("up", help="start the stack, or mend a running one")
    adding.add_argument("--no-demo", dest="demo", action="store_false", help="without demo-clinic")
    adding.add_argument("--doubled", action="store_true", help="two of every process of ours")
    adding.add_argument(
        "--limited", action="store_true", help="servers' administrators are no superusers, from 16"
    )
    adding.add_argument("--json", action="store_true", help="the facts as one JSON object")
    adding.set_defaults(command=up)
    adding = commands.add_parser("down", help="stop every process")
    adding.set_defaults(command=down)
    adding = commands.add_parser("status", help="what runs")
    adding.add_argument("--json", action="store_true", help="the facts as one JSON object")
    adding.set_defaults(command=status)
    adding = commands.add_parser("logs", help="the logs of one process, or of all")
    adding.add_argument("name", nargs="?", help="the process, as ./dev status names it")
    adding.add_argument("--follow", "-f", action="store_true", help="go on as lines are written")
    adding.add_argument("--lines", "-n", type=int, default=40, help="how many of each log")
    adding.set_defaults(command=logs)
    adding = commands.add_parser("reset", help="stop and forget all local data")
    adding.add_argument("--yes", action="store_true", help="do not ask")
    adding.set_defaults(command=reset)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
