"""The port behind which Postgres servers are made and deleted.

Everything is found by the server's id, which the catalog knows before anything is asked for:
whoever comes after a worker that died finds what that one has begun.
"""

from typing import Literal, Protocol
from uuid import UUID

import msgspec

from control_plane.config import Secret
from control_plane.domain.providers import ProviderKind, ServerWish

InstanceState = Literal["creating", "available", "deleting", "failed"]


class Wanted(msgspec.Struct, frozen=True):
    """A server to be made. Its administrator's password is recorded before it is given away."""

    key: UUID
    name: str
    password: Secret
    wish: ServerWish


class Place(msgspec.Struct, frozen=True):
    """Where a server answers, as whom, and the authority of its certificate, if that is known."""

    host: str
    port: int
    user: str
    ca_pem: str | None = None


class Instance(msgspec.Struct, frozen=True):
    """A server as its provider sees it; ``detail`` is in the provider's words.

    ``name`` is what the provider calls it; ``place`` is there once it is available.
    """

    key: UUID
    name: str
    state: InstanceState
    detail: str
    place: Place | None = None


class Standing(msgspec.Struct, frozen=True):
    """How we stand with a provider that answers; ``missing`` is what we may not do and have to.

    ``looks_only``: all we may do is look at what there is. ``unverified``: nobody could tell a
    server of it from one that somebody puts in its place.
    """

    seen: str
    missing: tuple[str, ...] = ()
    looks_only: bool = False
    unverified: bool = False


class Provider(Protocol):
    """One provider. Every call may be repeated, and blocks no event loop.

    Each raises ``ProviderUnavailable`` for what passes by itself and ``ProviderRefused`` for what
    does not; the message says what to do.
    """

    kind: ProviderKind

    def problems(self, wish: ServerWish) -> list[dict[str, str]]:
        """The fields of a wish that cannot be fulfilled here, each with its remedy."""

    async def create(self, wanted: Wanted) -> None:
        """Have the server made, unless that has begun; does not wait for it."""

    async def look(self, key: UUID) -> Instance | None:
        """The server as it is now; ``None`` when there is none."""

    async def delete(self, key: UUID) -> None:
        """Have the server deleted; one that is gone is no error. Does not wait for it."""

    async def every(self) -> list[Instance]:
        """Every server that was made by this deployment and is not gone."""

    async def examine(self) -> Standing:
        """Whether it answers, and lets us do what we have to; may be given up at any time."""
