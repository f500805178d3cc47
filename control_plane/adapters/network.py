"""Which addresses the control plane may be sent to (S-28).

A host is a plain name or address; every address behind it is judged, and the one that is returned
is dialled from then on, so that a name cannot lead elsewhere later. Only of a server that proves
itself by its certificate the name is asked again, when it does not answer any more.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence

from control_plane.domain.errors import Invalid, ServerUnavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RESOLVE_SECONDS = 3.0
_LONGEST_NAME = 253
_HIGHEST_PORT = 65_535
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
# Where clouds hand out credentials and configuration outside of link-local addresses:
# Azure's WireServer, Alibaba's and Oracle's metadata services, AWS's over IPv6.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)


async def resolve(host: str, port: int, allowed: Sequence[Network]) -> str:
    """The one address to dial for ``host``.

    Addresses inside ``allowed`` are always good. Others must not be loopback, link-local (where
    metadata services live), multicast, reserved, or IPv4 in IPv6 clothes. Private networks are
    good: databases live there.

    Raises:
        Invalid: ``host`` is no plain name or address, does not exist, or leads where it may not.
        ServerUnavailable: name resolution does not answer.
    """
    check_host(host)
    if not 0 < port <= _HIGHEST_PORT:
        raise _invalid("port", f"{port} is no port; give 1 to {_HIGHEST_PORT}")
    addresses = await _addresses(host, port)
    for address in addresses:
        words = refusal(address, allowed)
        if words is not None:
            raise _invalid(
                "host",
                f"{host} leads to {address}, which is {words}; give an address of a database "
                "network, or add it to TENANTRY_SERVER_NETWORKS if that is meant",
            )
    return str(addresses[0])


def check_host(host: str) -> None:
    """Refuse what is not one plain host name, IPv4 or IPv6 address.

    Connection strings, lists, socket paths, zones and the odd numeric forms of IPv4
    (``127.1``, ``0x7f000001``) are none.

    Raises:
        Invalid: it is not.
    """
    if _literal(host) is not None:
        return
    labels = host.removesuffix(".").split(".")
    well_formed = len(host) <= _LONGEST_NAME and all(_LABEL.fullmatch(label) for label in labels)
    if not well_formed or re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", labels[-1]):
        raise _invalid("host", f"{host!r} is no host; give one plain host name or IP address")


def refusal(address: Address, allowed: Sequence[Network]) -> str | None:
    """Why this address may not be dialled, in words, or ``None`` when it may."""
    if within(address, allowed):
        return None
    # Order matters: the broader words come last.
    judgements = (
        (_carries_ipv4(address), "an IPv4 address in IPv6 form"),
        (address.is_unspecified, "no address"),
        (address.is_loopback, "this machine itself (loopback)"),
        (address.is_link_local, "link-local, where metadata services live"),
        (address in _METADATA, "a metadata service of a cloud"),
        (address.is_multicast, "multicast"),
        (address.is_reserved or _is_this_network(address), "reserved"),
    )
    return next((words for refused, words in judgements if refused), None)


def within(address: Address | str, networks: Sequence[Network]) -> bool:
    """Whether the address lies in one of these networks."""
    return any(ipaddress.ip_address(address) in network for network in networks)


def _carries_ipv4(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return False
    return any((address.ipv4_mapped, address.sixtofour, address.teredo))


def _is_this_network(address: Address) -> bool:
    # 0.0.0.0/8: Linux takes it for this machine. fec0::/10: withdrawn site-local.
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed[0] == 0
    return address.is_site_local


async def _addresses(host: str, port: int) -> list[Address]:
    literal = _literal(host)
    if literal is not None:
        return [literal]
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
    except TimeoutError as error:
        raise ServerUnavailable(f"the name {host} is not resolved in time; try again") from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise ServerUnavailable(f"the name {host} cannot be resolved now: {error}") from error
        raise _invalid("host", f"the name {host} does not exist; check the spelling") from error
    except UnicodeError as error:
        raise _invalid("host", f"{host!r} is no host name") from error
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


def _literal(host: str) -> Address | None:
    # A zone ("fe80::1%eth0") would name one of our own network cards.
    if "%" in host:
        return None
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(message, [{"field": field, "message": message}])
