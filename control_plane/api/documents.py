"""The OpenAPI document: declared errors, exact schemas, and an offline page to read it."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
    Tag,
)
from litestar.openapi.spec.enums import OpenAPIType
from litestar.routes import HTTPRoute

from control_plane.api.handlers import is_options, operation_of
from control_plane.api.problems import MEDIA_TYPE, ProblemDocument
from control_plane.api.words import NAME_OR_ID
from control_plane.domain.keys import PERMISSIONS

STATIC = Path(__file__).parent / "static"
ASSETS = "/assets"
_BEARER = "apiKey"
SECURITY: tuple[dict[str, list[str]], ...] = ({_BEARER: []},)
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
_RULES = (
    *("pattern", "format", "min_length", "max_length"),
    *("minimum", "exclusive_minimum", "maximum"),
)
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
        use_handler_docstrings=True,
        render_plugins=[OfflineUi()],
        path="/schema",
        tags=[
            Tag(name=name)
            for name in ("tenants", "backups", "usage", "operations", "servers", "access", "health")
        ],
    )


def finish(app: Litestar) -> None:
    """Make the document exact, and refuse operations that nobody decided about.

    The framework loses some constraints of our structs (closed objects, constraints of optional
    fields), so that their schemas are taken from msgspec, which also does the validation.

    Raises:
        RuntimeError: an operation under /v1 has no row in ``PERMISSIONS``.
    """
    document = app.openapi_schema
    described = [handler for handler in _handlers(app) if handler.resolve_include_in_schema()]
    _, schemas = msgspec.json.schema_components(
        {struct for handler in described for struct in _structs(handler)},
        ref_template="#/components/schemas/{name}",
    )
    cast("dict[str, Any]", document.components.schemas).update(schemas)
    operations = {
        operation.operation_id: operation
        for item in (document.paths or {}).values()
        for operation in (item.get, item.post, item.put, item.delete)
        if operation is not None
    }
    for handler in described:
        operation = operations[operation_of(handler)]
        operation.summary = _words(operation_of(handler))
        handler.opt["query"] = _tidy_parameters(operation)
        data = handler.parsed_fn_signature.parameters.get("data")
        if isinstance(operation.request_body, RequestBody) and data and data.has_default:
            operation.request_body.required = False


def _handlers(app: Litestar) -> list[HTTPRouteHandler]:
    """Every handler, once the /v1 ones are known to be in the table of permissions."""
    found = []
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            ours = route.path.startswith("/v1/") and not is_options(handler)
            if ours and operation_of(handler) not in PERMISSIONS:
                raise RuntimeError(f"{route.path}: {handler} has no row in PERMISSIONS")
            found.append(handler)
    return found


def _structs(handler: HTTPRouteHandler) -> Iterator[type[msgspec.Struct]]:
    """The structs that an operation takes and answers with."""
    signature = handler.parsed_fn_signature
    fields = [signature.return_type, *signature.return_type.inner_types]
    if data := signature.parameters.get("data"):
        fields += [data, *data.inner_types]
    annotations = [field.annotation for field in fields]
    annotations += [spec.data_container for spec in (handler.responses or {}).values()]
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            yield annotation


def _words(operation_id: str) -> str:
    """``createTenant`` as people read it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", operation_id).capitalize()


def _tidy_parameters(operation: Operation) -> frozenset[str]:
    """Describe the parameters as they are; the names of those in the query are returned."""
    names = set()
    for parameter in operation.parameters or []:
        if not isinstance(parameter, Parameter) or not isinstance(parameter.schema, Schema):
            continue
        if parameter.param_in == "query":
            names.add(parameter.name)
        if parameter.param_in == "path":
            parameter.schema.pattern = NAME_OR_ID
        parameter.schema = _never_null(parameter.schema)
    return frozenset(names)


def _never_null(schema: Schema) -> Schema:
    """A parameter may be left out but cannot be ``null``, which the framework adds for defaults."""
    if schema.enum and None in schema.enum:
        schema.enum = [value for value in schema.enum if value is not None]
        schema.type = OpenAPIType.STRING
    kinds = [one for one in schema.one_of or [] if isinstance(one, Schema)]
    kinds = [kind for kind in kinds if kind.type != OpenAPIType.NULL]
    if len(kinds) != 1:
        return schema
    # What limits the value is told beside the two kinds, and belongs to the one that is left.
    for rule in _RULES:
        if getattr(kinds[0], rule) is None:
            setattr(kinds[0], rule, getattr(schema, rule))
    return kinds[0]
