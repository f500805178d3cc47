"""The chain of seals over a tenant's audit log: what a block is made of, and what breaks it.

The tree over the rows of a block is that of RFC 6962 section 2.1; a block's hash covers the hash
of the block before it. Computed here again, from the rows, so that nothing inside the tenant's
database has to be believed.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

GENESIS = bytes(32)
_NAMED_ROWS = 5
_COUNT_BYTES = 8


class Anchor(msgspec.Struct, frozen=True):
    """What the control plane keeps of a block; hashes are SHA-256, 32 bytes."""

    block: int
    first_seq: int
    last_seq: int
    rows: int
    block_hash: bytes
    sealed_at: dt.datetime


class Block(msgspec.Struct, frozen=True):
    """A block as the tenant's database has it. ``members`` are the ``seq`` of its rows.

    ``place`` is the text that the hash covers beside root and count: era, rows and xids.
    """

    block: int
    members: tuple[range, ...]
    rows: int
    place: str
    prev_hash: bytes
    root: bytes
    block_hash: bytes
    sealed_at: dt.datetime

    @property
    def anchor(self) -> Anchor:
        first, last = self.members[0].start, self.members[-1].stop - 1
        return Anchor(self.block, first, last, self.rows, self.block_hash, self.sealed_at)


def merkle_root(texts: Sequence[str]) -> bytes:
    """The root over at least one row, each given as its canonical text."""
    level = [hashlib.sha256(b"\0" + text.encode()).digest() for text in texts]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs] + odd
    return level[0]


def block_hash(prev_hash: bytes, root: bytes, rows: int, place: str) -> bytes:
    return hashlib.sha256(prev_hash + root + rows.to_bytes(_COUNT_BYTES) + place.encode()).digest()


def block_differences(
    block: Block, texts: Mapping[int, str], previous: Block | None
) -> Iterable[str]:
    """How a block differs from its rows (canonical text by ``seq``) and from the one before it."""
    name = f"block {block.block}"
    number = previous.block + 1 if previous else 1
    if block.block != number:
        yield f"block {number} is missing"
    elif block.prev_hash != (previous.block_hash if previous else GENESIS):
        yield f"{name} does not continue block {number - 1}"
    missing = [seq for part in block.members for seq in part if seq not in texts]
    if missing:
        yield f"{name}: {_rows(missing)} deleted"
    elif len(texts) != block.rows or merkle_root([texts[s] for s in sorted(texts)]) != block.root:
        first, last = block.members[0].start, block.members[-1].stop - 1
        yield f"{name}: a row between {first} and {last} was changed after it was sealed"
    if block_hash(block.prev_hash, block.root, block.rows, block.place) != block.block_hash:
        yield f"{name} was rewritten: its hash is not that of its contents"


def anchor_differences(anchor: Anchor, block: Block | None) -> Iterable[str]:
    """How a block differs from what was anchored of it."""
    if block is None:
        yield f"block {anchor.block} is anchored, but the database has no such block"
    elif block.block_hash != anchor.block_hash:
        yield f"block {anchor.block} was rewritten: it is not the block that was anchored"


def _rows(seqs: Sequence[int]) -> str:
    shown = ", ".join(str(seq) for seq in seqs[:_NAMED_ROWS])
    more = f" and {len(seqs) - _NAMED_ROWS} more" if len(seqs) > _NAMED_ROWS else ""
    return f"row{'s' * (len(seqs) > 1)} {shown}{more} {'were' if len(seqs) > 1 else 'was'}"
