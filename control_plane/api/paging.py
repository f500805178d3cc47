"""Pages: ``limit`` and an opaque ``cursor``, which is the id of the last item shown."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias, TypeVar
from uuid import UUID

from litestar.params import QueryParameter

from control_plane.api.words import CURSOR, NAME_OR_ID
from control_plane.domain.names import decode, encode

LIMIT = 50
LIMIT_MOST = 200
_NEXT = "next_cursor of the page before"

Item = TypeVar("Item")

Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=LIMIT_MOST, description="Items a page")]
Cursor: TypeAlias = Annotated[str | None, QueryParameter(pattern=CURSOR, description=_NEXT)]
NameCursor: TypeAlias = Annotated[str | None, QueryParameter(pattern=NAME_OR_ID, description=_NEXT)]


def position(cursor: str | None) -> UUID | None:
    """The id that a well-formed cursor holds."""
    return decode(cursor) if cursor is not None else None


def next_cursor(items: Sequence[Item], limit: int, key: Callable[[Item], UUID]) -> str | None:
    """The cursor after a page that was read with ``limit``; a short page is the last one."""
    return encode(key(items[-1])) if len(items) == limit else None


def cut(
    items: Sequence[Item], name: Callable[[Item], str], *, after: str | None, limit: int
) -> tuple[list[Item], str | None]:
    """One page of a short list, sorted by name, and its next cursor."""
    left = sorted((i for i in items if after is None or name(i) > after), key=name)
    page = left[:limit]
    return page, name(page[-1]) if len(left) > limit else None
