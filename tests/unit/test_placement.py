import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import NoCapacity
from control_plane.domain.placement import ServerCapacity, Wish, place, refusal


def server(name: str, **facts: object) -> ServerCapacity:
    base: dict[str, object] = {
        "id": uuid.uuid4(),
        "name": name,
        "state": "active",
        "reachable": True,
        "region": None,
        "tier": None,
        "capacity": 10,
        "placed": 0,
        "content": "0123456789abcdef",
    }
    return ServerCapacity(**(base | facts))  # type: ignore[arg-type]  # checked by the struct's users


def test_the_least_loaded_server_is_chosen_and_the_reason_says_so() -> None:
    chosen = place(Wish("standard"), [server("a", placed=5), server("b", placed=1)])
    assert chosen.server == "b"
    assert chosen.reason == "b: least loaded of 2 that fit (1 of 10 places taken)"


def test_load_is_relative_to_capacity() -> None:
    servers = [server("big", placed=20, capacity=100), server("small", placed=3, capacity=10)]
    assert place(Wish("standard"), servers).server == "big"


@pytest.mark.parametrize(
    ("facts", "wish", "words"),
    [
        ({"state": "draining"}, Wish("standard"), "is draining"),
        ({"reachable": False}, Wish("standard"), "does not answer"),
        ({"content": None}, Wish("standard"), "has no template yet"),
        ({"placed": 10}, Wish("standard"), "is full (10 of 10)"),
        ({"region": "eu"}, Wish("standard", region="us"), "is in region eu"),
        ({"tier": "enterprise"}, Wish("standard"), "takes tier enterprise"),
        ({}, Wish("dedicated"), "takes tier shared"),
        ({"tier": "dedicated", "placed": 1}, Wish("dedicated"), "already holds 1 tenants"),
    ],
)
def test_a_refusal_says_why(facts: dict[str, object], wish: Wish, words: str) -> None:
    assert refusal(server("a", **facts), wish) == words
    with pytest.raises(NoCapacity, match=words.replace("(", r"\(").replace(")", r"\)")):
        place(wish, [server("a", **facts)])


def test_no_server_at_all_says_how_to_add_one() -> None:
    with pytest.raises(NoCapacity, match="tenantry servers add"):
        place(Wish("standard"), [])


def test_the_server_asked_for_is_taken_although_another_is_emptier() -> None:
    chosen = place(Wish("standard", server="a"), [server("a", placed=9), server("b")])
    assert chosen.server == "a"
    assert "was asked for" in chosen.reason


fleets = st.lists(
    st.builds(
        server,
        st.uuids().map(lambda u: f"s{u.hex[:8]}"),
        state=st.sampled_from(["active", "draining", "enrolling"]),
        reachable=st.booleans(),
        region=st.sampled_from([None, "eu", "us"]),
        tier=st.sampled_from([None, "standard", "enterprise", "dedicated"]),
        capacity=st.integers(1, 20),
        placed=st.integers(0, 20),
        content=st.sampled_from([None, "0123456789abcdef"]),
    ),
    max_size=8,
)
wishes = st.builds(
    Wish,
    st.sampled_from(["standard", "enterprise", "dedicated"]),
    region=st.sampled_from([None, "eu", "us"]),
)


@given(fleets, wishes)
def test_whatever_is_chosen_fits_and_nothing_that_fits_is_emptier(
    fleet: list[ServerCapacity], wish: Wish
) -> None:
    try:
        chosen = place(wish, fleet)
    except NoCapacity:
        assert all(refusal(candidate, wish) for candidate in fleet)
        return
    best = next(candidate for candidate in fleet if candidate.id == chosen.server_id)
    assert refusal(best, wish) is None
    fitting = [candidate for candidate in fleet if refusal(candidate, wish) is None]
    assert all(best.placed / best.capacity <= c.placed / c.capacity for c in fitting)
