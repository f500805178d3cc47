"""The console: pages for people, on the same services as the API."""

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.logging.config import StructLoggingConfig
from litestar.middleware.logging import LoggingMiddlewareConfig
from litestar.plugins.prometheus import PrometheusConfig
from litestar.plugins.structlog import StructlogConfig, StructlogPlugin
from litestar.static_files import create_static_files_router
from litestar.types import ControllerRouterHandler

from control_plane.console import access, problems
from control_plane.console.action_pages import action_pages
from control_plane.console.audit import AuditPages
from control_plane.console.backups import BackupPages, DrillPages
from control_plane.console.bulk import BulkPages
from control_plane.console.enrolment import EnrolmentPages
from control_plane.console.exports import ExportPages
from control_plane.console.front import Front, Nowhere
from control_plane.console.handover import HandoverPages
from control_plane.console.headers import BindRequestId, add_headers
from control_plane.console.holds import HoldPages
from control_plane.console.inside import InsidePages
from control_plane.console.keys import KeyPages
from control_plane.console.operations import OperationPages
from control_plane.console.overview import OverviewPages
from control_plane.console.people import PeoplePages
from control_plane.console.provider import ProviderPages
from control_plane.console.provision import HandOverPages, ProvisionPages
from control_plane.console.rendering import STATIC
from control_plane.console.rollout_start import RolloutStartPages
from control_plane.console.rollouts import RolloutPages
from control_plane.console.servers import ServerPages
from control_plane.console.sign_in import SignInPages
from control_plane.console.tenants import TenantPages
from control_plane.console.visits import DEPENDENCIES, Desk, Limits
from control_plane.services.changes import Changes
from control_plane.services.limiting import Limiter
from control_plane.services.ports import Ports

PREFIX = "/console"
_BODY_BYTES = 64 * 1024
# One attempt to sign in to an account is allowed per so many requests; per address, five.
_SIGN_IN_SHARE = 600
_REVEAL_SHARE = 100
_AN_ADDRESS = 5

# Every page of the console. A page says in ``opt`` who may see it.
PAGES: list[ControllerRouterHandler] = [
    SignInPages,
    ProviderPages,
    OverviewPages,
    TenantPages,
    HandoverPages,
    HoldPages,
    ExportPages,
    InsidePages,
    PeoplePages,
    OperationPages,
    ProvisionPages,
    BulkPages,
    ServerPages,
    EnrolmentPages,
    BackupPages,
    DrillPages,
    RolloutPages,
    RolloutStartPages,
    AuditPages,
    KeyPages,
    HandOverPages,
    *action_pages(),
    Nowhere,
]


def build_console(ports: Ports, changes: Changes) -> Litestar:
    """The application on these ports; whoever serves it opens and closes the catalog.

    Raises:
        RuntimeError: a page does not say who may see it.
    """
    app = Litestar(
        route_handlers=[Front, _pages(), _static()],
        middleware=[
            BindRequestId(),
            PrometheusConfig(app_name="tenantry", prefix="tenantry", group_path=True).middleware,
        ],
        plugins=[_logging()],
        exception_handlers=problems.HANDLERS,
        before_send=[add_headers],
        after_exception=[access.audit_refusal],
        openapi_config=None,
        request_max_body_size=_BODY_BYTES,
        state=State({"desk": Desk(ports, changes, _limits(ports))}),
        debug=False,
    )
    access.require_decisions(app)
    return app


def _pages() -> Router:
    return Router(
        PREFIX,
        route_handlers=PAGES,
        middleware=[access.SessionAuthentication],
        guards=[access.require_session, access.check_form, access.check_role],
        dependencies=DEPENDENCIES,
    )


def _static() -> Router:
    return create_static_files_router(
        f"{PREFIX}/static", directories=[STATIC], opt={"static": True}, include_in_schema=False
    )


def _limits(ports: Ports) -> Limits:
    requests = ports.settings.rate_limit_per_minute
    attempts = max(requests // _SIGN_IN_SHARE, 1)
    return Limits(
        accounts=Limiter(attempts),
        addresses=Limiter(attempts * _AN_ADDRESS),
        reveals=Limiter(requests // _REVEAL_SHARE),
    )


def _logging() -> StructlogPlugin:
    """One JSON line per request: id, method, path and status; no query, body or header (S-22)."""
    return StructlogPlugin(
        StructlogConfig(
            structlog_logging_config=StructLoggingConfig(
                log_exceptions="never", pretty_print_tty=False
            ),
            middleware_logging_config=LoggingMiddlewareConfig(
                request_log_fields=[],
                response_log_fields=["status_code"],
                response_log_message="answered",
                exclude=["^/console/static"],
                exclude_opt_key="quiet",
            ),
        )
    )
