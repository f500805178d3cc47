"""The shapes of words in requests, and how to say them to a person who got one wrong."""

import re
from collections.abc import Mapping
from typing import get_args

from control_plane.catalog.servers import Tls
from control_plane.domain.keys import ROLES
from control_plane.domain.names import SERVER_NAME_PATTERN
from control_plane.domain.operations import OperationState
from control_plane.domain.people import EMAIL_PATTERN, EMAIL_WORDS
from control_plane.domain.providers import PROVIDERS
from control_plane.domain.rollouts import TargetState
from control_plane.domain.tenants import TIERS, TenantState

PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
SLUG_PREFIX = r"^[a-z][a-z0-9-]{0,39}$"
REGION = r"^[a-z0-9][a-z0-9-]{0,62}$"
IDEMPOTENCY_KEY = r"^[!-~]{1,200}$"
CURSOR = r"^[0-7][0-9a-hjkmnp-tv-z]{25}$"
AUDIT_CURSOR = r"^[1-9][0-9]{0,17}$"
NAME_OR_ID = r"^[A-Za-z0-9_-]{1,64}$"
SHARE = r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,3})?)%$"
AGE_RECIPIENT = r"^age1[02-9ac-hj-np-z]{58}$"
SHOWN_ID = r"^[a-z]{2}_[0-7][0-9a-hjkmnp-tv-z]{25}$"

PATTERN_WORDS = {
    PRINTABLE: "use printable characters only",
    SLUG_PREFIX: "use the beginning of a slug: lower-case letters, digits and hyphens",
    REGION: "use 1 to 63 lower-case letters, digits and hyphens",
    IDEMPOTENCY_KEY: "use 1 to 200 visible ASCII characters, for example a UUID",
    CURSOR: "this is no cursor; use next_cursor of the page before",
    AUDIT_CURSOR: "this is no cursor; use next_cursor of the page before",
    NAME_OR_ID: "this is neither a name nor an id",
    SERVER_NAME_PATTERN: (
        "use 2 to 40 characters: lower-case letters, digits and hyphens, starting with a letter "
        "and not ending with a hyphen"
    ),
    SHARE: "use a percentage from 0% to 100%, such as 25%",
    SHOWN_ID: "this is no id",
    EMAIL_PATTERN: EMAIL_WORDS,
    AGE_RECIPIENT: "this is no age recipient; age-keygen prints one that begins with age1",
}

# By the name of the parameter or field, as the framework reports it.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "provider": PROVIDERS,
    "tier": TIERS,
    "tls": get_args(Tls),
    "pool": ("transaction", "session"),
    "roles": ROLES,
    "operation_state": get_args(OperationState),
    "target_state": get_args(TargetState),
    "tenant_state": get_args(TenantState),
    "select.tiers": TIERS,
    "target": ("in_place", 'an object with the slug of a new tenant, {"slug": …}'),
    "target.tier": TIERS,
}
_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a JSON object",
    "array": "a list",
}
_LIMITS = {">=": "at least", "<=": "at most"}
_LENGTH = re.compile(r"Expected `(str|array|object)` of length (>=|<=) (\d+)")
_RANGE = re.compile(r"Expected `int` (>=|<=) (-?\d+)")
_KIND = re.compile(r"Expected `([\w |]+)`, got `(\w+)`")
_CHOICE = "Invalid enum value "
_TIME = "Invalid RFC3339 encoded datetime"


def plain(key: str, message: str) -> str:
    """What the decoder says of the field ``key``, as a person would; else its own words."""
    choices = _CHOICES.get(key.partition("[")[0])
    if message.startswith(_CHOICE) and choices:
        return f"{message.removeprefix(_CHOICE)} is none of: {', '.join(choices)}"
    if message.startswith(_TIME):
        return "use a time such as 2026-01-31T08:00:00Z"
    return _limit(message) or _kind(message) or message


def _limit(message: str) -> str | None:
    if found := _LENGTH.search(message):
        counted = "characters" if found[1] == "str" else "entries"
        amount = f"{_LIMITS[found[2]]} {found[3]}"
        return "must not be empty" if amount == "at least 1" else f"use {amount} {counted}"
    if found := _RANGE.search(message):
        return f"use a whole number of {_LIMITS[found[1]]} {found[2]}"
    return None


def _kind(message: str) -> str | None:
    if found := _KIND.search(message):
        wanted = (_KINDS.get(kind, kind) for kind in found[1].split(" | ") if kind != "null")
        return f"{' or '.join(wanted)} is required, not {_KINDS.get(found[2], found[2])}"
    return None
