"""Root keys on paper: any two shares give back every epoch, and nothing else does."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters import escrow
from control_plane.domain.errors import KeyUnavailable

KEYS = {1: bytes(range(32)), 4: bytes(range(100, 132))}


@settings(max_examples=10, deadline=None)
@given(st.dictionaries(st.integers(1, 10_000), st.binary(min_size=32, max_size=32), min_size=1))
def test_any_two_shares_give_every_epoch_back(keys: dict[int, bytes]) -> None:
    shares = escrow.split(keys)
    assert len(shares) == escrow.SHARES
    for pair in combinations(shares, escrow.NEEDED):
        assert escrow.join(pair) == keys
    assert escrow.join(shares) == keys


def test_as_people_write_it_down() -> None:
    first, second, _ = escrow.split(KEYS)
    typed = "In the safe since May.\n" + first.upper().replace(": ", ":   ") + "\n\nThat is all\n"
    assert escrow.join([typed + second]) == KEYS


@pytest.mark.parametrize("number", range(escrow.SHARES))
def test_one_share_gives_nothing(number: int) -> None:
    share = escrow.split(KEYS)[number]
    with pytest.raises(KeyUnavailable, match="one share only"):
        escrow.join([share])
    with pytest.raises(KeyUnavailable, match="one share only"):
        escrow.join([share, share])


def test_shares_of_two_escrows_do_not_mix() -> None:
    with pytest.raises(KeyUnavailable, match="not of the same escrow"):
        escrow.join([escrow.split(KEYS)[0], escrow.split(KEYS)[1]])


def test_a_wrong_word_is_noticed() -> None:
    first, second, _ = escrow.split(KEYS)
    word = first.split()[-1]
    other = "academic" if word != "academic" else "acid"
    with pytest.raises(KeyUnavailable, match="epoch 4: a word is wrong"):
        escrow.join([first.rstrip().removesuffix(word) + other, second])
    with pytest.raises(KeyUnavailable, match="epoch 4: a word is wrong"):
        escrow.join([first.rstrip().removesuffix(word) + "tenantry", second])


def test_an_epoch_that_one_share_lacks_is_named() -> None:
    first, second, _ = escrow.split(KEYS)
    with pytest.raises(KeyUnavailable, match="epoch 4 has one share only"):
        escrow.join([first, second.partition("epoch 4")[0]])


def test_something_else_is_no_share() -> None:
    with pytest.raises(KeyUnavailable, match="there is no share"):
        escrow.join(["epoch one: academic acid", ""])
