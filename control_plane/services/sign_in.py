"""Signing in and out: by password, by a link that works once, or by an identity provider.

Every way ends in the same place: a new session id, known to the catalog only as its hash, and a
row in the audit log.
"""

import asyncio
import secrets
from uuid import UUID

import msgspec
from argon2.exceptions import InvalidHashError, VerificationError

from control_plane.adapters.identity_provider import Identity
from control_plane.catalog import audit, people
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.people import Session
from control_plane.catalog.pool import Connection
from control_plane.config import Secret
from control_plane.domain.errors import Denied, Unauthenticated
from control_plane.domain.keys import Principal
from control_plane.domain.people import ABSOLUTE, IDLE, PERSON_ROLES, Person, PersonRole
from control_plane.services.people import HASHER, NewPerson, add_person, hash_of
from control_plane.services.ports import Ports

_NOBODY = UUID(int=0)
_PROVIDER = Principal(_NOBODY, "identity-provider", frozenset())
_NAME_MOST = 100
# Unknown addresses cost as much time as known ones: this verifier fits no password.
_DUMMY = HASHER.hash(secrets.token_urlsafe(32))
_REFUSED = "the address or the password is wrong"


class OpenedSession(msgspec.Struct, frozen=True):
    """A session just opened; ``token`` goes into the cookie and is nowhere kept."""

    token: Secret
    person: Person

    @property
    def plain_token(self) -> str:
        """The token itself, for the one answer that sets the cookie."""
        return self.token.reveal()


async def sign_in_with_password(
    ports: Ports, origin: Caller, email: str, password: Secret
) -> OpenedSession:
    """Open a session.

    Raises:
        Unauthenticated: address or password is wrong; which of them is not told.
    """
    async with ports.catalog.connection() as db:
        found = await people.verifier_of(db, email)
    person, verifier = found or (None, None)
    fits = await asyncio.to_thread(_fits, verifier or _DUMMY, password)
    if person is None or not fits or verifier is None:
        await _record_failure(ports, origin, email, "password")
        raise Unauthenticated(_REFUSED)
    async with ports.catalog.transaction() as db:
        if HASHER.check_needs_rehash(verifier):
            await people.set_verifier(db, person.id, HASHER.hash(password.reveal()))
        return await open_session(db, origin, person, "password")


async def sign_in_with_link(ports: Ports, origin: Caller, token: str) -> OpenedSession:
    """Open a session with a link, which is used up by that.

    Raises:
        Unauthenticated: the link is unknown, used or too old.
    """
    async with ports.catalog.transaction() as db:
        person = await people.use_link(db, hash_of(token))
        if person is not None:
            return await open_session(db, origin, person, "link")
    await _record_failure(ports, origin, "unknown", "link")
    raise Unauthenticated("this link was used already or is too old; ask for a new one")


async def sign_in_with_identity(ports: Ports, origin: Caller, identity: Identity) -> OpenedSession:
    """Open a session for whom the identity provider names; its claims decide about the roles.

    Raises:
        Denied: no role follows from the claims, or the person is disabled.
    """
    settings = ports.settings.console.oidc
    role_map = settings.role_map if settings else {}
    mapped = {role_map[value] for value in identity.values if value in role_map}
    roles = tuple(role for role in PERSON_ROLES if role in mapped)
    if not roles:
        await _record_failure(ports, origin, identity.email, "provider")
        raise Denied(f"{identity.email} has no role here; ask whoever manages your groups")
    async with ports.catalog.transaction() as db:
        person = await people.of_subject(db, identity.subject, identity.email)
        if person is None:
            wanted = NewPerson(identity.email, identity.name[:_NAME_MOST], roles)
            caller = msgspec.structs.replace(origin, principal=_PROVIDER)
            person = await add_person(db, caller, wanted)
        if person.disabled_at is None:
            person = await _follow(db, origin, person, identity.subject, roles)
            return await open_session(db, origin, person, "provider")
    await _record_failure(ports, origin, identity.email, "provider")
    raise Denied(f"{identity.email} is disabled and cannot sign in")


async def _follow(
    db: Connection, origin: Caller, person: Person, subject: str, roles: tuple[PersonRole, ...]
) -> Person:
    """The person as the provider has it now."""
    await people.bind(db, person.id, subject, roles)
    if set(roles) != set(person.roles):
        caller = msgspec.structs.replace(origin, principal=_PROVIDER)
        facts: dict[str, object] = {"roles": list(roles), "before": person.roles}
        await audit.record(db, caller, Entry("person.change", person.email, facts=facts))
    return msgspec.structs.replace(person, roles=list(roles))


async def open_session(db: Connection, origin: Caller, person: Person, way: str) -> OpenedSession:
    """A new session for somebody who proved to be this person.

    Its id is new whatever the browser showed before, so that nobody can prepare one (fixation).
    """
    token = secrets.token_urlsafe(32)
    await people.forget_ended_sessions(db, idle=IDLE, absolute=ABSOLUTE)
    await people.open_session(db, hash_of(token), person.id, secrets.token_urlsafe(32))
    caller = msgspec.structs.replace(origin, principal=person.principal)
    await audit.record(db, caller, Entry("session.open", person.email, facts={"by": way}))
    return OpenedSession(Secret(token), person)


async def find_session(db: Connection, token: str) -> Session | None:
    """The session of this token within its limits; its use is noted."""
    return await people.use_session(db, hash_of(token), idle=IDLE, absolute=ABSOLUTE)


async def session_lives(db: Connection, token: str) -> bool:
    """Whether the session is still within its limits; asking does not prolong it."""
    return await people.session_lives(db, hash_of(token), idle=IDLE, absolute=ABSOLUTE)


async def sign_out(db: Connection, caller: Caller, token: str) -> None:
    """End a session at once."""
    await people.end_session(db, hash_of(token))
    await audit.record(db, caller, Entry("session.close", caller.principal.name))


def nobody(address: str | None, correlation_id: str) -> Caller:
    """Who asks before it is known who asks."""
    return Caller(Principal(_NOBODY, "nobody", frozenset()), address, correlation_id)


async def _record_failure(ports: Ports, origin: Caller, subject: str, way: str) -> None:
    async with ports.catalog.connection() as db:
        entry = Entry("session.open", subject[:254], outcome="denied", facts={"by": way})
        await audit.record(db, origin, entry)


def _fits(verifier: str, password: Secret) -> bool:
    try:
        return HASHER.verify(verifier, password.reveal())
    except (VerificationError, InvalidHashError):
        return False
