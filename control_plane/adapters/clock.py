"""The only reader of this machine's clock, and the source of new ids."""

import datetime as dt
from uuid import UUID

import uuid_utils.compat


def now() -> dt.datetime:
    """The present instant, in UTC, on this machine's clock (never used for leases)."""
    return dt.datetime.now(dt.UTC)


def new_id() -> UUID:
    """A UUIDv7: unique, and sorted by the time of its making (RFC 9562 §5.7)."""
    return UUID(int=uuid_utils.compat.uuid7().int)
