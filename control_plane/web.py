"""The API and the console as one process.

``uvicorn control_plane.web:create_app --factory --no-proxy-headers``
"""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from control_plane.api.app import build_app
from control_plane.bootstrap import make_ports
from control_plane.config import Settings, SettingsError
from control_plane.console.app import PREFIX, build_console
from control_plane.domain.errors import KeyUnavailable
from control_plane.services.changes import Changes
from control_plane.services.ports import Ports


class Web:
    """Two applications on one port; the API's lifespan is that of both."""

    def __init__(self, api: ASGIApp, console: ASGIApp) -> None:
        self._api = api
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and _for_people(scope["path"]):
            await self._console(scope, receive, send)
        else:
            await self._api(scope, receive, send)


def create_app() -> Web:
    """The applications of this process's environment; one line and exit 1 when that is wrong."""
    try:
        return build_web(make_ports(Settings.from_environment()))
    except (SettingsError, KeyUnavailable) as error:
        raise SystemExit(f"api: {error}") from error


def build_web(ports: Ports) -> Web:
    """Both applications on these ports."""
    changes = Changes(ports.catalog)
    return Web(build_app(ports, changes), build_console(ports, changes))


def _for_people(path: str) -> bool:
    return path in ("/", PREFIX) or path.startswith(f"{PREFIX}/")
