"""PgBouncer's files as text: pure, and nothing is written that does not match a strict pattern.

Seen on PgBouncer 1.18.0, against its manual: a quoted name in ``[databases]`` makes the whole
file unreadable, while a bare name may hold letters, digits, ``-``, ``.`` and ``_``; and a second
``[pgbouncer]`` section silently sets every setting before it back to its default. So names are
bare, and the included file continues the section it is included in.
"""

import functools
import hashlib
import ipaddress
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from control_plane.adapters.scram import VERIFIER_PATTERN
from control_plane.catalog.routes import WantedRoute
from control_plane.config import PoolerSettings
from control_plane.domain.errors import Invalid
from control_plane.domain.names import SESSION_SUFFIX, check_slug

ServerTls = Literal["disable", "prefer", "require", "verify-full"]

CONSOLE_USER = "tenantry_agent"
MAIN_FILE = "pgbouncer.ini"
ACCESS_FILE = "access.hba"
DATABASES_FILE = "databases.ini"
USERS_FILE = "users.txt"
AUTHORITIES_FILE = "authorities.pem"
MAX_CLIENTS = 5000
LARGEST_POOL = 10_000
LARGEST_CELL = 4_096

_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    r"(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.IGNORECASE | re.ASCII,
)
_ADDRESS = re.compile(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", re.ASCII)
_DATABASE = re.compile(r"t_[0-9a-z]{26}", re.ASCII)
_LOGIN = re.compile(r"t_[0-9a-z]{26}_app_[ab]", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9_./+=@-]*", re.ASCII)
_ENTRY = re.compile(
    r"(?P<name>[a-z][a-z0-9-]*(?:_session)?) = host=(?P<host>[0-9A-Za-z:.-]+) port=(?P<port>[0-9]+)"
    r" dbname=(?P<database>t_[0-9a-z]{26}) pool_size=(?P<pool_size>[0-9]+)"
    r" pool_mode=(?P<pool_mode>transaction|session)",
    re.ASCII,
)
_TLS_LINE = re.compile(r"server_tls_(sslmode|ca_file) = [A-Za-z0-9_./+=@-]+", re.ASCII)


class Unrenderable(ValueError):
    """A value has no place in a PgBouncer file; the message names the field."""


class Entry(msgspec.Struct, frozen=True):
    """One line of ``[databases]``, as PgBouncer reports it in SHOW DATABASES."""

    host: str
    port: int
    database: str
    pool_size: int
    pool_mode: str


def render_main(settings: PoolerSettings) -> str:
    """``pgbouncer.ini``: everything that does not depend on routes.

    ``server_login_retry = 1`` because the default of 15 makes clients that connect during a
    cut-over wait 14 s; ``min_pool_size = 0`` because a connection made ahead has no client
    whose SCRAM keys it could use.

    Raises:
        Unrenderable: a path, the host or the port cannot be written safely.
    """
    lines = [
        "; Written by Tenantry's agent; a change made here by hand is undone.",
        "[pgbouncer]",
        f"listen_addr = {_host(settings.host)}",
        f"listen_port = {_number('port', settings.port, 65535)}",
        f"unix_socket_dir = {_path(settings.socket_dir)}",
        "unix_socket_mode = 0700",
        "auth_type = hba",
        f"auth_hba_file = {_path(settings.directory / ACCESS_FILE)}",
        f"auth_file = {_path(settings.directory / USERS_FILE)}",
        f"admin_users = {CONSOLE_USER}",
        "pool_mode = transaction",
        "min_pool_size = 0",
        f"max_client_conn = {MAX_CLIENTS}",
        "server_login_retry = 1",
        "server_idle_timeout = 30",
        "query_wait_timeout = 120",
        "ignore_startup_parameters = extra_float_digits,options",
        "tcp_keepidle = 30",
        "tcp_keepintvl = 10",
        "tcp_keepcnt = 3",
        "log_connections = 0",
        "log_disconnections = 0",
        "log_stats = 0",
        f"%include {_path(settings.directory / DATABASES_FILE)}",
    ]
    return "\n".join(lines) + "\n"


def render_access() -> str:
    """The HBA file: SCRAM only, and the console only through the Unix socket (S-13)."""
    return (
        f"local pgbouncer {CONSOLE_USER} scram-sha-256\n"
        "host pgbouncer all 0.0.0.0/0 reject\n"
        "host pgbouncer all ::/0 reject\n"
        "host all all 0.0.0.0/0 scram-sha-256\n"
        "host all all ::/0 scram-sha-256\n"
    )


def render_databases(routes: Iterable[WantedRoute], directory: Path) -> str:
    """``databases.ini``: two entries for each tenant, sorted; the same routes, the same text.

    Raises:
        Unrenderable: a value does not match its pattern, a name occurs twice, or the servers
            disagree about TLS (see ``server_tls``).
    """
    published = list(routes)
    lines = sorted(line for route in published for line in _entry_lines(route))
    _refuse_twice("alias", [line.partition(" ")[0] for line in lines])
    mode = server_tls(published)
    head = [f"server_tls_sslmode = {mode}"]
    if mode == "verify-full":
        head.append(f"server_tls_ca_file = {_path(directory / AUTHORITIES_FILE)}")
    return "\n".join([*head, "[databases]", *lines]) + "\n"


def render_users(routes: Iterable[WantedRoute], console_verifier: str) -> str:
    """``users.txt``: SCRAM verifiers only, the agent's own first.

    Raises:
        Unrenderable: a login or verifier does not match its pattern, or a login occurs twice.
    """
    lines = sorted(line for route in routes for line in _user_lines(route))
    _refuse_twice("login", [line.partition(" ")[0] for line in lines])
    return "\n".join([f'"{CONSOLE_USER}" "{_verifier(console_verifier)}"', *lines]) + "\n"


def parse_databases(text: str) -> dict[str, Entry]:
    """The entries of a ``databases.ini`` of ours, by name.

    Raises:
        Unrenderable: the text holds anything that ``render_databases`` never writes.
    """
    head, section, body = text.partition("[databases]\n")
    if not section or any(_TLS_LINE.fullmatch(line) is None for line in head.splitlines()):
        raise Unrenderable(f"{DATABASES_FILE} does not begin as Tenantry writes it")
    entries: dict[str, Entry] = {}
    for line in body.splitlines():
        found = _ENTRY.fullmatch(line)
        if found is None or found["name"] in entries:
            raise Unrenderable(f"{DATABASES_FILE} holds a line that Tenantry does not write")
        entries[found["name"]] = Entry(
            host=found["host"],
            port=int(found["port"]),
            database=found["database"],
            pool_size=int(found["pool_size"]),
            pool_mode=found["pool_mode"],
        )
    return entries


def tenant_user_lines(text: str) -> list[str]:
    """The lines of a ``users.txt`` that are tenants' logins as ``render_users`` writes them."""
    return [line for line in text.splitlines() if _is_tenant_user(line)]


def server_tls(routes: Iterable[WantedRoute]) -> ServerTls:
    """The one TLS mode of a PgBouncer process that serves these routes.

    PgBouncer 1.18 has one setting for all servers. ``require`` checks no certificate, so it
    may meet ``disable`` in ``prefer``; ``verify-full`` meets nothing else.

    Raises:
        Unrenderable: ``verify-full`` is mixed with another mode.
    """
    modes = {route.tls for route in routes}
    if modes == {"verify-full"}:
        return "verify-full"
    if "verify-full" in modes:
        raise Unrenderable("tls: verify-full cannot be mixed with other modes in one cell")
    if modes == {"require"}:
        return "require"
    return "prefer" if "require" in modes else "disable"


def check_route(route: WantedRoute) -> None:
    """Nothing, if the route can be written.

    Raises:
        Unrenderable: it cannot; the message names the field.
    """
    if route.tls not in {"disable", "require", "verify-full"}:
        raise Unrenderable(f"tls {route.tls!r} is not a mode")
    _entry_lines(route)
    _user_lines(route)


def servable(routes: Iterable[WantedRoute]) -> tuple[list[WantedRoute], list[str]]:
    """The routes that can be written together, and one line for each that cannot.

    A connection that must be verified is never made unverified: where servers disagree about
    TLS, the routes that ask for verification are the ones left out.
    """
    kept, refused = [], []
    for route in routes:
        try:
            check_route(route)
        except Unrenderable as error:
            refused.append(f"route {route.alias!r} is left out: {error}")
        else:
            kept.append(route)
    if len({route.tls == "verify-full" for route in kept}) > 1:
        refused += [
            f"route {route.alias!r} is left out: its server asks for tls verify-full and others "
            "of this cell do not; use one mode for all servers of a cell"
            for route in kept
            if route.tls == "verify-full"
        ]
        kept = [route for route in kept if route.tls != "verify-full"]
    return kept, refused


def served_digest(routes: Iterable[WantedRoute]) -> str:
    """SHA-256, in hex, over what a pooler shall serve for these routes: entries and verifiers.

    It does not depend on the pooler, so the catalog and every pooler of a cell can be compared.
    """
    kept, _ = servable(route for route in routes if route.published)
    lines = sorted(line for route in kept for line in (*_entry_lines(route), *_user_lines(route)))
    return hashlib.sha256("\n".join([server_tls(kept), *lines]).encode()).hexdigest()


def _entry_lines(route: WantedRoute) -> tuple[str, ...]:
    return _entries(
        route.alias,
        route.host,
        route.port,
        route.database,
        route.pool_size,
        route.session_pool_size,
    )


def _user_lines(route: WantedRoute) -> list[str]:
    return [_user(login, verifier) for login, verifier in route.logins.items()]


# A change touches one route of a thousand, and every line is checked at every change.
@functools.lru_cache(maxsize=LARGEST_CELL)
def _entries(
    alias: str, host: str, port: int, database: str, pool_size: int, session_pool_size: int
) -> tuple[str, str]:
    name = _alias(alias)
    target = (
        f"host={_host(host)} port={_number('port', port, 65535)} "
        f"dbname={_matching('database', _DATABASE, database)}"
    )
    pool = _number("pool_size", pool_size, LARGEST_POOL)
    session_pool = _number("session_pool_size", session_pool_size, LARGEST_POOL)
    return (
        f"{name} = {target} pool_size={pool} pool_mode=transaction",
        f"{name}{SESSION_SUFFIX} = {target} pool_size={session_pool} pool_mode=session",
    )


@functools.lru_cache(maxsize=2 * LARGEST_CELL)
def _user(login: str, verifier: str) -> str:
    return f'"{_matching("login", _LOGIN, login)}" "{_verifier(verifier)}"'


def _is_tenant_user(line: str) -> bool:
    login, _, verifier = line.strip('"').partition('" "')
    try:
        return line == _user(login, verifier)
    except Unrenderable:
        return False


def _alias(value: str) -> str:
    try:
        return check_slug(value)
    except (Invalid, TypeError) as error:
        raise Unrenderable(f"alias {value!r} is not a slug, or is reserved") from error


def _host(value: object) -> str:
    """An IP address or a DNS name; never a socket's path or a list."""
    if isinstance(value, str) and _ADDRESS.fullmatch(value):
        try:
            return str(ipaddress.ip_address(value))
        except ValueError as error:
            raise Unrenderable(f"host {value!r} is not an address") from error
    return _matching("host", _HOST, value)


def _number(field: str, value: object, largest: int) -> str:
    if type(value) is not int or not 1 <= value <= largest:
        raise Unrenderable(f"{field} {value!r} is not a number from 1 to {largest}")
    return str(value)


def _path(value: Path) -> str:
    return _matching("path", _PATH, str(value))


def _verifier(value: object) -> str:
    if not isinstance(value, str) or VERIFIER_PATTERN.fullmatch(value) is None:
        raise Unrenderable("verifier: only a SCRAM-SHA-256 verifier may be written")
    return value


def _matching(field: str, pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise Unrenderable(f"{field} {value!r} is not allowed in a PgBouncer file")
    return value


def _refuse_twice(field: str, names: list[str]) -> None:
    for before, after in itertools.pairwise(names):
        if before == after:
            raise Unrenderable(f"{field} {after} occurs twice")
