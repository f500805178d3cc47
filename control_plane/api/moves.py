"""Moves over HTTP: to another server, back again, the old database given up."""

import datetime as dt
from typing import Annotated

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Reading, Writing
from control_plane.api.documents import refusals
from control_plane.api.provided_servers import MachineBody
from control_plane.api.views import OperationView
from control_plane.api.words import NAME_OR_ID
from control_plane.catalog import servers
from control_plane.catalog.moves import Move
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid
from control_plane.domain.moves import PAUSE_BUDGET_MS, Comparison, Method, MoveState
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.providers import NEW_SERVER
from control_plane.services import moves
from control_plane.services.moves import NewMoveWish
from control_plane.services.moving_to_new import move_to_new


class MoveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to. Clients wait for ``pause_budget_ms`` at most, or the switch is tried again later.

    ``offline`` allows to close the tenant while its rows are copied, where nothing else works.
    With the server ``new``, one is made for the tenant first, as ``new_server`` says.
    """

    server: Annotated[str, Meta(pattern=NAME_OR_ID)]
    pause_budget_ms: Annotated[int, Meta(ge=100, le=60_000)] = PAUSE_BUDGET_MS
    offline: bool = False
    new_server: MachineBody | None = None


class FinishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``without_backup``: give the old database up although no backup of the new one is proved."""

    without_backup: bool = False


class ComparisonView(msgspec.Struct, frozen=True):
    """The evidence that both databases held the same, at one position of the WAL."""

    at: dt.datetime
    lsn: str
    tables: int
    rows: int
    seconds: float
    writers_held_ms: float | None
    differences: list[str]


class MoveView(msgspec.Struct, frozen=True):
    """One move. ``paused_ms`` is how long the clients were held at the switch."""

    id: str
    state: MoveState
    method: Method | None
    source: str
    target: str
    pause_budget_ms: int
    attempts: int
    put_off: str | None
    paused_ms: float | None
    compared: ComparisonView | None
    compared_at_switch: ComparisonView | None
    created_at: dt.datetime
    switched_at: dt.datetime | None
    ended_at: dt.datetime | None


class MovePage(msgspec.Struct, frozen=True):
    items: list[MoveView]


class MoveController(Controller):
    """Where a tenant's database is."""

    path = "/tenants/{tenant:str}/moves"
    tags = ("tenants",)

    @post(
        operation_id="moveTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def move_tenant(
        self,
        tenant: FromPath[str],
        data: JSONBody[MoveBody],
        changing: Writing,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Move a tenant to another server while its clients go on."""
        wanted = NewMoveWish(data.server, data.pause_budget_ms, data.offline)
        machine = data.new_server

        async def work(db: Connection) -> Operation:
            if machine is None:
                return await moves.move_tenant(db, changing.caller, tenant, wanted)
            return await move_to_new(
                db, changing.ports, changing.caller, tenant, machine.wanted(), wanted
            )

        if (data.server == NEW_SERVER) != (machine is not None):
            message = f"new_server goes with the server {NEW_SERVER!r}, and with no other"
            raise Invalid(message, [{"field": "new_server", "message": message}])
        return await accept_or_rehearse(changing, work, dry_run=dry_run)

    @get(operation_id="listMoves", responses=refusals(404))
    async def list_moves(self, tenant: FromPath[str], asking: Reading) -> MovePage:
        """The newest moves of a tenant, with their evidence."""
        async with asking.ports.catalog.connection() as db:
            found = await moves.list_moves(db, asking.caller, tenant)
            named = {
                key: (await servers.get(db, key)).name
                for move in found
                for key in (move.source_server_id, move.target_server_id)
            }
        return MovePage(
            [
                _view(move, named[move.source_server_id], named[move.target_server_id])
                for move in found
            ]
        )

    @post(
        "/reverse",
        operation_id="reverseMove",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def reverse_move(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Bring a tenant back to where it came from, with everything written since."""
        return await accept_or_rehearse(
            changing,
            lambda db: moves.reverse_move(db, changing.caller, tenant),
            dry_run=dry_run,
        )

    @post(
        "/finish",
        operation_id="finishMove",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def finish_move(
        self,
        tenant: FromPath[str],
        changing: Writing,
        data: JSONBody[FinishBody | None] = None,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Give the old database up; a verified backup of the new one is wanted first."""
        without = data is not None and data.without_backup
        return await accept_or_rehearse(
            changing,
            lambda db: moves.finish_move(
                db, changing.ports, changing.caller, tenant, without_backup=without
            ),
            dry_run=dry_run,
        )


def _view(move: Move, source: str, target: str) -> MoveView:
    return MoveView(
        id=show("op", move.id),
        state=move.state,
        method=move.method,
        source=source,
        target=target,
        pause_budget_ms=move.pause_budget_ms,
        attempts=move.attempts,
        put_off=move.put_off,
        paused_ms=move.paused_ms,
        compared=_comparison_view(move.compared),
        compared_at_switch=_comparison_view(move.compared_at_switch),
        created_at=move.created_at,
        switched_at=move.switched_at,
        ended_at=move.ended_at,
    )


def _comparison_view(found: Comparison | None) -> ComparisonView | None:
    if found is None:
        return None
    return ComparisonView(
        at=found.at,
        lsn=found.lsn,
        tables=len(found.tables),
        rows=sum(table.rows for table in found.tables.values()),
        seconds=found.seconds,
        writers_held_ms=found.writers_held_ms,
        differences=found.differences,
    )
