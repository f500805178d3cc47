"""API keys: made once, shown once, checked on every call (S-23).

A token is ``tnk_<lookup>_<secret>``: the lookup finds the row, the secret (256 random bits) is
known to the catalog only as its SHA-256. A slow hash would add nothing to so many random bits.
"""

import base64
import datetime as dt
import hashlib
import hmac
import re
import secrets
from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import audit, keys, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.keys import ApiKey
from control_plane.catalog.pool import Connection
from control_plane.config import Secret
from control_plane.domain.errors import Invalid, NotFound, Unauthenticated
from control_plane.domain.keys import BREAKGLASS_MAX, Principal, Role
from control_plane.domain.names import parse, show

LIFETIME = dt.timedelta(days=90)
LIFETIME_MAX = dt.timedelta(days=366)
_LOOKUP_BYTES = 10
_SECRET_BYTES = 32
_TOKEN = re.compile(r"tnk_([a-z2-7]{16})_([a-z2-7]{52})")
_NO_HASH = bytes(32)


class NewKey(msgspec.Struct, frozen=True):
    """A request for a key; ``tenant`` (slug or id) binds an ``app`` key to one tenant."""

    name: str
    roles: tuple[Role, ...]
    tenant: str | None = None
    lifetime: dt.timedelta | None = None


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key with its token, which is nowhere kept."""

    key: ApiKey
    token: Secret

    @property
    def plain_token(self) -> str:
        """The token itself, for the one answer or line that shows it."""
        return self.token.reveal()


async def create_key(db: Connection, caller: Caller, wanted: NewKey) -> IssuedKey:
    """Make a key.

    Raises:
        Invalid: a reserved name, no role, a lifetime that is too long, or roles that must not meet.
        NotFound: there is no such tenant.
    """
    _check_name(wanted.name)
    roles = tuple(dict.fromkeys(wanted.roles))
    lifetime = _lifetime(roles, wanted.lifetime)
    _check_binding(roles, wanted.tenant)
    tenant = await tenants.find(db, wanted.tenant) if wanted.tenant else None
    lookup, secret = _random_text(_LOOKUP_BYTES), _random_text(_SECRET_BYTES)
    now = clock.now()
    key = ApiKey(
        id=clock.new_id(),
        lookup=lookup,
        secret_hash=_hash(secret),
        name=wanted.name,
        roles=list(roles),
        tenant_id=tenant.id if tenant else None,
        created_by=caller.principal.name,
        created_at=now,
        expires_at=now + lifetime,
        revoked_at=None,
        last_used_at=None,
        expired=False,
    )
    await keys.insert(db, key)
    ends = f"{key.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    facts: dict[str, object] = {"roles": list(roles), "expires_at": ends}
    await audit.record(
        db,
        caller,
        Entry("key.create", show("ky", key.id), tenant_id=key.tenant_id, facts=facts),
    )
    return IssuedKey(key, Secret(f"tnk_{lookup}_{secret}"))


async def authenticate(db: Connection, token: str) -> Principal:
    """Who calls with this token.

    Raises:
        Unauthenticated: malformed, unknown, revoked or expired.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise Unauthenticated("the token is malformed; it begins with tnk_ and has three parts")
    key = await keys.by_lookup(db, match[1])
    expected = key.secret_hash if key else _NO_HASH
    if not hmac.compare_digest(_hash(match[2]), expected) or key is None:
        raise Unauthenticated("there is no such API key; check the token")
    if key.revoked_at is not None:
        raise Unauthenticated("this API key was revoked; ask for a new one")
    if key.expired:
        raise Unauthenticated(
            f"this API key expired at {key.expires_at:%Y-%m-%dT%H:%M:%SZ}; ask for a new one"
        )
    return Principal(key.id, key.name, frozenset(key.roles), key.tenant_id)


async def revoke_key(db: Connection, caller: Caller, shown_id: str) -> None:
    """End a key at once.

    Raises:
        NotFound: there is no such key.
    """
    key_id = _key_id(shown_id)
    await keys.revoke(db, key_id)
    await audit.record(db, caller, Entry("key.revoke", shown_id))


def _key_id(shown_id: str) -> UUID:
    key_id = parse("ky", shown_id)
    if key_id is None:
        raise NotFound(f"there is no key {shown_id!r}")
    return key_id


def _check_name(name: str) -> None:
    """The audit log shows names: nobody's may look like the system or like break-glass."""
    if name == "system" or name.startswith("cli:"):
        message = "this name is reserved; choose another"
        raise Invalid(message, [{"field": "name", "message": message}])


def _lifetime(roles: tuple[Role, ...], wanted: dt.timedelta | None) -> dt.timedelta:
    longest = BREAKGLASS_MAX if "breakglass" in roles else LIFETIME_MAX
    lifetime = min(LIFETIME, longest) if wanted is None else wanted
    if not dt.timedelta(0) < lifetime <= longest:
        hours = int(longest.total_seconds() // 3600)
        message = f"a key with these roles lives at most {hours} hours; leave days out for that"
        raise Invalid(message, [{"field": "days", "message": message}])
    return lifetime


def _check_binding(roles: tuple[Role, ...], tenant: str | None) -> None:
    """A tenant's application gets nothing but ``app``: any other role looks beyond the tenant."""
    if not roles:
        raise Invalid("a key needs a role", [{"field": "roles", "message": "name at least one"}])
    if tenant is not None and roles != ("app",):
        message = "a key that is bound to a tenant has the role app and no other"
        raise Invalid(message, [{"field": "roles", "message": message}])


def _random_text(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
