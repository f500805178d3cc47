"""What every test may use: one running stack for the whole session, its API and its CLI."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from control_plane.domain.tenants import TIERS
from deploy.local.layout import Layout
from deploy.local.logs import log_since
from deploy.local.options import StackOptions
from deploy.local.stack import Stack

MARKERS = {"integration": "integration", "e2e": "integration", "crash": "crash"}
# Minutes each, together most of a whole run: they run with --long, or when they are named.
LONG = (
    "crash",
    "integration/catalog_life",
    "integration/console",
    "integration/deploy",
    "integration/limited",
    "integration/moves",
    "integration/providers",
    "integration/query_budget",
    "integration/restores",
    "integration/test_by_hand.py",
    "integration/test_lifecycle.py",
    "integration/test_restores.py",
    "integration/test_rollouts.py",
)
TESTS = Path(__file__).parent
# Of a run in two halves the second: about as long as everything else.
SECOND_HALF = (
    "architecture",
    "crash",
    "integration/catalog_life",
    "integration/moves",
    "integration/query_budget",
    "unit",
)
SHOWN_LOG_CHARACTERS = 6_000
SETTLES_SECONDS = 120.0
_HOME = pytest.StashKey[Path]()
_OFFSETS = pytest.StashKey[dict[Path, int]]()

# A test server may lose its data with the machine, but not with its process: that is tested.
FAST_POSTGRES = {"fsync": "off", "full_page_writes": "off"}
FAST_TENANTRY = {
    "TENANTRY_LEASE_SECONDS": "2",
    "TENANTRY_SWEEP_SECONDS": "0.5",
    "TENANTRY_RETRY_CAP_SECONDS": "1",
    "TENANTRY_POOL_TARGET": "2",
    "TENANTRY_USAGE_SECONDS": "2",
    "TENANTRY_RATE_LIMIT_PER_MINUTE": "1000000",
}


@dataclass(frozen=True)
class CliResult:
    """What one run of ``tenantry`` left."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Cli:
    """Runs ``tenantry`` as a person would, against one API."""

    url: str
    token: str

    def __call__(
        self, *arguments: str, environment: Mapping[str, str] | None = None, stdin: str = ""
    ) -> CliResult:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("tenantry")), *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=120,
            env={
                **inherited,
                "TENANTRY_URL": self.url,
                "TENANTRY_TOKEN": self.token,
                **(environment or {}),
            },
        )
        return CliResult(ended.returncode, ended.stdout, ended.stderr)


def pytest_configure() -> None:
    """A run in the background of a shell is born ignoring SIGINT; what it starts must not be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long tests as well")
    parser.addoption("--half", choices=("first", "second"), help="run a half of the tests only")
    parser.addoption("--doubled", action="store_true", help="on a stack with two of everything")
    words = "administrators are no superusers on Postgres 16 and newer"
    parser.addoption("--limited", action="store_true", help=words)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark a test by its place, so that nobody forgets; leave out the long ones nobody named."""
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0]
        if kind in MARKERS:
            item.add_marker(getattr(pytest.mark, MARKERS[kind]))
        if _is_in(item, LONG):
            item.add_marker(pytest.mark.long)
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if everything and not config.option.long:
        _leave_out(config, items, lambda item: _is_in(item, LONG))
    if half := config.option.half:
        _leave_out(config, items, lambda item: _is_in(item, SECOND_HALF) != (half == "second"))


def _is_in(item: pytest.Item, places: tuple[str, ...]) -> bool:
    return any(item.path.relative_to(TESTS).is_relative_to(place) for place in places)


def _leave_out(
    config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], bool]
) -> None:
    config.hook.pytest_deselected(items=[item for item in items if unwanted(item)])
    items[:] = [item for item in items if not unwanted(item)]


@pytest.fixture(scope="session")
def stack_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A new state directory that the account of the database servers can enter."""
    home = Path(tempfile.mkdtemp(prefix="tenantry-test-", dir="/tmp"))
    request.config.stash[_HOME] = home
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def stack(stack_home: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The whole stack on free ports, started once; it goes when the test run goes."""
    failpoints = stack_home.with_name(f"{stack_home.name}-failpoints")
    failpoints.mkdir()
    laboratory = stack_home.with_name(f"{stack_home.name}-lab")
    shutil.copytree(TESTS / "templates" / "lab", laboratory)
    started = Stack(
        StackOptions(
            home=stack_home,
            attached=True,
            demo=False,
            doubled=request.config.option.doubled,
            limited=request.config.option.limited,
            postgres_settings=FAST_POSTGRES,
            environment={
                **FAST_TENANTRY,
                "TENANTRY_FAILPOINT_DIR": str(failpoints),
                "TENANTRY_TEMPLATES": f"lab={laboratory}",
            },
        )
    )
    try:
        started.start()
        rest_from_schedules(started)
        yield started
        assert findings_at_rest(started) == []
    finally:
        started.stop()
        shutil.rmtree(failpoints)
        shutil.rmtree(laboratory)


def rest_from_schedules(stack: Stack) -> None:
    """No tier's slot comes while tests run: what they do not ask for does not happen."""
    headers = {"Authorization": f"Bearer {stack.layout.token.read_text().strip()}"}
    yearly = {"cron": "0 0 1 1 *", "rpo_minutes": 576_000}
    with httpx.Client(base_url=stack.facts()["api_url"], headers=headers) as api:
        for tier in TIERS:
            api.put(f"/v1/backup-policies/{tier}", json=yearly).raise_for_status()


def findings_at_rest(stack: Stack) -> list[str]:
    """What ``tenantry check`` finds once every operation is over."""
    headers = {"Authorization": f"Bearer {stack.layout.token.read_text().strip()}"}
    with httpx.Client(base_url=stack.facts()["api_url"], headers=headers, timeout=90) as api:
        deadline = time.monotonic() + SETTLES_SECONDS
        while any(
            api.get("/v1/operations", params={"state": state}).json()["items"]
            for state in ("pending", "running", "waiting", "cancelling")
        ):
            assert time.monotonic() < deadline, "operations are still alive after all tests"
            time.sleep(0.3)
        return [str(finding) for finding in api.get("/v1/check").json()["findings"]]


@pytest.fixture(scope="session")
def failpoints(stack: Stack) -> Path:
    """The directory in which a file arms a crash point of the session's stack."""
    return Path(stack.options.environment["TENANTRY_FAILPOINT_DIR"])


@pytest.fixture(scope="session")
def token(stack: Stack) -> str:
    """The key of the session's stack with every role."""
    return stack.layout.token.read_text().strip()


@pytest.fixture(scope="session")
def cli(stack: Stack, token: str) -> Cli:
    return Cli(stack.facts()["api_url"], token)


@pytest.fixture
async def api(stack: Stack, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the session's API that shows the key with every role."""
    url = stack.facts()["api_url"]
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
async def catalog(stack: Stack) -> AsyncIterator[Any]:
    """A connection to the session's catalog, to look behind the API."""
    facts = stack.facts()["catalog"]
    connection = await asyncpg.connect(
        host=facts["host"],
        port=facts["port"],
        user=facts["user"],
        password=Path(facts["password_file"]).read_text().strip(),
        database=facts["database"],
    )
    yield connection
    await connection.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember how far the logs of the stack had come before this test."""
    item.stash[_OFFSETS] = {log: log.stat().st_size for log in _logs(item.config)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the stack logged during a test that failed."""
    report = yield
    if report.failed and "stack" in getattr(item, "fixturenames", ()):
        for log in _logs(item.config):
            written = log_since(log, item.stash[_OFFSETS].get(log, 0))
            if written:
                report.sections.append((f"log of {log.stem}", written[-SHOWN_LOG_CHARACTERS:]))
    return report


def _logs(config: pytest.Config) -> list[Path]:
    home = config.stash.get(_HOME, None)
    return sorted(Layout(home).logs.glob("*.log")) if home else []
