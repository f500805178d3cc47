"""What our code asks of the framework's handlers."""

from collections import defaultdict

from litestar import Litestar
from litestar.datastructures import MutableScopeHeaders
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Message, Scope


def operation_of(handler: BaseRouteHandler) -> str:
    """The operationId of a handler, as in ``PERMISSIONS``."""
    found = handler.operation_id if isinstance(handler, HTTPRouteHandler) else None
    return found if isinstance(found, str) else ""


def is_options(handler: BaseRouteHandler) -> bool:
    """Whether it is the framework's answer to OPTIONS, which only tells the methods."""
    return isinstance(handler, HTTPRouteHandler) and handler.http_methods == {"OPTIONS"}


def methods_by_path(app: Litestar) -> dict[str, str]:
    """For each path of the application, its methods as the ``Allow`` header has them."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            found[route.path_format].update(*(h.http_methods for h in route.route_handlers))
    return {path: ", ".join(sorted(methods)) for path, methods in found.items()}


async def complete_allow(message: Message, scope: Scope) -> None:
    """A ``before_send`` hook: OPTIONS names every method of the path.

    The framework's own answer knows only the first handler that was registered on the path.
    """
    if message["type"] == "http.response.start" and scope.get("method") == "OPTIONS":
        known = scope["litestar_app"].state.methods.get(scope.get("path_template"))
        if known is not None:
            MutableScopeHeaders.from_message(message)["Allow"] = known
