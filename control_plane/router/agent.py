"""The agent beside one PgBouncer process: ``python -m control_plane.router.agent [--init]``.

It makes PgBouncer serve the routes that the catalog wants, reads back that it does, and
acknowledges the version served. While the catalog is away, what was served goes on being served.
"""

import asyncio
import logging
import signal
import sys
import time

import structlog

from control_plane.catalog.pool import Catalog
from control_plane.config import PoolerSettings, Settings, SettingsError, pooler_from_environment
from control_plane.domain.errors import CatalogUnavailable, PoolerUnavailable, TenantryError
from control_plane.router.catalog_link import CatalogLink, PoolerState
from control_plane.router.pauses import PauseOrder, Pauses
from control_plane.router.pgbouncer_config import Unrenderable
from control_plane.router.pool_meter import PoolMeter
from control_plane.router.pooler import LocalPooler, Rendered
from control_plane.router.route_table import RouteTable
from control_plane.router.waiting import Backoff, happens, rest

HEARTBEAT_SECONDS = 2.0
LOOK_SECONDS = 0.25
DRIFT_SECONDS = 5.0

log = structlog.get_logger()


class Agent:
    """One catalog follower and one watch over PgBouncer, sharing what is wanted and served."""

    def __init__(self, settings: PoolerSettings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._pooler = LocalPooler(settings)
        self._pauses = Pauses(self._pooler.console, self._pooler.files, self._acknowledge)
        self._table = RouteTable()
        self._link: CatalogLink | None = None
        self._wake = asyncio.Event()
        self._applying = asyncio.Lock()
        self._wanted: Rendered | None = None
        self._refused: list[str] = []
        self._served_version = -1
        self._session: int | None = None
        self._version: str | None = None
        self._away: str | None = "PgBouncer has not answered yet"
        self._problem: str | None = None
        self._notice: str | None = None
        self._failed: tuple[Rendered, int] | None = None
        self._retry = Backoff(1.0, 10.0)
        self._retry_at = 0.0
        self._meter = PoolMeter()
        self._metered = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set.

        Raises:
            Exception: a bug; whoever keeps this process running starts it again.
        """
        self._pauses.adopt()
        work = {
            asyncio.create_task(self._follow_catalog(), name="follow catalog"),
            asyncio.create_task(self._watch_pgbouncer(), name="watch pgbouncer"),
        }
        stop = asyncio.create_task(stopping.wait())
        ended, _ = await asyncio.wait({*work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if self._link is not None:
            self._link.hang_up()
        for task in (*work, stop):
            task.cancel()
        await asyncio.wait({*work, stop})
        await self._pauses.close()
        await self._pooler.console.close()
        for task in ended - {stop}:
            task.result()

    async def _follow_catalog(self) -> None:
        backoff = Backoff(1.0, 10.0)
        while True:
            try:
                async with CatalogLink.open(
                    self._catalog, self._settings, self._wake.set
                ) as self._link:
                    log.info("catalog_followed", cell=self._settings.cell)
                    while True:
                        await self._take_turn(self._link)
                        backoff.reset()
            except TenantryError as error:
                log.warning("catalog_away", problem=error.message)
            except Exception:
                log.exception("catalog_not_understood")
            finally:
                self._link = None
            await rest(backoff.grow())

    async def _take_turn(self, link: CatalogLink) -> None:
        """Read, apply, acknowledge; then wait for a change, but no longer than a heartbeat."""
        self._wake.clear()
        changed = self._table.merge(await link.read(self._table.version))
        if changed:
            self._render()
        await self._apply()
        await self._report(link)
        await self._report_usage(link)
        await rest(max(0.0, self._pooler.quiet_from - time.monotonic()))
        await happens(self._wake, HEARTBEAT_SECONDS)

    def _render(self) -> None:
        kept, self._refused = self._table.servable()
        try:
            self._wanted = self._pooler.render(kept, self._table.authorities)
        except Unrenderable as error:
            self._wanted = None
            self._refused.append(f"nothing new is served: {error}")
        for line in self._refused:
            log.error("not_rendered", problem=line)

    async def _apply(self) -> None:
        """Make PgBouncer serve what is wanted, then begin and end the pauses that are wanted."""
        async with self._applying:
            wanted, version, pauses = self._wanted, self._table.version, dict(self._table.pauses)
            if wanted is None:
                return
            if not self._pooler.serves(wanted) and not await self._serve(wanted, version):
                return
            if self._session != self._pooler.console.session:
                self._session = self._pooler.console.session
                await self._pauses.after_restart()
            self._pauses.follow(pauses)
            self._served_version = version

    async def _serve(self, wanted: Rendered, version: int) -> bool:
        attempt = (wanted, self._pooler.console.session)
        if attempt == self._failed and time.monotonic() < self._retry_at:
            return False
        try:
            await self._pooler.serve(wanted)
        except PoolerUnavailable as error:
            self._problem = error.message
            self._failed = (wanted, self._pooler.console.session)
            self._retry_at = time.monotonic() + self._retry.grow()
            log.warning("not_served", version=version, problem=error.message)
            return False
        self._problem = self._failed = None
        self._retry.reset()
        log.info(
            "served",
            version=version,
            entries=len(wanted.entries),
            reload_ms=round(self._pooler.reload_seconds * 1000, 2),
        )
        return True

    async def _report(self, link: CatalogLink) -> None:
        if self._away is not None:
            await link.lost(self._away)
            return
        served = self._pooler.served
        problems = [p for p in (self._problem, self._notice, *self._refused) if p]
        await link.beat(
            PoolerState(
                version=self._version,
                served_version=self._served_version,
                entries=len(served.entries) if served else 0,
                digest=served.digest if served else None,
                problem="; ".join(problems) or None,
            )
        )
        self._notice = None

    async def _report_usage(self, link: CatalogLink) -> None:
        """What PgBouncer did for each tenant; what cannot be read now is told the next time."""
        if time.monotonic() - self._metered < self._settings.usage_seconds:
            return
        self._metered = time.monotonic()
        console = self._pooler.console
        try:
            stats, pools = await console.stats(), await console.pools()
        except PoolerUnavailable:
            return  # the watch over PgBouncer tells it
        found = self._meter.read(stats, pools, self._table.tenants)
        if found:
            await link.report_usage(found)

    async def _watch_pgbouncer(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                await self._look()
                if time.monotonic() - looked > DRIFT_SECONDS:
                    looked = time.monotonic()
                    await self._look_for_drift()
            except PoolerUnavailable as error:
                if self._away is None:
                    log.warning("pgbouncer_away", problem=error.message)
                    self._wake.set()
                self._away = error.message
            await rest(LOOK_SECONDS)

    async def _look(self) -> None:
        self._version = await self._pooler.console.version()
        if self._settings.pulse_file is not None:
            self._settings.pulse_file.touch()
        if self._away is not None:
            log.info("pgbouncer_answers", version=self._version)
            self._away = None
            self._wake.set()
        if self._session != self._pooler.console.session:
            await self._apply()
            if self._session == self._pooler.console.session:
                self._wake.set()

    async def _look_for_drift(self) -> None:
        async with self._applying:
            found = await self._pooler.drift()
        if found:
            log.error("drift", problem=found)
            self._notice = found
            await self._apply()
            self._wake.set()

    async def _acknowledge(self, order: PauseOrder) -> None:
        if self._link is None:
            raise CatalogUnavailable("the catalog does not answer")
        await self._link.acknowledge(order)


async def _serve_until_signal(settings: PoolerSettings, catalog: Catalog) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    log.info("agent_started", pooler=settings.name, cell=settings.cell, port=settings.port)
    await Agent(settings, catalog).run(stopping)
    log.info("agent_stopped", pooler=settings.name)


def _log_as_json() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(),
    )
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def main(arguments: list[str]) -> int:
    """Entry point: 0 done or stopped when asked to, 1 a file cannot be written, 2 misused."""
    _log_as_json()
    if arguments not in ([], ["--init"]):
        sys.stderr.write("agent: usage: python -m control_plane.router.agent [--init]\n")
        return 2
    try:
        settings = pooler_from_environment()
        if arguments:
            log.info("files_prepared", written=LocalPooler(settings).prepare())
            return 0
        catalog = Catalog(Settings.from_environment())
        asyncio.run(_serve_until_signal(settings, catalog))
    except SettingsError as error:
        sys.stderr.write(f"agent: {error}\n")
        return 2
    except (PoolerUnavailable, Unrenderable) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
