import ipaddress
import socket

import pytest

from control_plane.adapters.network import Network, check_host, resolve
from control_plane.domain.errors import Invalid, ServerUnavailable

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
NOWHERE: tuple[Network, ...] = ()


def names_lead_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Every name leads to these; the names that were asked for are kept."""
    asked: list[str] = []

    def answer(host: str, port: int, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port)) for found in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "/var/run/postgresql",
        "@abstract",
        "a,b",
        "db.example.com,169.254.169.254",
        "host=evil",
        "db example",
        "db.example.com/x",
        "user@db.example.com",
        "db.example.com:5432",
        "[::1]",
        "fe80::1%eth0",
        "127.0.0.1%lo",
        "-db.example.com",
        "db-.example.com",
        "db..example.com",
        ".",
        "db\n.example.com",
        "db\0.example.com",
        "dь.example.com",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.0x1",
        "0177.0.0.1",
        "127.0.0.1.",
        "1.2.3.4.5",
        "a" * 64 + ".example.com",
        ".".join(["a" * 50] * 6),
    ],
)
def test_what_is_no_plain_host_is_refused(host: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_host(host)
    assert refused.value.errors[0]["field"] == "host"


@pytest.mark.parametrize(
    "host",
    ["db", "db-1.example.com", "db_1.internal", "db.example.com.", "10.0.0.7", "2001:db8::1"],
)
def test_plain_names_and_addresses_are_hosts(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.10", "loopback"),
        ("::1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "no address"),  # noqa: S104 - refused, never bound
        ("::", "no address"),
        ("0.1.2.3", "reserved"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("fec0::1", "reserved"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("::ffff:127.0.0.1", "IPv4 address in IPv6 form"),
        ("::ffff:10.0.0.7", "IPv4 address in IPv6 form"),
        ("::ffff:a9fe:a9fe", "IPv4 address in IPv6 form"),
        ("2002:7f00:1::", "IPv4 address in IPv6 form"),
        ("2001:0:1::1", "IPv4 address in IPv6 form"),
        ("::127.0.0.1", "reserved"),
        ("64:ff9b::7f00:1", "reserved"),
    ],
)
async def test_addresses_that_are_no_database_network_are_refused(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid, match=words) as direct:
        await resolve(address, 5432, NOWHERE)
    assert direct.value.errors[0]["field"] == "host"
    names_lead_to(monkeypatch, address)
    with pytest.raises(Invalid, match=words):
        await resolve("innocent.example.com", 5432, NOWHERE)


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "172.16.0.9", "8.8.8.8"])
async def test_private_and_public_addresses_may_be_dialled(address: str) -> None:
    assert await resolve(address, 5432, NOWHERE) == address


async def test_ipv6_addresses_may_be_dialled() -> None:
    assert await resolve("2A00:1450:0::5", 5432, NOWHERE) == "2a00:1450::5"
    assert await resolve("fd12:3456::5", 5432, NOWHERE) == "fd12:3456::5"


async def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    assert await resolve("127.0.0.1", 5432, LOOPBACK) == "127.0.0.1"
    for other in ("::1", "169.254.169.254", "::ffff:127.0.0.1"):
        with pytest.raises(Invalid):
            await resolve(other, 5432, LOOPBACK)


async def test_one_bad_address_among_good_ones_refuses_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names_lead_to(monkeypatch, "10.0.0.7", "169.254.169.254")
    with pytest.raises(Invalid, match=r"leads to 169\.254\.169\.254"):
        await resolve("db.example.com", 5432, NOWHERE)


async def test_a_name_is_asked_once_and_its_address_is_what_will_be_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = names_lead_to(monkeypatch, "10.0.0.7", "10.0.0.8")
    assert await resolve("db.example.com", 5432, NOWHERE) == "10.0.0.7"
    assert asked == ["db.example.com"]


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(Invalid) as refused:
        await resolve("10.0.0.7", port, NOWHERE)
    assert refused.value.errors[0]["field"] == "port"


@pytest.mark.parametrize(
    ("errno", "error"),
    [(socket.EAI_NONAME, Invalid), (socket.EAI_AGAIN, ServerUnavailable)],
)
async def test_a_name_that_does_not_exist_is_told_apart_from_a_resolver_that_is_away(
    errno: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "as the resolver says")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(error, match=r"db\.example\.com"):
        await resolve("db.example.com", 5432, NOWHERE)
