"""What is known of a server when it is judged, and what a finding is."""

from typing import Literal

import msgspec

from control_plane.domain.administrators import EVERYTHING, Abilities
from control_plane.domain.preflight_settings import Level

Tls = Literal["disable", "require", "verify-full"]


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One server as its administrator sees it.

    ``settings`` are those of ``SETTINGS`` that the login may see, in the base units of
    ``pg_settings``; ``encoding`` and the locale are those of ``template0``; ``encrypted`` is about
    the connection that asked; ``clock_ahead_seconds`` is the server's clock minus ours;
    ``may`` is what the administrator may do; ``public_databases`` are those that anybody may
    connect to, which it cannot end, ``foreign_roles`` how many of ours it may not act for;
    ``stale_collations`` maps a database to the versions it was made with and runs on.
    """

    version_num: int
    system_identifier: int
    user: str
    in_recovery: bool
    encrypted: bool
    settings: dict[str, str]
    slots_used: int
    senders_used: int
    encoding: str
    locale_provider: Literal["libc", "icu", "builtin"]
    locale: str
    extensions: frozenset[str]
    other_databases: int
    may: Abilities = EVERYTHING
    public_databases: tuple[str, ...] = ()
    foreign_roles: int = 0
    stale_collations: dict[str, str] = {}
    clock_ahead_seconds: float = 0.0

    @property
    def major(self) -> int:
        return self.version_num // 10_000

    @property
    def version(self) -> str:
        return f"{self.major}.{self.version_num % 10_000}"


class Profile(msgspec.Struct, frozen=True):
    """What the enrolment asks of the server: the wanted TLS mode and the number of tenants."""

    tls: Tls
    capacity: int


class Check(msgspec.Struct, frozen=True):
    """One finding; ``remedy`` is there unless ``level`` is ``ok``."""

    name: str
    level: Level
    found: str
    wanted: str
    remedy: str | None = None


def quoted(name: str) -> str:
    """The name as SQL has it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
