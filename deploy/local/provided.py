"""Tenant servers that a running stack was asked for: written down, and started with it."""

from collections.abc import Sequence

import msgspec

from deploy.local.files import write_whole
from deploy.local.layout import Layout
from deploy.local.problem import StackError


class Refused(StackError):
    """What is asked for cannot be had, however often it is asked for."""


class Provided(msgspec.Struct, frozen=True):
    """One such server; ``key`` is its id in the catalog, and what it is asked for again by."""

    name: str
    key: str
    major: int


def known(layout: Layout) -> list[Provided]:
    """Every server that was asked for and not given back."""
    if not layout.provided.exists():
        return []
    return msgspec.json.decode(layout.provided.read_bytes(), type=list[Provided])


def remember(layout: Layout, wanted: Provided, password: str, taken: Sequence[str]) -> None:
    """Write a server down before anything of it is made; what is known already stays as it is.

    Its password is there first: a server that is known is never made with another one.

    Raises:
        Refused: its name is that of another server, or is ``taken`` by the stack itself.
    """
    held = known(layout)
    if any(one.key == wanted.key for one in held):
        return
    if wanted.name in taken or any(one.name == wanted.name for one in held):
        raise Refused(f"something else in the stack is called {wanted.name}; choose another name")
    write_whole(layout.secret(f"{wanted.name}.password"), password + "\n", 0o600)
    _write(layout, [*held, wanted])


def forget(layout: Layout, key: str) -> None:
    """Strike a server out once nothing of it is left."""
    _write(layout, [one for one in known(layout) if one.key != key])


def _write(layout: Layout, held: Sequence[Provided]) -> None:
    write_whole(layout.provided, msgspec.json.encode(held).decode() + "\n", 0o600)
