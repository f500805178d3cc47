"""What our code asks of the framework's handlers."""

from litestar.handlers import BaseRouteHandler, HTTPRouteHandler


def operation_of(handler: BaseRouteHandler) -> str:
    """The operationId of a handler, as in ``PERMISSIONS``."""
    found = handler.operation_id if isinstance(handler, HTTPRouteHandler) else None
    return found if isinstance(found, str) else ""


def is_options(handler: BaseRouteHandler) -> bool:
    """Whether it is the framework's answer to OPTIONS, which only tells the methods."""
    return isinstance(handler, HTTPRouteHandler) and handler.http_methods == {"OPTIONS"}
