"""What every showing of a secret has in common: why it is shown, and that it is on record first."""

from control_plane.adapters import clock
from control_plane.catalog import audit
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import CatalogUnavailable, Invalid
from control_plane.domain.names import encode


def require_reason(caller: Caller, reason: str | None) -> None:
    """A break-glass key says why it looks.

    Raises:
        Invalid: it does not.
    """
    if "breakglass" in caller.principal.roles and not reason:
        message = "a break-glass key says why it looks"
        raise Invalid(message, [{"field": "reason", "message": message}])


def new_lease_id() -> str:
    """The id of one showing, which its audit event carries."""
    return f"ls_{encode(clock.new_id())}"


async def record_showing(db: Connection, caller: Caller, entry: Entry) -> None:
    """Record it in the transaction after which the secret may be shown.

    Raises:
        CatalogUnavailable: it could not be recorded (S-25).
    """
    try:
        await audit.record(db, caller, entry)
    except Exception as error:
        message = "the audit log cannot be written, and nothing is shown without it; try again"
        raise CatalogUnavailable(message) from error
