"""Starting a program so that it cannot outlive the supervisor."""

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from control_plane.config import child_environment
from deploy.local.account import Account
from deploy.local.problem import StackError, disk_full

PR_SET_PDEATHSIG = 1
MEMBER = "STACK_OF"  # names the stack in the environment of each of its processes
TELLING = re.compile(r"FATAL|PANIC|CRITICAL|\b[Ee]rror\b|ERROR|\w(Error|Exception): ")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Program:
    """A command with everything it is started with."""

    argv: tuple[str, ...]
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    directory: Path = Path("/")
    orphan_signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Outcome:
    """What a finished program left behind."""

    code: int
    stdout: str
    stderr: str


def spawn(
    program: Program,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    stdin: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start ``program`` in a session of its own, bound to the life of this thread.

    The kernel sends ``orphan_signal`` when the thread that called this ends, however it ends,
    so call it from the main thread.

    Raises:
        StackError: the program cannot be executed.
    """
    account = program.account
    try:
        return subprocess.Popen(
            program.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=program.directory,
            env=_environment(program),
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=_die_with(os.getpid(), program.orphan_signal),  # noqa: PLW1509 one C call, no thread of ours holds a lock
        )
    except OSError as error:
        raise StackError(f"cannot start {program.argv[0]}: {error.strerror}") from error


def last_words_of(outcome: Outcome) -> str:
    """The most telling line of what a program printed."""
    return last_words(outcome.stderr or outcome.stdout)


async def run_once(
    program: Program,
    name: str,
    *,
    stdin: str = "",
    seconds: float = 300,
    reason: Callable[[Outcome], str] = last_words_of,
) -> Outcome:
    """Run a program to its end; it dies with the task that awaits it.

    Raises:
        StackError: it cannot be started, ran longer than ``seconds``, or exited non-zero;
            the message ends with its ``reason``.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin.encode())
        given.seek(0)
        process = spawn(program, out, err, given)
        try:
            async with asyncio.timeout(seconds):
                code = await exit_code(process)
        except TimeoutError:
            raise StackError(f"{name} did not end within {seconds:g} s") from None
        finally:
            kill_group(process)
        outcome = Outcome(code, _text(out), _text(err))
    if code:
        raise StackError(f"{name} failed: {reason(outcome)}")
    return outcome


async def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of ``process`` without a thread and without polling."""
    code = process.poll()
    if code is not None:
        return code
    descriptor = os.pidfd_open(process.pid)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the program and of the processes it started itself."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:  # only zombies of another user are left
        pass
    process.wait()


def last_words(text: str) -> str:
    """The most telling line of a program's output: the last that names an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("No space left on device" in line for line in lines):
        return disk_full("the state directory")
    telling = [line for line in lines if TELLING.search(line)] or lines
    return telling[-1][:400] if telling else "it printed nothing"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _environment(program: Program) -> dict[str, str]:
    own = {"HOME": str(program.home), "USER": program.account.name} if program.account else {}
    inherited = child_environment(**{MEMBER: str(program.home), "PYTHONUNBUFFERED": "1"})
    # A supervisor's children are started often: let Python keep what it compiled.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited | own | dict(program.environment)


def _die_with(parent: int, orphan_signal: int) -> Callable[[], None]:
    def bind() -> None:
        if _libc.prctl(PR_SET_PDEATHSIG, orphan_signal, 0, 0, 0):
            os._exit(126)
        if os.getppid() != parent:
            os._exit(126)

    return bind
