"""The root keys on paper: three shares, any two of which give them back (SLIP-39).

A share has one line for each epoch. Lines of people's own, around and between, do no harm.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

import shamir_mnemonic  # type: ignore[import-untyped]  # it has annotations, and no marker of them

from control_plane.adapters.key_file import KEY_BYTES
from control_plane.domain.errors import KeyUnavailable

SHARES = 3
NEEDED = 2
_LINE = re.compile(r"^[ \t]*epoch[ \t]+(\d+):([a-z \t]+)$", re.IGNORECASE | re.MULTILINE)


def split(keys: Mapping[int, bytes]) -> list[str]:
    """The shares, each a text to be kept by another person."""
    words: list[list[str]] = [[] for _ in range(SHARES)]
    for epoch, key in sorted(keys.items()):
        (made,) = shamir_mnemonic.generate_mnemonics(1, [(NEEDED, SHARES)], key)
        for share, mnemonic in zip(words, made, strict=True):
            share.append(f"epoch {epoch}: {mnemonic}")
    return [
        f"Tenantry root keys, share {number} of {SHARES}; any {NEEDED} give the keys back.\n"
        + "\n".join(lines)
        + "\n"
        for number, lines in enumerate(words, start=1)
    ]


def join(texts: Iterable[str]) -> dict[int, bytes]:
    """The root keys that these shares are of; shares beyond the two needed have to agree.

    Raises:
        KeyUnavailable: too few shares, a word is wrong, or they are not of the same escrow.
    """
    found: defaultdict[int, set[str]] = defaultdict(set)
    for text in texts:
        for epoch, mnemonic in _LINE.findall(text):
            found[int(epoch)].add(" ".join(mnemonic.lower().split()))
    if not found:
        raise KeyUnavailable("there is no share: a line of one begins with the word epoch")
    return {epoch: _combine(epoch, sorted(words)) for epoch, words in sorted(found.items())}


def _combine(epoch: int, mnemonics: list[str]) -> bytes:
    if len(mnemonics) < NEEDED:
        raise KeyUnavailable(f"epoch {epoch} has one share only; {NEEDED} are needed")
    try:
        keys = {shamir_mnemonic.combine_mnemonics(pair) for pair in combinations(mnemonics, NEEDED)}
    except shamir_mnemonic.MnemonicError as error:
        raise KeyUnavailable(
            f"epoch {epoch}: a word is wrong, or the shares are not of the same escrow"
        ) from error
    (key,) = keys if len(keys) == 1 else (b"",)
    if len(key) != KEY_BYTES:
        raise KeyUnavailable(f"epoch {epoch}: the shares give no single key")
    return bytes(key)
