"""People: added, listed and disabled by who manages keys; each has the roles of an API key."""

import datetime as dt
import hashlib
import secrets

import msgspec
from argon2 import PasswordHasher

from control_plane.adapters import clock
from control_plane.catalog import audit, people
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.config import Secret
from control_plane.domain.errors import Conflict, Invalid
from control_plane.domain.people import (
    LINK_LIFETIME,
    Person,
    PersonRole,
    check_email,
    check_password,
)

# argon2id with the parameters of RFC 9106 for little memory (64 MiB, 3 passes).
HASHER = PasswordHasher()


class NewPerson(msgspec.Struct, frozen=True):
    """A request for a person; without a password, a sign-in link is the first way in."""

    email: str
    name: str
    roles: tuple[PersonRole, ...]
    password: Secret | None = None


class SignInLink(msgspec.Struct, frozen=True):
    """A link that signs in once; its token is nowhere kept."""

    token: Secret
    expires_at: dt.datetime

    @property
    def plain_token(self) -> str:
        """The token itself, for the one answer or line that shows it."""
        return self.token.reveal()


async def add_person(db: Connection, caller: Caller, wanted: NewPerson) -> Person:
    """Record a person.

    Raises:
        Invalid: no address, no role, or a password that is too short.
        Conflict: somebody has this address.
    """
    email = check_email(wanted.email)
    if not wanted.roles:
        raise Invalid("a person needs a role", [{"field": "roles", "message": "name at least one"}])
    name = wanted.name.strip()
    if not name:
        message = "name the person with more than spaces"
        raise Invalid(f"name: {message}", [{"field": "name", "message": message}])
    verifier = _verifier(wanted.password) if wanted.password else None
    person = Person(
        id=clock.new_id(),
        email=email,
        name=name,
        roles=list(dict.fromkeys(wanted.roles)),
        has_password=verifier is not None,
        created_by=caller.principal.name,
        created_at=clock.now(),
        disabled_at=None,
    )
    if await people.email_is_taken(db, email):
        raise Conflict(f"{email} is there already; tenantry people list shows everybody")
    await people.insert(db, person, verifier)
    facts: dict[str, object] = {"roles": person.roles}
    await audit.record(db, caller, Entry("person.add", email, facts=facts))
    return person


async def disable_person(db: Connection, caller: Caller, shown_id: str) -> None:
    """End a person's access; open sessions and unused links end with it (S-32).

    Raises:
        NotFound: there is no such person.
    """
    person = await people.find(db, shown_id)
    await people.disable(db, person.id)
    await audit.record(db, caller, Entry("person.disable", person.email))


async def create_sign_in_link(db: Connection, caller: Caller, shown_id: str) -> SignInLink:
    """A link that signs this person in, once, within a day.

    Raises:
        NotFound: there is no such person.
        Conflict: the person is disabled.
    """
    person = await people.find(db, shown_id)
    if person.disabled_at is not None:
        raise Conflict(f"{person.email} is disabled and cannot sign in")
    token = secrets.token_urlsafe(32)
    ends = await people.insert_link(db, hash_of(token), person.id, LINK_LIFETIME)
    await audit.record(db, caller, Entry("person.link", person.email))
    return SignInLink(Secret(token), ends)


async def set_password(db: Connection, caller: Caller, person: Person, password: Secret) -> None:
    """Let a person sign in with this password from now on; other sessions end.

    Raises:
        Invalid: it is too short or too long.
    """
    await people.set_verifier(db, person.id, _verifier(password))
    await people.end_sessions_of(db, person.id)
    await audit.record(db, caller, Entry("person.set_password", person.email))


def hash_of(token: str) -> bytes:
    """How a random token is kept: a slow hash would add nothing to so many random bits."""
    return hashlib.sha256(token.encode()).digest()


def _verifier(password: Secret) -> str:
    plain = password.reveal()
    check_password(plain)
    return HASHER.hash(plain)
