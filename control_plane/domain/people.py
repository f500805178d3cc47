"""People who sign in to the console: principals like API keys, with the same roles."""

import datetime as dt
import re
from typing import Literal, get_args
from uuid import UUID

import msgspec

from control_plane.domain.errors import Invalid
from control_plane.domain.keys import Principal

# What a person may be. ``app`` lets a person hand DSNs over; break-glass is for keys, which end.
PersonRole = Literal["sales_ops", "operator", "security_admin", "auditor", "app"]
PERSON_ROLES: tuple[PersonRole, ...] = get_args(PersonRole)

IDLE = dt.timedelta(minutes=15)
ABSOLUTE = dt.timedelta(hours=12)
LINK_LIFETIME = dt.timedelta(hours=24)
PASSWORD_LEAST = 12
PASSWORD_MOST = 200
# Printable ASCII without quotes, angle brackets and @: what is white space differs between engines.
EMAIL_PATTERN = "^[!#-;=?A-~]{1,64}@[A-Za-z0-9.-]{1,189}$"
EMAIL_WORDS = "use an address such as ada@example.com"


class Person(msgspec.Struct, frozen=True):
    """One person as recorded, without the password's verifier."""

    id: UUID
    email: str
    name: str
    roles: list[PersonRole]
    has_password: bool
    created_by: str
    created_at: dt.datetime
    disabled_at: dt.datetime | None

    @property
    def principal(self) -> Principal:
        """The person as services and the audit log know callers."""
        return Principal(self.id, self.email, frozenset(self.roles))


def check_email(email: str) -> str:
    """The address as it is recorded: in lower case.

    Raises:
        Invalid: it is no address.
    """
    if re.fullmatch(EMAIL_PATTERN, email) is None:
        errors = [{"field": "email", "message": EMAIL_WORDS}]
        raise Invalid(f"email {email!r}: {EMAIL_WORDS}", errors)
    return email.lower()


def check_password(password: str) -> None:
    """Length is what counts; the limit above spares the server (NIST SP 800-63B).

    Raises:
        Invalid: it is too short or too long.
    """
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        message = f"use {PASSWORD_LEAST} to {PASSWORD_MOST} characters; a sentence is good"
        raise Invalid(f"password: {message}", [{"field": "password", "message": message}])
