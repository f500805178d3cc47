"""The commands of docs/install.md for Debian and systemd, as a test types them."""

import re
from collections.abc import Mapping

from control_plane.config import REPOSITORY

PAGE = REPOSITORY / "docs" / "install.md"
# These the machine of the tests has: it is a copy of one that was furnished by `dev`.
_FURNISHED = re.compile(r"^(apt-get install .*|/usr/share/postgresql-common/.*)$", re.MULTILINE)


def blocks(page: str, heading: str = "## Debian and systemd") -> list[str]:
    """Every block of shell commands below the heading."""
    section = page.split(f"{heading}\n")[1].split("\n## ", maxsplit=1)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def typed(block: str, replacements: Mapping[str, str]) -> str:
    """The block with what a reader puts in: each replacement has to be found.

    Raises:
        KeyError: the page does not say that (any more).
    """
    block = _FURNISHED.sub(":", block)
    for said, meant in replacements.items():
        if said not in block:
            raise KeyError(said)
        block = block.replace(said, meant)
    return block
