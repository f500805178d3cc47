"""What the form of each action asks for."""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from control_plane.domain.moves import PAUSE_BUDGET_MS
from control_plane.domain.tenants import OwnLimits
from control_plane.services import deleting, exports

Count: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=86_400)]
_MS = 1000


class ActionForm(msgspec.Struct, frozen=True, kw_only=True):
    """What every action's form carries; ``confirm`` is the slug, typed where it destroys."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)]
    confirm: str = ""


class RestoreForm(ActionForm, frozen=True, kw_only=True):
    """Which backup; the youngest unless one is picked."""

    backup: str | None = None


class CopyForm(RestoreForm, frozen=True, kw_only=True):
    """The new tenant."""

    slug: str
    name: Annotated[str, Meta(max_length=200)] | None = None


class MoveForm(ActionForm, frozen=True, kw_only=True):
    """Where to, and how long clients may be held at the switch."""

    server: str
    pause_budget_ms: Annotated[int, Meta(ge=100, le=60_000)] = PAUSE_BUDGET_MS


class RotateForm(ActionForm, frozen=True, kw_only=True):
    """How long the credentials of before still work."""

    grace_minutes: Annotated[int, Meta(ge=0, le=43_200)] | None = None


class DeleteForm(ActionForm, frozen=True, kw_only=True):
    """How long the backups are kept after the grace."""

    keep_backups_days: Annotated[int, Meta(ge=0, le=36_500)] = deleting.KEEP_BACKUPS_DAYS


class FinishForm(ActionForm, frozen=True, kw_only=True):
    """Whether a verified backup of the new database may be missing."""

    without_backup: Literal["yes"] | None = None


class ExportForm(ActionForm, frozen=True, kw_only=True):
    """Who can open the bundle, and after how long it is deleted."""

    recipient: Annotated[str, Meta(max_length=200)]
    keep_hours: Annotated[int, Meta(ge=1, le=7 * 24)] = exports.KEEP_HOURS


class LimitForm(ActionForm, frozen=True, kw_only=True):
    """Limits of the tenant's own; what is left empty is its tier's, 0 seconds are no limit."""

    pool_size: Count | None = None
    session_pool_size: Count | None = None
    connections: Count | None = None
    statement_seconds: Seconds | None = None
    idle_seconds: Seconds | None = None
    reason: Annotated[str, Meta(max_length=500)] | None = None

    @property
    def own(self) -> OwnLimits:
        """The same as the services know it."""
        return OwnLimits(
            pool_size=self.pool_size,
            session_pool_size=self.session_pool_size,
            connections=self.connections,
            statement_timeout_ms=_milliseconds(self.statement_seconds),
            idle_in_transaction_ms=_milliseconds(self.idle_seconds),
        )


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _MS)
