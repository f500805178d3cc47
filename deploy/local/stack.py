"""A stack as its user holds it: start it, ask it, break it, stop it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from control_plane.config import REPOSITORY
from deploy.local import leftovers, lock
from deploy.local.account import service_account
from deploy.local.layout import Layout
from deploy.local.logs import open_log
from deploy.local.options import StackOptions, encode
from deploy.local.problem import StackError
from deploy.local.protocol import Report, Request, outcome

STOP_SECONDS = 150.0
POLL_SECONDS = 0.05


def quiet(_: str) -> None:
    """Report progress to nobody."""


class Stack:
    """One stack; every method blocks until what it promises is true.

    Any number of processes may hold the same stack; with ``options.attached`` the one that
    started it takes it along when it ends.
    """

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.layout = Layout(options.home)
        self._owner: socket.socket | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether a supervisor is there, whatever its phase."""
        return lock.holder(self.layout.lock) is not None

    def start(self, report: Report = quiet) -> dict[str, Any]:
        """Start the stack, or mend a running one; returns its facts (see ``stack.json``).

        Raises:
            StackError: it cannot be started; nothing is left running.
        """
        if self.running:
            return self._ask(Request("heal", demo=self.options.demo), report)
        self._owner, theirs = socket.socketpair()
        with theirs:
            self._supervisor = self._spawn(theirs.fileno())
        try:
            self._owner.sendall(encode(self.options))
            facts = outcome(self._owner, report)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                report("stopping everything that was started")
            self._abandon()
            raise
        if not self.options.attached:
            self._owner.close()
        return facts

    def stop(self, report: Report = quiet) -> None:
        """Stop every process of the stack; one that does not run is no error.

        Raises:
            StackError: the supervisor cannot be ended.
        """
        if self.running:
            try:
                self._ask(Request("stop"), report)
            except (StackError, OSError):
                self._signal_supervisor(signal.SIGTERM)
            if not lock.wait_free(self.layout.lock, STOP_SECONDS):
                self._signal_supervisor(signal.SIGKILL)
                lock.wait_free(self.layout.lock, STOP_SECONDS)
        leftovers.sweep(self.layout.home)
        self.layout.facts.unlink(missing_ok=True)
        self._let_go()

    def facts(self) -> dict[str, Any]:
        """What runs now, in the form of ``stack.json``.

        Raises:
            StackError: the stack does not run.
        """
        return self._ask(Request("status"), quiet)

    def pid(self, name: str) -> int:
        """The process id of a process of the stack.

        Raises:
            StackError: there is no such process, or it does not run now.
        """
        for process in self.facts()["processes"]:
            if process["name"] == name and process["pid"]:
                return int(process["pid"])
        raise StackError(f"the process {name!r} does not run")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process and return its id; the supervisor restarts what dies."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def restart(self, name: str) -> int:
        """Stop a process and start it again at once; returns the new process id."""
        self._ask(Request("restart", name), quiet)
        return self.pid(name)

    def halt(self, name: str) -> None:
        """Stop a process and leave it stopped until ``restart`` or ``start``."""
        self._ask(Request("halt", name), quiet)

    def wait_running(self, name: str, *, other_than: int = 0, seconds: float = 60) -> int:
        """Wait until a process answers and is not ``other_than``; returns its id.

        Raises:
            StackError: it does not within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for process in self.facts()["processes"]:
                if process["name"] == name and process["state"] == "running":
                    pid = int(process["pid"] or other_than)
                    if pid != other_than:
                        return pid
            time.sleep(POLL_SECONDS)
        raise StackError(f"{name} did not come back within {seconds:g} s")

    def log(self, name: str) -> Path:
        return self.layout.log(name)

    def _ask(self, request: Request, report: Report) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.layout.control))
            except OSError as error:
                raise StackError(self._silent()) from error
            connection.sendall(msgspec.json.encode(request) + b"\n")
            return outcome(connection, report)

    def _silent(self) -> str:
        if self.running:
            return f"the supervisor of {self.layout.home} is just starting or ending; try again"
        return f"no stack runs in {self.layout.home}; ./dev up starts one"

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        self.layout.claim(service_account())
        self.layout.logs.mkdir(mode=0o700, exist_ok=True)
        with open_log(self.layout.log("supervisor")) as log:
            return subprocess.Popen(
                [sys.executable, "-m", "deploy.local.supervisor", str(descriptor)],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
                start_new_session=True,
            )

    def _abandon(self) -> None:
        """Give up a start: the supervisor sees its owner gone and stops everything."""
        if self._owner is not None:
            self._owner.shutdown(socket.SHUT_WR)
        self._let_go()

    def _let_go(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wait()
        if self._owner is not None:
            self._owner.close()
        self._owner = self._supervisor = None

    def _signal_supervisor(self, number: signal.Signals) -> None:
        pid = lock.holder(self.layout.lock)
        if pid:
            os.kill(pid, number)
