"""The chain of seals: what it is made of, and that nothing in it can be changed unseen."""

import datetime as dt
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.audit_chain import (
    GENESIS,
    Anchor,
    Block,
    anchor_differences,
    block_differences,
    block_hash,
    merkle_root,
)

NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
TEXTS = {4: "four", 5: "five", 9: "nine"}


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def sealed(texts: dict[int, str], number: int = 1, before: bytes = GENESIS) -> Block:
    """A block over these rows, as the database would make it."""
    root = merkle_root([texts[seq] for seq in sorted(texts)])
    place = f"1 {sorted(texts)}"
    return Block(
        block=number,
        members=tuple(range(seq, seq + 1) for seq in sorted(texts)),
        rows=len(texts),
        place=place,
        prev_hash=before,
        root=root,
        block_hash=block_hash(before, root, len(texts), place),
        sealed_at=NOW,
    )


def test_the_tree_is_that_of_rfc_6962() -> None:
    a, b, c = (sha(b"\0" + text) for text in (b"a", b"b", b"c"))
    assert merkle_root(["a"]) == a
    assert merkle_root(["a", "b"]) == sha(b"\1" + a + b)
    assert merkle_root(["a", "b", "c"]) == sha(b"\1" + sha(b"\1" + a + b) + c)
    assert merkle_root([*"abcde"]) != merkle_root([*"abced"])


@given(st.lists(st.text(), min_size=1, max_size=40), st.data())
def test_no_row_changes_without_the_root(texts: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(texts) - 1))
    other = data.draw(st.text().filter(lambda text: text != texts[place]))
    assert merkle_root([*texts[:place], other, *texts[place + 1 :]]) != merkle_root(texts)


def test_a_whole_chain_has_no_differences() -> None:
    first = sealed(TEXTS)
    second = sealed({6: "six"}, 2, first.block_hash)
    assert list(block_differences(first, TEXTS, None)) == []
    assert list(block_differences(second, {6: "six"}, first)) == []
    assert list(anchor_differences(second.anchor, second)) == []
    assert first.anchor == Anchor(1, 4, 9, 3, first.block_hash, NOW)


def test_what_is_wrong_is_named() -> None:
    block = sealed(TEXTS)
    assert list(block_differences(block, {**TEXTS, 5: "FIVE"}, None)) == [
        "block 1: a row between 4 and 9 was changed after it was sealed"
    ]
    assert list(block_differences(block, {4: "four", 9: "nine"}, None)) == [
        "block 1: row 5 was deleted"
    ]
    assert list(block_differences(block, {}, None)) == ["block 1: rows 4, 5, 9 were deleted"]
    assert list(block_differences(sealed(TEXTS, 3, block.block_hash), TEXTS, block)) == [
        "block 2 is missing"
    ]
    assert list(block_differences(sealed(TEXTS, 2), TEXTS, block)) == [
        "block 2 does not continue block 1"
    ]


@pytest.mark.parametrize(
    "change",
    [{"rows": 2}, {"place": "2"}, {"root": bytes(32)}, {"prev_hash": b"\1" * 32}],
    ids=["rows", "place", "root", "previous"],
)
def test_a_block_cannot_be_edited_unseen(change: dict[str, object]) -> None:
    block = msgspec.structs.replace(sealed(TEXTS), **change)
    assert any("rewritten" in told for told in block_differences(block, TEXTS, None))


def test_only_the_anchor_sees_a_chain_that_was_rewritten_well() -> None:
    block, forged = sealed(TEXTS), sealed({**TEXTS, 5: "FIVE"})
    assert list(block_differences(forged, {**TEXTS, 5: "FIVE"}, None)) == []
    assert list(anchor_differences(block.anchor, forged)) == [
        "block 1 was rewritten: it is not the block that was anchored"
    ]
    assert list(anchor_differences(block.anchor, None)) == [
        "block 1 is anchored, but the database has no such block"
    ]
