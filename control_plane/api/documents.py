"""The OpenAPI document: declared errors, exact schemas, and an offline page to read it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.routes import HTTPRoute
from litestar._openapi.plugin import OpenAPIPlugin

from control_plane.api.problems import MEDIA_TYPE, ProblemDocument
from control_plane.domain.keys import PERMISSIONS

STATIC = Path(__file__).parent / "static"
ASSETS = "/assets"
_BEARER = "apiKey"
_MEANINGS = {
    400: "The request cannot be read",
    401: "No key, an unknown, expired or revoked key",
    403: "The key has not got the role",
    404: "There is no such thing, or it is not for this key to know",
    409: "The present state does not allow it",
    413: "The body is too large",
    422: "The request is not acceptable; `errors` names the fields",
    429: "Too many requests; see Retry-After",
    500: "A fault of ours",
    503: "Something it needs does not answer; see Retry-After",
}
_EVERYWHERE = (400, 401, 403, 422, 429, 500, 503)


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Responses of a /v1 operation: those every one has and these, as problem documents."""
    return {
        status: ResponseSpec(
            data_container=ProblemDocument,
            description=_MEANINGS[status],
            media_type=MEDIA_TYPE,
            generate_examples=False,
        )
        for status in sorted({*_EVERYWHERE, *statuses})
    }


class OfflineUi(OpenAPIRenderPlugin):
    """RapiDoc from our own files: nothing is fetched from anywhere else."""

    def __init__(self) -> None:
        super().__init__(path="/", favicon="", style="")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page that reads the document in the browser."""
        page = (STATIC / "schema.html").read_text()
        title = str(openapi_schema["info"]["title"])
        page = page.replace("{title}", title).replace("{assets}", ASSETS)
        return page.replace("{document}", self.get_openapi_json_route(request)).encode()


def openapi_config() -> OpenAPIConfig:
    """OpenAPI 3.1 under /schema."""
    return OpenAPIConfig(
        title="Tenantry",
        version=version("tenantry"),
        description=(
            "Gives every tenant its own Postgres database. Long work answers 202 with an "
            "operation; errors are problem documents (RFC 9457); lists page with `limit` and "
            "`cursor`; changes take an `Idempotency-Key`."
        ),
        components=Components(
            security_schemes={
                _BEARER: SecurityScheme(
                    type="http", scheme="bearer", description="An API key: tnk_…"
                )
            }
        ),
        security=[{_BEARER: []}],
        use_handler_docstrings=True,
        render_plugins=[OfflineUi()],
        path="/schema",
        tags=[Tag(name=name) for name in ("tenants", "operations", "servers", "access", "health")],
    )


def finish(app: Litestar, structs: list[type[msgspec.Struct]]) -> None:
    """Make the document exact, and refuse operations that nobody decided about.

    The framework loses some constraints of our structs (closed objects, constraints of optional
    fields), so that their schemas are taken from msgspec, which also does the validation.

    Raises:
        RuntimeError: an operation under /v1 has no row in ``PERMISSIONS``.
    """
    document = app.openapi_schema
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    cast("dict[str, Any]", document.components.schemas).update(schemas)
    for handler in _handlers(app):
        if handler.operation_id not in PERMISSIONS:
            raise RuntimeError(f"{handler} ({handler.operation_id}) is not in PERMISSIONS")
    for path_item in (document.paths or {}).values():
        for operation in (path_item.get, path_item.post, path_item.delete):
            if operation is not None:
                _tidy(operation)


def _handlers(app: Litestar) -> list[HTTPRouteHandler]:
    return [
        handler
        for route in app.routes
        if isinstance(route, HTTPRoute) and route.path.startswith("/v1/")
        for handler in route.route_handlers
        if handler.http_methods != {"OPTIONS"}
    ]
