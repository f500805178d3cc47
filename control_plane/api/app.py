"""The HTTP API as one application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Router
from litestar.logging.config import StructLoggingConfig
from litestar.middleware.logging import LoggingMiddlewareConfig
from litestar.plugins.prometheus import PrometheusConfig
from litestar.plugins.structlog import StructlogConfig, StructlogPlugin
from litestar.static_files import create_static_files_router

from control_plane.api import documents, problems
from control_plane.api.access import (
    KeyAuthentication,
    audit_refusal,
    check_names,
    check_permission,
    limit_rate,
    require_accepted,
)
from control_plane.api.audit import AuditController, AuditSealController
from control_plane.api.backup_schedules import BackupScheduleController
from control_plane.api.backups import BackupController
from control_plane.api.check import CheckController
from control_plane.api.context import DEPENDENCIES, Acceptance, Process
from control_plane.api.correlation import BindRequestId, add_request_id
from control_plane.api.credentials import CredentialController
from control_plane.api.doctor import DoctorController
from control_plane.api.drift import DriftController
from control_plane.api.encryption_keys import KeyRotationController, RekeyController
from control_plane.api.endings import EndingController
from control_plane.api.exports import ExportController, TenantExportController
from control_plane.api.field_keys import FieldKeyController
from control_plane.api.handlers import complete_allow, methods_by_path
from control_plane.api.health import HealthController
from control_plane.api.keys import KeyController
from control_plane.api.limits import make_limits
from control_plane.api.metrics import Metrics
from control_plane.api.migrations import MigrationController
from control_plane.api.moves import MoveController
from control_plane.api.operations import OperationController
from control_plane.api.people import PersonController
from control_plane.api.plans import PlanController
from control_plane.api.poolers import PoolerController
from control_plane.api.provided_servers import ProvidedServerController
from control_plane.api.restores import RestoreController
from control_plane.api.rollouts import RolloutController
from control_plane.api.servers import ServerController
from control_plane.api.tenant_limits import TenantLimitsController
from control_plane.api.tenants import TenantController
from control_plane.api.usage import NoisyController, UsageController
from control_plane.services.changes import Changes
from control_plane.services.ports import Ports

_BODY_BYTES = 64 * 1024
_POOL_SIZE = 16


def build_app(ports: Ports, changes: Changes | None = None) -> Litestar:
    """The application on these ports; its lifespan opens the catalog and hears of ``changes``.

    Raises:
        RuntimeError: an operation has no row in ``PERMISSIONS``.
    """
    app = Litestar(
        route_handlers=[_v1(), HealthController, Metrics, _assets()],
        middleware=[
            BindRequestId(),
            PrometheusConfig(app_name="tenantry", prefix="tenantry", group_path=True).middleware,
        ],
        plugins=[_logging(), problems.plugin()],
        before_send=[add_request_id, complete_allow],
        after_exception=[audit_refusal],
        lifespan=[_lifespan(ports, changes or Changes(ports.catalog))],
        openapi_config=documents.openapi_config(),
        request_max_body_size=_BODY_BYTES,
        debug=False,
    )
    documents.finish(app)
    app.state.methods = methods_by_path(app)
    return app


def _v1() -> Router:
    return Router(
        "/v1",
        route_handlers=[
            TenantController,
            EndingController,
            TenantExportController,
            ExportController,
            CredentialController,
            FieldKeyController,
            KeyRotationController,
            BackupController,
            BackupScheduleController,
            RestoreController,
            MigrationController,
            MoveController,
            NoisyController,
            TenantLimitsController,
            UsageController,
            RolloutController,
            OperationController,
            PlanController,
            ServerController,
            ProvidedServerController,
            PoolerController,
            AuditController,
            AuditSealController,
            KeyController,
            PersonController,
            RekeyController,
            CheckController,
            DoctorController,
            DriftController,
        ],
        middleware=[KeyAuthentication],
        guards=[limit_rate, check_permission, check_names, require_accepted],
        dependencies=DEPENDENCIES,
        security=documents.SECURITY,
    )


def _assets() -> Router:
    return create_static_files_router(
        documents.ASSETS, directories=[documents.STATIC], include_in_schema=False
    )


def _logging() -> StructlogPlugin:
    """One JSON line per request: id, method, path and status; no body, no header (S-22)."""
    return StructlogPlugin(
        StructlogConfig(
            structlog_logging_config=StructLoggingConfig(
                log_exceptions="never", pretty_print_tty=False
            ),
            middleware_logging_config=LoggingMiddlewareConfig(
                request_log_fields=[],
                response_log_fields=["status_code"],
                response_log_message="answered",
                exclude=["^/health", "^/metrics", "^/assets"],
                exclude_opt_key="quiet",
            ),
        )
    )


def _lifespan(ports: Ports, changes: Changes) -> Any:  # noqa: ANN401 - a lifespan manager, typed by its use
    @asynccontextmanager
    async def manage(app: Litestar) -> AsyncIterator[None]:
        await ports.catalog.open(max_size=_POOL_SIZE)
        limits = make_limits(ports.settings.rate_limit_per_minute)
        app.state.process = Process(ports, changes, limits, asyncio.Lock(), Acceptance())
        try:
            async with changes.running():
                yield
        finally:
            await ports.catalog.close()

    return manage
