"""``/metrics``: counts and times of requests, and the fleet in numbers."""

import asyncio
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Request, Response, get
from litestar.plugins.prometheus import PrometheusController
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from control_plane.api.context import process_of
from control_plane.api.metric_families import backup_families, fleet_families
from control_plane.catalog import backup_watch, fleet_figures
from control_plane.domain.errors import CatalogUnavailable
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_FRESH_SECONDS = 10.0
_END = b"# EOF\n"
# As many tenants are told one by one: who uses most matters, and a label per tenant is too many.
TOP_TENANTS = 10


class Metrics(PrometheusController):
    """Open like /health, and without a tenant's name in it: the ones that use most are ids.

    Whichever process is asked, the numbers of the fleet are the catalog's; they are missing while
    it does not answer.
    """

    include_in_schema = False
    openmetrics_format = True
    _read_at = -_FRESH_SECONDS
    _families: Sequence[GaugeMetricFamily] = ()

    @get()
    async def get(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The numbers of this process and of the catalog in the format of OpenMetrics."""
        of_process: Response[bytes] = await PrometheusController.get.fn(self)
        await self._refresh(process_of(request).ports)
        registry = CollectorRegistry()
        registry.register(_Ready(self._families))
        text = of_process.content.removesuffix(_END) + generate_latest(registry)  # type: ignore[no-untyped-call]
        return Response(text, status_code=HTTPStatus.OK, headers=of_process.headers)

    async def _refresh(self, ports: Ports) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._read_at < _FRESH_SECONDS:
            return
        try:
            async with ports.catalog.connection() as db:
                backups = await backup_watch.figures(db)
                fleet = await fleet_figures.figures(db, most=TOP_TENANTS)
            self._families = (*backup_families(backups), *fleet_families(fleet))
        except CatalogUnavailable as error:
            _log.warning("figures_unavailable", error=error.message)
            self._families = ()
        self._read_at = now


class _Ready(Collector):
    """Families that were made already."""

    def __init__(self, families: Sequence[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return self._families
