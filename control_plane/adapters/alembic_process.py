"""Revisions that run Python: Alembic in processes of their own, a database at a time each.

Alembic keeps its context in module globals, and what a revision does in Python can hang or eat
memory: neither may happen in a worker. The parent writes one JSON line for a database to a
child's stdin and reads one JSON line back; nothing secret is in its arguments or environment.
"""

import asyncio
import ctypes
import os
import signal
import sys
import traceback
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec
import psycopg
from alembic import command
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from control_plane.adapters.alembic_environment import Environment, open_environment
from control_plane.adapters.postgres_server import ServerAddress, translate
from control_plane.adapters.revisions import PLAIN_SEARCH_PATH
from control_plane.adapters.template_database import plain_environment, psycopg_connection
from control_plane.config import Secret, child_environment
from control_plane.domain.errors import SchemaMismatch

_PR_SET_PDEATHSIG = 1
_LONGEST_LINE = 1 << 20
_PLACE = ("host", "hostaddr", "port", "user", "tls", "ca_pem")


class Job(msgspec.Struct, frozen=True):
    """One database to bring up by Alembic.

    ``address.user`` is the login to use, a member of ``roles["owner"]``; ``roles`` has owner, app,
    auditor and reader; ``revision`` is the one to reach, normally the next one. Times are in
    milliseconds, as Postgres takes them.
    """

    address: ServerAddress
    database: str
    roles: dict[str, str]
    revision: str
    lock_timeout: int = 5_000
    statement_timeout: int = 600_000


class JobResult(msgspec.Struct, frozen=True):
    """What became of a job: done, or one line for a person without values of the database.

    ``sqlstate`` is there if the server said it.
    """

    database: str
    error: str | None = None
    sqlstate: str | None = None


class _Line(msgspec.Struct, frozen=True):
    """A job as it goes through the pipe, with the password in the open."""

    address: dict[str, str | int | None]
    password: str
    rest: dict[str, str | int | dict[str, str]]


async def upgrade_many(
    directory: Path, jobs: Sequence[Job], *, processes: int = 2, timeout_seconds: float = 900.0
) -> list[JobResult]:
    """Run ``jobs`` with the Alembic environment in ``directory``; results in the same order.

    ``timeout_seconds`` is for one job: one that takes longer fails and its process is replaced.
    A failed job does not stop the others. Cancelling kills every process.
    """
    waiting = deque(enumerate(jobs))
    results: dict[int, JobResult] = {}

    async def work() -> None:
        async with _Child(directory) as child:
            while waiting:
                number, job = waiting.popleft()
                results[number] = await child.run(job, timeout_seconds)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(processes, len(jobs))):
            group.create_task(work())
    return [results[number] for number in range(len(jobs))]


class _Child:
    """A process that takes jobs, started when there is one and again after it died."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kill()

    async def run(self, job: Job, timeout_seconds: float) -> JobResult:
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._ask(_line(job))
        except TimeoutError:
            await self._kill()
            message = f"it did not end within {timeout_seconds:g} s; its process was killed"
            return JobResult(job.database, message)
        if not answer:
            code = await self._kill()
            message = f"the process that ran it ended by itself (exit code {code})"
            return JobResult(job.database, message)
        return msgspec.json.decode(answer, type=JobResult)

    async def _ask(self, line: bytes) -> bytes:
        process = self._process or await self._start()
        if process.stdin is None or process.stdout is None:
            return b""
        try:
            process.stdin.write(line)
            await process.stdin.drain()
            return await process.stdout.readline()
        except (ConnectionError, ValueError):
            return b""

    async def _start(self) -> Process:
        # What a revision prints may show rows: it goes nowhere.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __spec__.name, str(self._directory)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=child_environment(),
            limit=_LONGEST_LINE,
        )
        return self._process

    async def _kill(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if process.returncode is None:
            # One that has just ended is left to report its own code.
            if process.stdout is None or not process.stdout.at_eof():
                process.kill()
            await process.wait()
        return process.returncode


def main(directory: Path) -> None:
    """Take jobs from stdin until it ends; one line of answer for each."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with os.fdopen(os.dup(1), "wb") as answers:
        # stdout belongs to the answers: what a revision prints must not be among them.
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            answers.write(msgspec.json.encode(_upgrade(directory, line)) + b"\n")
            answers.flush()


def _upgrade(directory: Path, line: bytes) -> JobResult:
    job = _job(msgspec.json.decode(line, type=_Line))
    try:
        with open_environment(directory) as environment:
            return _run(environment, job)
    except SchemaMismatch as error:
        return JobResult(job.database, error.message)


def _run(environment: Environment, job: Job) -> JobResult:
    try:
        (_run_aware if environment.role_aware else _run_plain)(environment, job)
    except (DBAPIError, psycopg.Error, OSError) as error:
        found = translate(error)
        state = found.facts.get("state")
        return JobResult(job.database, found.message, state if isinstance(state, str) else None)
    except CommandError as error:
        return JobResult(job.database, f"Alembic: {error}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision may raise anything
        return JobResult(job.database, _described(error))
    return JobResult(job.database)


def _run_aware(environment: Environment, job: Job) -> None:
    with psycopg_connection(job.address, job.database, f"cp:alembic:{job.database}") as driver:
        for name, value in _settings(job).items():
            driver.execute("SELECT set_config(%s, %s, false)", (name, value))
        driver.commit()
        engine = create_engine("postgresql+psycopg://", creator=lambda: driver, poolclass=NullPool)
        with engine.connect() as connection:
            environment.config.attributes.update(connection=connection, roles=job.roles)
            command.upgrade(environment.config, job.revision)


def _run_plain(environment: Environment, job: Job) -> None:
    session = {"role": job.roles["owner"], "search_path": PLAIN_SEARCH_PATH, **_settings(job)}
    with plain_environment(environment, job.address, job.database, session):
        command.upgrade(environment.config, job.revision)


def _settings(job: Job) -> dict[str, str]:
    return {
        "lock_timeout": f"{job.lock_timeout}ms",
        "statement_timeout": f"{job.statement_timeout}ms",
        # Python may think between two statements; a process that is stuck is killed by its parent.
        "idle_in_transaction_session_timeout": "10min",
        # Ends the statement of a process that was killed.
        "client_connection_check_interval": "1s",
    }


def _described(error: BaseException) -> str:
    """The kind of error and where it was raised; its text may hold values of rows."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__} in {Path(last.filename).name} line {last.lineno}"


def _line(job: Job) -> bytes:
    address = {name: getattr(job.address, name) for name in _PLACE}
    rest = {name: getattr(job, name) for name in job.__struct_fields__ if name != "address"}
    line = _Line(address, job.address.password.reveal(), rest)
    return msgspec.json.encode(line) + b"\n"


def _job(line: _Line) -> Job:
    password = Secret(line.password)
    address = msgspec.convert(line.address | {"password": password}, ServerAddress)
    return msgspec.convert(line.rest | {"address": address}, Job)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
