"""A machine with a real systemd: process 1 of new namespaces, over a copy of this machine.

What is written in it is forgotten with it, but below ``CHECKOUT``: there is this repository,
wherever it is. It shares the network, so that it reaches the servers
of a local stack; every process of it ends with its process 1.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from control_plane.config import REPOSITORY

CHECKOUT = "/srv/tenantry"
SYSTEMD = Path("/lib/systemd/systemd")
_BOOT = Path(__file__).with_name("boot.sh")
_PROGRAMS = ("unshare", "nsenter", "setpriv")
_NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--cgroup")
_BOOT_SECONDS = 60.0
# What boot.sh needs to be allowed, in a moment that leaves nothing behind.
_TRIAL = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/changes /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work overlay /mnt/root
mount -t proc proc /mnt/root/proc
mount -t cgroup2 cgroup2 /mnt/root/sys
mount --make-rshared /
"""


class MachineError(Exception):
    """The machine did not boot, or a command in it failed; the message is what was printed."""


def obstacle() -> str | None:
    """Why no such machine can be had here; ``None`` when it can."""
    if os.geteuid() != 0:
        return "only root may make the namespaces of a machine"
    if not SYSTEMD.exists():
        return "systemd is not installed"
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(missing)} not installed"
    groups = _control_groups()
    if groups is None or not os.access(groups, os.W_OK):
        return "there are no control groups of version 2 to write to"
    made = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "sh", "-euc", _TRIAL],
        check=False,
        capture_output=True,
        text=True,
    )
    return None if made.returncode == 0 else f"no namespaces can be made: {made.stderr.strip()}"


@dataclass(frozen=True)
class Machine:
    """One boot; ``first`` is its process 1 as this machine numbers it."""

    first: int
    log: Path

    def run(self, script: str, *, told: str = "") -> str:
        """Run a shell script as root; what it printed.

        Raises:
            MachineError: a command of it failed.
        """
        ended = subprocess.run(
            [*self._enter(), "sh", "-euc", script],
            input=told,
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env=_shell_of_root(),
        )
        if ended.returncode != 0:
            raise MachineError(f"{script}\n{ended.stdout}{ended.stderr}{self._failed()}")
        return ended.stdout

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Make a file of root."""
        self.run(f"install -D -m {mode:o} /dev/stdin {path}", told=content)

    def journal(self, unit: str) -> str:
        return self.run(f"journalctl --no-pager --output=cat --unit={unit} | tail -n 40")

    def wait_state(self, unit: str, wanted: str, seconds: float = 60.0) -> None:
        """Until systemd says that of the unit.

        Raises:
            MachineError: it says something else for ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while (state := self.run(f"systemctl is-active {unit} || true").strip()) != wanted:
            if time.monotonic() > deadline:
                raise MachineError(f"{unit} is {state}\n{self.journal(unit)}")
            time.sleep(0.2)

    def _failed(self) -> str:
        """What units that failed have logged."""
        script = """
        for unit in $(systemctl list-units --state=failed --plain --no-legend | cut -d ' ' -f 1); do
            journalctl --no-pager --output=cat --lines=40 "--unit=$unit"
        done
        """
        shown = [*self._enter(), "sh", "-c", script]
        return subprocess.run(shown, check=False, capture_output=True, text=True, cwd="/").stdout

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.first}", *_NAMESPACES]


@contextmanager
def booted(place: Path) -> Iterator[Machine]:
    """A machine that has booted; ``place`` is a directory that is not there yet.

    Raises:
        MachineError: it does not come up.
    """
    groups = _control_groups()
    if groups is None:
        raise MachineError("there are no control groups of version 2")
    group = Path(tempfile.mkdtemp(prefix="tenantry-", dir=groups))
    (place / "disk").mkdir(parents=True)
    log = place / "boot.log"
    inside = f'echo $$ > "{group}/cgroup.procs"; exec "$@"'
    boot = ["sh", str(_BOOT), str(place), str(REPOSITORY)]
    unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child", *boot]
    with log.open("wb") as written:
        outside = subprocess.Popen(
            ["sh", "-c", inside, "sh", *unshare],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    try:
        yield _wait_booted(outside, log)
    finally:
        outside.kill()
        outside.wait()
        _forget(group)


def _wait_booted(outside: "subprocess.Popen[bytes]", log: Path) -> Machine:
    deadline = time.monotonic() + _BOOT_SECONDS
    while outside.poll() is None and time.monotonic() < deadline:
        for child in psutil.Process(outside.pid).children():
            if Path(child.exe()) == SYSTEMD.resolve():
                machine = Machine(child.pid, log)
                if _state(machine) == "running":
                    return machine
        time.sleep(0.1)
    raise MachineError(f"no systemd: {log.read_text()}")


def _state(machine: Machine) -> str:
    """What systemd says of the machine; nothing before it listens.

    Raises:
        MachineError: a unit of the machine itself failed.
    """
    said = machine.run("systemctl is-system-running 2>&1 || true").strip()
    if said == "degraded":
        raise MachineError(machine.run("systemctl --failed --no-pager"))
    return said


def _shell_of_root() -> dict[str, str]:
    """What a login has: how packages are reached from here, and nothing of these tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TENANTRY_", "VIRTUAL_ENV", "PYTEST_"))
    }
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, "PATH": path, "LANG": "C.UTF-8"}


def _control_groups() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[words.index("-") + 1] == "cgroup2" and "rw" in words[5].split(","):
            return Path(words[4])
    return None


def _forget(group: Path) -> None:
    """A control group is empty a moment after the last process of it ended."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while (group / "cgroup.events").read_text().splitlines()[0] != "populated 0":
        if time.monotonic() > deadline:
            raise MachineError(f"{group} is still populated")
        time.sleep(0.1)
    for below, _, _ in os.walk(group, topdown=False):
        Path(below).rmdir()
