"""People, their sessions and sign-in links in the catalog; secrets only as hashes (S-32)."""

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection, Record
from control_plane.domain.errors import NotFound
from control_plane.domain.names import parse
from control_plane.domain.people import Person

_COLUMNS = """p.id, p.email, p.name, p.roles, p.verifier IS NOT NULL AS has_password,
              p.created_by, p.created_at, p.disabled_at"""


class Session(msgspec.Struct, frozen=True):
    """A living session and whose it is."""

    person: Person
    csrf_token: str
    created_at: dt.datetime


async def insert(db: Connection, person: Person, verifier: str | None) -> None:
    """Record a person.

    Raises:
        Conflict: somebody has this address.
    """
    await db.execute(
        """INSERT INTO people (id, email, name, roles, verifier, created_by)
           VALUES ($1, $2, $3, $4, $5, $6)""",
        person.id,
        person.email,
        person.name,
        person.roles,
        verifier,
        person.created_by,
    )


async def page(db: Connection, *, after: UUID | None, limit: int) -> list[Person]:
    """Up to ``limit`` people, in the order they were added, beginning after ``after``."""
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM people p
            WHERE $1::uuid IS NULL OR p.id > $1 ORDER BY p.id LIMIT $2""",  # noqa: S608 - a constant of this module
        after,
        limit,
    )
    return [_person(row) for row in rows]


async def email_is_taken(db: Connection, email: str) -> bool:
    return bool(await db.fetchval("SELECT EXISTS (SELECT FROM people WHERE email = $1)", email))


async def find(db: Connection, shown_id: str) -> Person:
    """The person with this ``pe_`` id, disabled or not.

    Raises:
        NotFound: there is none.
    """
    key = parse("pe", shown_id)
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM people p WHERE p.id = $1", key)  # noqa: S608 - a constant of this module
    if row is None:
        raise NotFound(f"there is no person {shown_id!r}")
    return _person(row)


async def verifier_of(db: Connection, email: str) -> tuple[Person, str | None] | None:
    """The person who may sign in with this address, and the verifier of the password."""
    row = await db.fetchrow(
        f"""SELECT {_COLUMNS}, p.verifier FROM people p
            WHERE p.email = $1 AND p.disabled_at IS NULL""",  # noqa: S608 - a constant of this module
        email.lower(),
    )
    if row is None:
        return None
    fields = dict(row)
    verifier: str | None = fields.pop("verifier")
    return Person(**fields), verifier


async def set_verifier(db: Connection, person_id: UUID, verifier: str) -> None:
    await db.execute("UPDATE people SET verifier = $2 WHERE id = $1", person_id, verifier)


async def of_subject(db: Connection, subject: str, email: str) -> Person | None:
    """Whom the provider means: known by its subject, or by the address the first time."""
    row = await db.fetchrow(
        f"""SELECT {_COLUMNS} FROM people p
            WHERE p.subject = $1 OR (p.subject IS NULL AND p.email = $2)
            ORDER BY p.subject NULLS LAST LIMIT 1 FOR UPDATE""",  # noqa: S608 - a constant of this module
        subject,
        email.lower(),
    )
    return _person(row) if row else None


async def bind(db: Connection, person_id: UUID, subject: str, roles: Sequence[str]) -> None:
    """The person is the provider's from now on, with the roles that follow from its claims."""
    await db.execute(
        "UPDATE people SET subject = $2, roles = $3 WHERE id = $1", person_id, subject, list(roles)
    )


async def disable(db: Connection, person_id: UUID) -> None:
    """Nobody signs in as this person any more; what is open ends at once."""
    await db.execute(
        "UPDATE people SET disabled_at = coalesce(disabled_at, clock_timestamp()) WHERE id = $1",
        person_id,
    )
    await end_sessions_of(db, person_id)
    await db.execute("DELETE FROM sign_in_links WHERE person_id = $1", person_id)


async def open_session(db: Connection, id_hash: bytes, person_id: UUID, csrf_token: str) -> None:
    await db.execute(
        "INSERT INTO sessions (id_hash, person_id, csrf_token) VALUES ($1, $2, $3)",
        id_hash,
        person_id,
        csrf_token,
    )


async def use_session(
    db: Connection, id_hash: bytes, *, idle: dt.timedelta, absolute: dt.timedelta
) -> Session | None:
    """The session if it is within its limits; its use is noted, at most every ten seconds."""
    row = await db.fetchrow(
        f"""WITH living AS (
                SELECT s.* FROM sessions s
                WHERE s.id_hash = $1 AND s.last_seen_at > clock_timestamp() - $2::interval
                  AND s.created_at > clock_timestamp() - $3::interval),
            noted AS (
                UPDATE sessions s SET last_seen_at = clock_timestamp() FROM living l
                WHERE s.id_hash = l.id_hash
                  AND l.last_seen_at < clock_timestamp() - interval '10 seconds')
            SELECT {_COLUMNS}, l.csrf_token, l.created_at AS session_created_at
            FROM living l JOIN people p ON p.id = l.person_id AND p.disabled_at IS NULL""",  # noqa: S608 - a constant of this module
        id_hash,
        idle,
        absolute,
    )
    if row is None:
        return None
    fields = dict(row)
    token, created_at = fields.pop("csrf_token"), fields.pop("session_created_at")
    return Session(Person(**fields), token, created_at)


async def session_lives(
    db: Connection, id_hash: bytes, *, idle: dt.timedelta, absolute: dt.timedelta
) -> bool:
    """Whether a session is within its limits; looking is no use of it."""
    return bool(
        await db.fetchval(
            """SELECT EXISTS (
                   SELECT FROM sessions s JOIN people p ON p.id = s.person_id
                   WHERE s.id_hash = $1 AND p.disabled_at IS NULL
                     AND s.last_seen_at > clock_timestamp() - $2::interval
                     AND s.created_at > clock_timestamp() - $3::interval)""",
            id_hash,
            idle,
            absolute,
        )
    )


async def end_session(db: Connection, id_hash: bytes) -> None:
    await db.execute("DELETE FROM sessions WHERE id_hash = $1", id_hash)


async def end_sessions_of(db: Connection, person_id: UUID) -> None:
    await db.execute("DELETE FROM sessions WHERE person_id = $1", person_id)


async def forget_ended_sessions(
    db: Connection, *, idle: dt.timedelta, absolute: dt.timedelta
) -> None:
    """Sessions and links that nobody can use any more need not be kept."""
    await db.execute(
        """DELETE FROM sessions WHERE last_seen_at <= clock_timestamp() - $1::interval
              OR created_at <= clock_timestamp() - $2::interval""",
        idle,
        absolute,
    )
    await db.execute("DELETE FROM sign_in_links WHERE expires_at <= clock_timestamp()")


async def insert_link(
    db: Connection, token_hash: bytes, person_id: UUID, lifetime: dt.timedelta
) -> dt.datetime:
    """Record a sign-in link; the answer is when it ends."""
    ends: dt.datetime = await db.fetchval(
        """INSERT INTO sign_in_links (token_hash, person_id, expires_at)
           VALUES ($1, $2, clock_timestamp() + $3::interval) RETURNING expires_at""",
        token_hash,
        person_id,
        lifetime,
    )
    return ends


async def use_link(db: Connection, token_hash: bytes) -> Person | None:
    """Whose link it is, the first time and within its life; afterwards it is nobody's."""
    row = await db.fetchrow(
        f"""WITH used AS (
                UPDATE sign_in_links SET used_at = clock_timestamp()
                WHERE token_hash = $1 AND used_at IS NULL AND expires_at > clock_timestamp()
                RETURNING person_id)
            SELECT {_COLUMNS} FROM used u
            JOIN people p ON p.id = u.person_id AND p.disabled_at IS NULL""",  # noqa: S608 - a constant of this module
        token_hash,
    )
    return _person(row) if row else None


def _person(row: Record) -> Person:
    return Person(**dict(row))
