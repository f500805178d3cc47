"""What a person sees of a stack: progress, the closing lines, status and logs."""

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from control_plane.config import default_home
from deploy.local.enrolment import DEMO_SLUG
from deploy.local.layout import Layout

FOLLOW_SECONDS = 0.2


def progress(text: str) -> None:
    """One finished step, on the error stream so that the result stays alone on the other."""
    print(f"  {text}", file=sys.stderr, flush=True)


def psql_line(facts: dict[str, Any]) -> str:
    """A line to paste into any shell of this machine; the secret does not appear in it."""
    tenantry = shlex.quote(str(Path(sys.executable).parent / "tenantry"))
    home = facts["state_dir"]
    setting = "" if home == str(default_home()) else f"TENANTRY_HOME={shlex.quote(home)} "
    psql = "psql" if shutil.which("psql") else f"{facts['servers'][0]['bin_dir']}/psql"
    return f'{psql} "$({setting}{tenantry} dsn {DEMO_SLUG})"'


def summary(facts: dict[str, Any], *, demo: bool, link: str | None) -> str:
    """What a started stack offers; ``link`` signs in to its console once."""
    lines = [
        f"API      {facts['api_url']}",
        f"token    {facts['token_file']}",
        f"console  {facts['api_url']}/console/",
    ]
    if link is not None:
        lines.append(f"sign in  {link}  (works once)")
    if demo:
        lines.append(f"psql     {psql_line(facts)}")
    return "\n".join(lines)


def table(facts: dict[str, Any]) -> str:
    """The processes of a stack, one a line."""
    rows = [("NAME", "PID", "STATE", "STARTED")]
    rows += [
        (p["name"], str(p["pid"] or "-"), p["state"], _second(p["started_at"]))
        for p in facts["processes"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows
    )


def _second(stamp: str | None) -> str:
    return f"{stamp[:19]}Z" if stamp else "-"


def tail(layout: Layout, names: list[str], lines: int) -> Iterator[str]:
    """The last lines of each log, each with the name of its log when there are several."""
    for name in names:
        text = layout.log(name).read_text(errors="replace").splitlines()
        prefix = f"{name} | " if len(names) > 1 else ""
        yield from (prefix + line for line in text[-lines:])


def follow(layout: Layout, names: list[str]) -> Iterator[str]:
    """New lines of the logs as they are written, without end."""
    offsets = {name: layout.log(name).stat().st_size for name in names}
    while True:
        for name in names:
            path = layout.log(name)
            size = path.stat().st_size
            start = offsets[name] if size >= offsets[name] else 0
            with path.open("rb") as file:
                file.seek(start)
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            offsets[name] = start + len(whole)
            prefix = f"{name} | " if len(names) > 1 else ""
            yield from (prefix + line.decode(errors="replace") for line in whole.splitlines())
        time.sleep(FOLLOW_SECONDS)
