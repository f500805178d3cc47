"""Names derived from ids: Postgres never sees what a person typed."""

import re
import unicodedata
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.domain.errors import Invalid

Slot = Literal["a", "b"]

# Crockford's base 32 in lower case, as ULIDs use it: 26 characters hold 128 bits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = {char: value for value, char in enumerate(_ALPHABET)}
_LENGTH = 26

DATABASE_OWNER = "cp_dbowner"
TEMPLATE_OWNER = "cp_template_owner"
TEMPLATE_APP = "cp_template_app"
TEMPLATE_AUDITOR = "cp_template_audit"
TEMPLATE_READER = "cp_template_ro"

SLUG_PATTERN = r"^[a-z][a-z0-9-]{1,38}[a-z0-9]$"
_SLUG_LEAST, _SLUG_MOST = 3, 40
SERVER_NAME_PATTERN = r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$"
RESERVED_SLUGS = frozenset({"pgbouncer", "postgres", "tenantry", "admin", "api", "console"})
# Postgres keeps template0 and template1, and may add to them (S-12).
RESERVED_PREFIX = "template"
TEMPLATE_PREFIX = "tpl_"
SESSION_SUFFIX = "_session"

IdPrefix = Literal["tn", "op", "bk", "sv", "ro", "pl", "ky", "au", "db", "dr", "ex", "ce", "pe"]


def encode(key: UUID) -> str:
    """The 26-character form of an id."""
    number, chars = key.int, []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 32)
        chars.append(_ALPHABET[digit])
    return "".join(reversed(chars))


def decode(text: str) -> UUID:
    """The id written by ``encode``.

    Raises:
        ValueError: the text is not such an id.
    """
    if len(text) != _LENGTH or any(char not in _DIGITS for char in text):
        raise ValueError(f"{text!r} is not an id")
    number = 0
    for char in text:
        number = number * 32 + _DIGITS[char]
    if number >= 1 << 128:
        raise ValueError(f"{text!r} is not an id")
    return UUID(int=number)


def show(prefix: IdPrefix, key: UUID) -> str:
    """The id as people and clients see it, for example ``tn_01k…``."""
    return f"{prefix}_{encode(key)}"


def parse(prefix: IdPrefix, text: str) -> UUID | None:
    """The id inside ``text`` if it carries this prefix and is well formed, else ``None``."""
    head, _, tail = text.partition("_")
    if head != prefix:
        return None
    try:
        return decode(tail)
    except ValueError:
        return None


def check_slug(slug: str) -> str:
    """The slug itself.

    Raises:
        Invalid: it is malformed or reserved; the message says what is allowed.
    """
    if re.fullmatch(SLUG_PATTERN, slug) is None:
        message = (
            "use 3 to 40 characters: lower-case letters, digits and hyphens, "
            "starting with a letter and not ending with a hyphen"
        )
        raise Invalid(f"slug {slug!r}: {message}", [{"field": "slug", "message": message}])
    if slug in RESERVED_SLUGS or slug.startswith(RESERVED_PREFIX):
        word = f"{RESERVED_PREFIX}…" if slug.startswith(RESERVED_PREFIX) else slug
        message = f"{word} is reserved; choose another"
        raise Invalid(f"slug {slug!r}: {message}", [{"field": "slug", "message": message}])
    return slug


def suggest_slug(name: str) -> str:
    """A slug made of what a person typed: well formed unless nothing usable is in it."""
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    plain = plain.replace("'", "")
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-").lstrip("0123456789-")
    slug = words[:_SLUG_MOST].strip("-")
    if slug in RESERVED_SLUGS or slug.startswith(RESERVED_PREFIX) or 0 < len(slug) < _SLUG_LEAST:
        return f"clinic-{slug}"[:_SLUG_MOST].strip("-")
    return slug


def database_name(key: UUID) -> str:
    """The physical name of the database with this id."""
    return f"t_{encode(key)}"


def loader_name(database: str) -> str:
    """The login that loads a backup into the scratch database of this name."""
    return f"{database}_load"


def template_name(fingerprint: str) -> str:
    """The closed template database of one template version; ``fingerprint`` is 16 hex digits."""
    return f"{TEMPLATE_PREFIX}{fingerprint}"


class RoleSet(msgspec.Struct, frozen=True):
    """The Postgres roles of one tenant, all derived from the tenant's id."""

    key: UUID

    @property
    def prefix(self) -> str:
        return database_name(self.key)

    @property
    def owner(self) -> str:
        return f"{self.prefix}_owner"

    @property
    def app(self) -> str:
        return f"{self.prefix}_app"

    @property
    def login_a(self) -> str:
        return self.login("a")

    @property
    def login_b(self) -> str:
        return self.login("b")

    @property
    def migrator(self) -> str:
        return f"{self.prefix}_mig"

    @property
    def backup(self) -> str:
        return f"{self.prefix}_bak"

    @property
    def auditor(self) -> str:
        return f"{self.prefix}_audit"

    @property
    def reader(self) -> str:
        return f"{self.prefix}_ro"

    @property
    def logins(self) -> tuple[str, str]:
        return self.login_a, self.login_b

    @property
    def every(self) -> tuple[str, ...]:
        return (
            self.owner,
            self.app,
            self.login_a,
            self.login_b,
            self.migrator,
            self.backup,
            self.auditor,
            self.reader,
        )

    def login(self, slot: Slot) -> str:
        return f"{self.prefix}_app_{slot}"
