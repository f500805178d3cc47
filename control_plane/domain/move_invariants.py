"""What moves may have on servers, and what a way back must have: a pure comparison (I-3, I-4)."""

from collections.abc import Iterable, Iterator
from uuid import UUID

import msgspec

from control_plane.domain.moves import Link, MoveState
from control_plane.domain.names import show


class ExpectedMove(msgspec.Struct, frozen=True):
    """An open move as the catalog knows it. ``busy``: an operation is working on the tenant."""

    id: UUID
    slug: str
    state: MoveState
    online: bool
    busy: bool
    source: str
    target: str

    def names(self) -> set[str]:
        """Whatever it may have on either server."""
        links = (Link(self.id), Link(self.id, back=True))
        return {name for one in links for name in (one.name, one.sender, one.applier)}


class FoundLinks(msgspec.Struct, frozen=True):
    """What replicates on one server; ``publications`` are (database, name)."""

    slots: frozenset[str] = frozenset()
    lost_slots: frozenset[str] = frozenset()
    subscriptions: dict[str, bool] = {}
    roles: frozenset[str] = frozenset()
    publications: frozenset[tuple[str, str]] = frozenset()


class Difference(msgspec.Struct, frozen=True):
    """One thing too many or too few, with its remedy."""

    invariant: str
    subject: str
    message: str
    remedy: str


def differences(
    server: str, found: FoundLinks, moves: Iterable[ExpectedMove]
) -> Iterator[Difference]:
    """Everything that replicates on this server and belongs to no move, and what a move lacks."""
    here = [move for move in moves if server in (move.source, move.target)]
    known = {name for move in here for name in move.names()}
    yield from _strays(server, found, known)
    for move in here:
        if not move.busy:
            yield from _lacking(server, found, move)


def _strays(server: str, found: FoundLinks, known: set[str]) -> Iterator[Difference]:
    for slot in sorted(found.slots - known):
        message = f"replication slot {slot} on {server} belongs to no operation"
        yield Difference("I-4", server, message, f"SELECT pg_drop_replication_slot('{slot}')")
    for name in sorted(found.subscriptions.keys() - known):
        message = f"subscription {name} on {server} belongs to no move"
        yield Difference("I-3", server, message, f'DROP SUBSCRIPTION "{name}"')
    for role in sorted(found.roles - known):
        message = f"role {role} on {server} belongs to no move"
        yield Difference("I-3", server, message, f'DROP ROLE "{role}"')
    for database, name in sorted(found.publications):
        if name not in known:
            message = f"publication {name} in {database} on {server} belongs to no move"
            yield Difference("I-3", server, message, f'DROP PUBLICATION "{name}"')


def _lacking(server: str, found: FoundLinks, move: ExpectedMove) -> Iterator[Difference]:
    if move.state != "reversible":
        message = f"its move is {move.state} and nobody works on it"
        remedy = f"tenantry operations retry {show('op', move.id)}"
        if server == move.target:
            yield Difference("I-10", move.slug, message, remedy)
        return
    if not move.online:
        return
    back = Link(move.id, back=True)
    remedy = f"tenantry move finish {move.slug}, for it can no longer be reversed"
    if server == move.target and (back.name not in found.slots or back.name in found.lost_slots):
        message = f"{server} no longer keeps the changes that should flow back"
        yield Difference("I-4", move.slug, message, remedy)
    if server == move.source and not found.subscriptions.get(back.name, False):
        message = f"changes no longer flow back to {server}"
        yield Difference("I-3", move.slug, message, remedy)
