"""Who acts in a transaction: what the audit log records, set the one way that does not leak.

A plain ``SET`` outlives its transaction, and behind a transaction pool the next client inherits
it: the log would blame the wrong person. ``set_config(…, true)`` ends with the transaction. The
same statement compares the identity marker, so that every acting transaction is known to be in
the right database, whatever the pooler did since the connection was made (S-10).
"""

from types import TracebackType
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from tenant_template.client.errors import NoTransaction, TenantMismatch

TENANT = "tenantry.tenant"
_LONGEST_USER = 200

_ACT = text(
    """SELECT set_config('app.user_id', :user_id, true),
              set_config('app.request_id', :request_id, true),
              (SELECT tenant_id FROM cp_meta.identity) AS tenant_id"""
)
# The tenant's reader, by the name of the login: see the roles of a tenant in docs.
_ONLY_READ = text(
    """SELECT set_config('transaction_read_only', 'on', true),
              set_config('role', regexp_replace(session_user, '_app_[ab]$', '_ro'), true)"""
)


class acting_as:  # noqa: N801 - reads as the block it opens
    """``with acting_as(session, user_id):`` inside a transaction; ``async with`` for async ones.

    The user stays named until the transaction ends or another ``acting_as`` names somebody else;
    what was changed in the block is flushed at its end, so that it is this user's. ``read_only``
    makes the transaction read-only and takes the tenant's reader role, which sees no patient.

    Raises:
        NoTransaction: none has begun; with a session, use ``session.begin()``.
        TenantMismatch: the database is another tenant's.
        ValueError: the user is empty, too long or not printable.
    """

    def __init__(
        self,
        target: Session | Connection | AsyncSession | AsyncConnection,
        user_id: str,
        request_id: UUID | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        if not user_id.strip() or len(user_id) > _LONGEST_USER or not user_id.isprintable():
            raise ValueError(f"the acting user is 1 to {_LONGEST_USER} printable characters")
        self._target = target
        self._names = {"user_id": user_id, "request_id": str(request_id or "")}
        self._read_only = read_only

    def __enter__(self) -> None:
        if not isinstance(self._target, Session | Connection):
            raise TypeError("use: async with acting_as(…)")
        self._begin(self._target)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and isinstance(self._target, Session):
            self._target.flush()

    async def __aenter__(self) -> None:
        if not isinstance(self._target, AsyncSession | AsyncConnection):
            raise TypeError("use: with acting_as(…)")
        await self._target.run_sync(self._begin)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and isinstance(self._target, AsyncSession):
            await self._target.flush()

    def _begin(self, target: Session | Connection) -> None:
        if not target.in_transaction():
            raise NoTransaction("begin a transaction first: with session.begin(), acting_as(…):")
        connection = target.connection() if isinstance(target, Session) else target
        driver = connection.connection.dbapi_connection
        if driver is None or connection.dialect.detect_autocommit_setting(driver):
            raise NoTransaction("an autocommit connection has no transaction to act in")
        found = connection.execute(_ACT, self._names).one().tenant_id
        if found != connection.info[TENANT]:
            raise TenantMismatch(
                f"this database belongs to {found or 'no tenant'}, not to {connection.info[TENANT]}"
            )
        if self._read_only:
            connection.execute(_ONLY_READ)
