"""Whether this process lives, and whether it can work; open to everybody."""

from typing import Any, Literal

import msgspec
from litestar import Controller, Request, get
from litestar.openapi import ResponseSpec

from control_plane.api.context import process_of
from control_plane.api.problems import MEDIA_TYPE, ProblemDocument
from control_plane.services.health import look_around


class Alive(msgspec.Struct, frozen=True):
    status: Literal["ok"]


class Ready(msgspec.Struct, frozen=True):
    """``redis`` away costs seconds, not requests; ``listening``: watchers hear of changes."""

    status: Literal["ok"]
    catalog: Literal["ok"]
    redis: Literal["ok", "away"]
    listening: bool


_AWAY = ResponseSpec(
    data_container=ProblemDocument,
    description="The catalog does not answer",
    media_type=MEDIA_TYPE,
    generate_examples=False,
)


class HealthController(Controller):
    """For load balancers and supervisors."""

    path = "/health"
    tags = ("health",)

    @get("/live", operation_id="isAlive")
    async def live(self) -> Alive:
        """The process answers."""
        return Alive("ok")

    @get("/ready", operation_id="isReady", responses={503: _AWAY})
    async def ready(self, request: Request[Any, Any, Any]) -> Ready:
        """The catalog answers; the state of Redis is only reported."""
        process = process_of(request)
        found = await look_around(process.ports)
        return Ready("ok", found.catalog, found.redis, process.changes.listening)
