import re
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.paging import cut, next_cursor, position
from control_plane.api.words import CURSOR


@given(st.uuids())
def test_a_cursor_holds_an_id(key: UUID) -> None:
    cursor = next_cursor([key], 1, lambda k: k)
    assert cursor is not None
    assert re.fullmatch(CURSOR, cursor)
    assert position(cursor) == key


@given(st.from_regex(re.compile(CURSOR, re.ASCII), fullmatch=True))
def test_every_well_formed_cursor_can_be_read(cursor: str) -> None:
    assert isinstance(position(cursor), UUID)


def test_a_short_page_is_the_last() -> None:
    assert next_cursor([uuid4()], 2, lambda k: k) is None
    assert next_cursor([], 2, lambda k: k) is None
    assert position(None) is None


@given(st.sets(st.text("abc", min_size=1), max_size=12), st.integers(1, 5))
def test_pages_of_a_short_list_show_every_item_once(names: set[str], limit: int) -> None:
    shown: list[str] = []
    after: str | None = None
    while True:
        page, after = cut(list(names), lambda n: n, after=after, limit=limit)
        shown += page
        if after is None:
            break
        assert len(page) == limit
    assert shown == sorted(names)


@pytest.mark.parametrize("limit", [1, 3])
def test_an_empty_list_is_one_empty_page(limit: int) -> None:
    assert cut([], str, after=None, limit=limit) == ([], None)
