"""Looking at a server before it is enrolled: nothing is written, and every reason is told at once.

This is the one service that speaks to a tenant server, so that a server which cannot work leaves
nothing behind. It runs outside of any transaction; ``servers.add_server`` records what it found.
"""

import re
import ssl

import msgspec

from control_plane.adapters import network, server_probe
from control_plane.adapters.postgres_server import ServerAddress
from control_plane.catalog.servers import Tls
from control_plane.config import Secret
from control_plane.domain.errors import Invalid, ServerRefused, ServerRejected, ServerUnavailable
from control_plane.domain.names import SERVER_NAME_PATTERN
from control_plane.domain.preflight import assess
from control_plane.domain.preflight_facts import Check, Profile
from control_plane.domain.tenants import Tier
from control_plane.services.ports import Ports

_WRONG_PASSWORD = "28P01"  # noqa: S105 - an SQLSTATE
_HIGHEST_PORT = 65_535
_MOST_CAPACITY = 10_000
_LONGEST_TEXT = 100
_LONGEST_ROLE = 63
_MOST_LABELS = 50
_NAME_RULE = (
    "use 2 to 40 characters: lower-case letters, digits and hyphens, starting with a letter and "
    "not ending with a hyphen"
)
_TEXT_RULE = f"use 1 to {_LONGEST_TEXT} printable characters"


class NewServer(msgspec.Struct, frozen=True, kw_only=True):
    """A request to enrol a server; ``tier`` ``None`` takes every shared tier.

    ``tls`` left out means ``verify-full`` when ``ca_pem`` is given; else ``disable`` inside the
    networks of ``TENANTRY_SERVER_NETWORKS``, which the deployment trusts, and ``require`` anywhere
    else.
    """

    name: str
    host: str
    port: int
    user: str
    password: Secret
    region: str | None = None
    tier: Tier | None = None
    capacity: int = 500
    labels: dict[str, str] = {}
    tls: Tls | None = None
    ca_pem: str | None = None


class Probed(msgspec.Struct, frozen=True):
    """What a look at a server found, when nothing stands against enrolling it."""

    hostaddr: str
    tls: Tls
    system_identifier: int
    version_num: int
    checks: list[Check]


async def probe_server(ports: Ports, wanted: NewServer) -> Probed:
    """Check the request, then look at the server, for about 8 seconds at most. Writes nothing.

    Raises:
        Invalid: fields that cannot be meant, all of them; or an address that may not be dialled.
        ServerUnavailable: nobody answers there.
        ServerRefused: wrong password, unsafe authentication or a bad certificate.
        ServerRejected: the server cannot hold tenants; every problem with its remedy.
    """
    _check_fields(wanted)
    networks = ports.settings.server_networks
    hostaddr = await network.resolve(wanted.host, wanted.port, networks)
    tls = wanted.tls or _default_tls(wanted, trusted=network.within(hostaddr, networks))
    address = ServerAddress(
        host=wanted.host,
        port=wanted.port,
        user=wanted.user,
        password=wanted.password,
        hostaddr=hostaddr,
        tls=tls,
        ca_pem=wanted.ca_pem,
    )
    try:
        facts = await server_probe.probe(address)
    except (ServerUnavailable, ServerRefused) as error:
        message = f"{wanted.user} at {wanted.host}:{wanted.port}: {error.message}"
        if error.facts.get("state") == _WRONG_PASSWORD:
            message += "; check the user and the password"
        raise type(error)(message, **error.facts) from error
    checks = assess(facts, Profile(tls, wanted.capacity))
    _refuse_problems(wanted, checks)
    return Probed(hostaddr, tls, facts.system_identifier, facts.version_num, checks)


def _check_fields(wanted: NewServer) -> None:
    rules = (
        ("name", re.fullmatch(SERVER_NAME_PATTERN, wanted.name), _NAME_RULE),
        ("port", 0 < wanted.port <= _HIGHEST_PORT, f"give a port from 1 to {_HIGHEST_PORT}"),
        ("user", _is_text(wanted.user, _LONGEST_ROLE), "give the administrator's role name"),
        ("password", _is_password(wanted.password), "give the administrator's password"),
        ("region", wanted.region is None or _is_text(wanted.region), _TEXT_RULE),
        ("labels", _are_labels(wanted.labels), f"up to {_MOST_LABELS}; for each: {_TEXT_RULE}"),
        ("capacity", 0 < wanted.capacity <= _MOST_CAPACITY, f"give 1 to {_MOST_CAPACITY} tenants"),
        ("ca_pem", wanted.ca_pem is None or _is_pem(wanted.ca_pem), "give a certificate as PEM"),
        ("ca_pem", wanted.ca_pem or wanted.tls != "verify-full", "tls=verify-full needs the CA"),
        ("tls", not wanted.ca_pem or wanted.tls != "disable", "a CA has no use with tls=disable"),
    )
    errors = [{"field": field, "message": words} for field, good, words in rules if not good]
    try:
        network.check_host(wanted.host)
    except Invalid as error:
        errors += error.errors
    if errors:
        listed = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
        raise Invalid(f"server {wanted.name!r} cannot be enrolled: {listed}", errors)


def _is_text(value: str, longest: int = _LONGEST_TEXT) -> bool:
    return 0 < len(value.encode(errors="replace")) <= longest and value.isprintable()


def _is_password(password: Secret) -> bool:
    value = password.reveal()
    return bool(value) and "\0" not in value


def _are_labels(labels: dict[str, str]) -> bool:
    texts = [text for pair in labels.items() for text in pair]
    return len(labels) <= _MOST_LABELS and all(_is_text(text) for text in texts)


def _is_pem(text: str) -> bool:
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return "CERTIFICATE" in text


def _default_tls(wanted: NewServer, *, trusted: bool) -> Tls:
    if wanted.ca_pem is not None:
        return "verify-full"
    return "disable" if trusted else "require"


def _refuse_problems(wanted: NewServer, checks: list[Check]) -> None:
    problems = [check for check in checks if check.level == "problem"]
    if problems:
        raise ServerRejected(
            f"server {wanted.name} cannot hold tenants yet: "
            f"{len(problems)} problem{'s' * (len(problems) > 1)}; mend what is listed, "
            "then enrol again",
            [{"field": check.name, "message": _told(check)} for check in problems],
        )


def _told(check: Check) -> str:
    return f"found {check.found}; wanted {check.wanted}; {check.remedy}"
