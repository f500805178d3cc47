"""``/metrics``: counts and times of requests, and the fleet's backups in numbers."""

import asyncio
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, get_args

import structlog
from litestar import Request, Response, get
from litestar.plugins.prometheus import PrometheusController
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from control_plane.api.context import process_of
from control_plane.catalog import backup_watch
from control_plane.catalog.backup_watch import Figures, TierFigures
from control_plane.domain.backups import BackupState
from control_plane.domain.errors import CatalogUnavailable
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_FRESH_SECONDS = 10.0
_END = b"# EOF\n"
# By the fields of TierFigures.
_OF_TIERS = {
    "tenants": ("backup_tenants", "Tenants that are backed up by schedule"),
    "breached": ("backup_rpo_breached_tenants", "Tenants whose newest backup is too old"),
    "waiting": ("backup_waiting_tenants", "Tenants whose backup is due and has not begun"),
    "undrilled": ("drill_undrilled_tenants", "Tenants of which no backup was ever proven"),
    "oldest_backup": ("backup_oldest_seconds", "Greatest age of a tenant's newest backup"),
    "oldest_drill": ("drill_oldest_seconds", "Greatest age of a tenant's newest proof"),
}


class Metrics(PrometheusController):
    """Open like /health, and without a name in it.

    Whichever process is asked, the numbers about backups are the catalog's; they are missing while
    it does not answer.
    """

    include_in_schema = False
    openmetrics_format = True
    _read_at = -_FRESH_SECONDS
    _figures: Figures | None = None

    @get()
    async def get(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The numbers of this process and of the catalog in the format of OpenMetrics."""
        of_process: Response[bytes] = await PrometheusController.get.fn(self)
        await self._refresh(process_of(request).ports)
        registry = CollectorRegistry()
        registry.register(_BackupMetrics(self._figures))
        text = of_process.content.removesuffix(_END) + generate_latest(registry)  # type: ignore[no-untyped-call]
        return Response(text, status_code=HTTPStatus.OK, headers=of_process.headers)

    async def _refresh(self, ports: Ports) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._read_at < _FRESH_SECONDS:
            return
        try:
            async with ports.catalog.connection() as db:
                self._figures = await backup_watch.figures(db)
        except CatalogUnavailable as error:
            _log.warning("figures_unavailable", error=error.message)
            self._figures = None
        self._read_at = now


class _BackupMetrics(Collector):
    """The figures as gauges, with no labels but states and tiers."""

    def __init__(self, figures: Figures | None) -> None:
        self._figures = figures

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return _families(self._figures) if self._figures is not None else ()


def _families(figures: Figures) -> Iterator[GaugeMetricFamily]:
    states = GaugeMetricFamily("tenantry_backups", "Backups on record", labels=["state"])
    for state in get_args(BackupState):
        states.add_metric([state], figures.backups.get(state, 0))
    yield states
    for field, (name, words) in _OF_TIERS.items():
        yield _of_tiers(f"tenantry_{name}", words, field, figures.tiers)
    yield GaugeMetricFamily(
        "tenantry_backup_planning_seconds",
        "Seconds since the queue of backups was looked at",
        value=figures.planned,
    )


def _of_tiers(name: str, words: str, field: str, tiers: Iterable[TierFigures]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=["tier"])
    for one in tiers:
        value = getattr(one, field)
        if value is not None:
            family.add_metric([one.tier], value)
    return family
