import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.local import leftovers, lock
from deploy.local.keeper import Backoff, Keeper, Launch, Service
from deploy.local.problem import StackError
from deploy.local.ready import log_line
from deploy.local.spawn import Program, last_words, run_once, spawn
from deploy.local.steps import Step, run_steps

PARENT = """
import subprocess, sys
from pathlib import Path
from deploy.local.spawn import Program, spawn
child = spawn(Program(("sleep", "100"), Path(sys.argv[1])), subprocess.DEVNULL, subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""
FORKS = "import os, time; os.fork(); print('up', flush=True); time.sleep(100)"


def _program(home: Path, *argv: str) -> Program:
    return Program(argv, home)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


async def _until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Kept:
    """Keepers over small real programs, halted at the end of the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.reports: list[str] = []
        self.keepers: list[Keeper] = []

    def keeper(self, script: str, *, ready: str = "up", ready_seconds: float = 10) -> Keeper:
        service = Service(
            name="thing",
            program=_program(self.home, sys.executable, "-c", script),
            ready=log_line(ready),
            tier=1,
            grace_seconds=2,
            ready_seconds=ready_seconds,
        )
        keeper = Keeper(service, self.home / "thing.log", self.reports.append, lambda: None)
        self.keepers.append(keeper)
        return keeper


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    for keeper in kept.keepers:
        await keeper.halt()
    assert leftovers.find(tmp_path) == []


SERVES = "import time; print('up', flush=True); time.sleep(100)"


def test_backoff_doubles_to_its_limit_and_is_forgotten_after_a_minute_of_health() -> None:
    backoff = Backoff()
    assert [backoff.delay(1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay(59.9) == 30
    assert backoff.delay(60) == 1
    assert backoff.delay(5) == 2


async def test_a_killed_process_comes_back_by_itself(kept: Kept) -> None:
    keeper = kept.keeper(SERVES)
    await keeper.start()
    first = keeper.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await _until(lambda: keeper.state == "running" and keeper.pid != first)
    assert kept.reports[0] == "thing ended (signal SIGKILL); restart in 1 s"


async def test_healing_does_not_wait_for_the_backoff(kept: Kept) -> None:
    keeper = kept.keeper(SERVES)
    await keeper.start()
    for _ in range(3):
        pid = keeper.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: keeper.state == "waiting")
        began = time.monotonic()
        await keeper.heal()
        assert keeper.state == "running"
        assert time.monotonic() - began < 0.9


async def test_a_halted_process_stays_away_until_it_is_healed(kept: Kept) -> None:
    keeper = kept.keeper(SERVES)
    await keeper.start()
    await keeper.halt()
    await asyncio.sleep(1.2)
    assert (keeper.state, keeper.pid) == ("halted", None)
    await keeper.heal()
    assert keeper.state == "running"


async def test_a_start_that_fails_quotes_the_last_line_of_the_log(kept: Kept) -> None:
    keeper = kept.keeper("print('reading'); raise SystemExit('no such flavour')")
    with pytest.raises(StackError, match=r"thing ended while starting; .*: no such flavour"):
        await keeper.start()
    assert keeper.pid is None


async def test_a_process_that_never_answers_is_ended(kept: Kept) -> None:
    keeper = kept.keeper(SERVES, ready="never", ready_seconds=0.5)
    with pytest.raises(StackError, match=r"did not answer within 0.5 s; .* ends: up"):
        await keeper.start()
    assert keeper.pid is None


async def test_an_old_log_line_does_not_count_as_ready(kept: Kept) -> None:
    (kept.home / "thing.log").write_text("up\n")
    keeper = kept.keeper("import time; time.sleep(100)", ready_seconds=0.5)
    with pytest.raises(StackError, match="did not answer"):
        await keeper.start()


async def test_what_a_dead_process_started_dies_with_it(kept: Kept) -> None:
    keeper = kept.keeper(FORKS)
    await keeper.start()
    pid = keeper.pid
    assert pid is not None
    await _until(lambda: len(leftovers.find(kept.home)) == 2)
    os.kill(pid, signal.SIGKILL)
    await _until(lambda: keeper.state == "waiting")
    assert leftovers.find(kept.home) == []


async def test_a_frozen_process_can_be_halted(kept: Kept) -> None:
    keeper = kept.keeper(SERVES)
    await keeper.start()
    pid = keeper.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await keeper.halt()
    assert not _alive(pid)
    assert time.monotonic() - began < 1.5


async def test_a_process_deaf_to_the_stop_signal_is_killed(kept: Kept) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVES
    keeper = kept.keeper(deaf)
    await keeper.start()
    await keeper.halt()
    assert keeper.pid is None
    assert kept.reports == ["thing did not stop in time and was killed"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent_however_that_ends(
    tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert leftovers.find(tmp_path) == [child]
        parent.send_signal(number)
        parent.wait()
    deadline = time.monotonic() + 5
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def test_leftovers_are_those_of_one_stack_only(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "mine2"
    null = subprocess.DEVNULL
    first = spawn(_program(mine, "sleep", "100"), null, null)
    second = spawn(_program(other, "sleep", "100"), null, null)
    try:
        os.kill(first.pid, signal.SIGSTOP)
        assert leftovers.sweep(mine) == [first.pid]
        assert first.wait(5) == -signal.SIGINT
        assert leftovers.find(other) == [second.pid]
    finally:
        first.kill()
        second.kill()
        second.wait()


async def test_one_shots_report_their_last_line(tmp_path: Path) -> None:
    done = await run_once(_program(tmp_path, "cat"), "copy", stdin="given\n")
    assert (done.code, done.stdout) == (0, "given\n")
    failing = _program(tmp_path, "sh", "-c", "echo noise >&2; echo 'the reason' >&2; exit 3")
    with pytest.raises(StackError, match="thing failed: the reason"):
        await run_once(failing, "thing")
    with pytest.raises(StackError, match=r"slow did not end within 0\.2 s"):
        await run_once(_program(tmp_path, "sleep", "100"), "slow", seconds=0.2)
    with pytest.raises(StackError, match="cannot start no-such-program: No such file"):
        await run_once(_program(tmp_path, "no-such-program"), "thing")
    assert leftovers.find(tmp_path) == []


async def test_a_cancelled_one_shot_leaves_nothing(tmp_path: Path) -> None:
    running = asyncio.create_task(run_once(_program(tmp_path, "sleep", "100"), "slow"))
    await _until(lambda: leftovers.find(tmp_path))
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert leftovers.find(tmp_path) == []


def test_a_full_disk_in_a_programs_words_becomes_our_line() -> None:
    said = "creating files ...\ninitdb: error: could not write: No space left on device\nremoving"
    assert last_words(said).startswith("the disk of the state directory is full; free some space")
    assert last_words("\n\n") == "it printed nothing"


@pytest.mark.parametrize(
    ("said", "telling"),
    [
        ("LOG: starting\nFATAL: no memory\nLOG: shut down", "FATAL: no memory"),
        ("Traceback ...\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("one\ntwo\n", "two"),
        ("no errors so far\nbye", "bye"),
    ],
)
def test_the_line_that_names_an_error_is_quoted(said: str, telling: str) -> None:
    assert last_words(said) == telling


async def test_children_know_no_settings_but_those_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_REDIS_URL", "redis://elsewhere")
    program = Program(("env",), tmp_path, environment={"TENANTRY_HOME": "/here"})
    text = (await run_once(program, "env")).stdout
    assert "TENANTRY_HOME=/here" in text
    assert "TENANTRY_REDIS_URL" not in text


async def test_steps_wait_only_for_those_they_name() -> None:
    seen: list[str] = []
    gate = asyncio.Event()

    async def slow() -> None:
        await gate.wait()
        seen.append("slow")

    async def quick() -> None:
        seen.append("quick")
        gate.set()

    async def last() -> None:
        seen.append("last")

    reports: list[str] = []
    steps = [Step("last", last, ("slow",)), Step("slow", slow), Step("quick", quick)]
    async with asyncio.timeout(5):
        await run_steps(steps, reports.append)
    assert seen == ["quick", "slow", "last"]
    assert [report.split(" (")[0] for report in reports] == seen


async def test_a_failing_step_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def patient() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def failing() -> None:
        raise StackError("no")

    with pytest.raises(ExceptionGroup):
        await run_steps([Step("patient", patient), Step("failing", failing)], print)
    assert cancelled.is_set()
    with pytest.raises(StackError, match="waits for nothing"):
        await run_steps([Step("x", failing, ("nothing",))], print)


def test_only_one_holds_the_lock_and_it_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock.holder(path) is None
    held = lock.take(path)
    assert held is not None
    script = f"from deploy.local import lock; from pathlib import Path; x = Path({str(path)!r}); "
    ask = "print(lock.take(x), lock.holder(x), lock.wait_free(x, 0.1))"
    command = [sys.executable, "-c", script + ask]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.split() == ["None", str(os.getpid()), "False"]
    held.close()
    assert lock.holder(path) is None


async def test_a_probe_of_the_log_sees_only_this_launch(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("worker ready\n")
    probe = log_line(r"worker\S* ready")
    assert await probe(Launch(1, log, 0))
    assert not await probe(Launch(1, log, log.stat().st_size))
