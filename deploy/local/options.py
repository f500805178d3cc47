"""What one stack should be; sent as JSON from the caller to its supervisor."""

from pathlib import Path
from typing import Any, Literal

import msgspec


class ServerOptions(msgspec.Struct, frozen=True):
    """One tenant server of the stack and how it is enrolled."""

    name: str
    binaries: Literal["system", "wheel"]
    region: str = "local"
    capacity: int = 500


DEFAULT_SERVERS = (ServerOptions("pg-a", "system"), ServerOptions("pg-b", "wheel"))


class StackOptions(msgspec.Struct, frozen=True):
    """One stack.

    ``attached`` ties the stack to the process that started it: when that one ends, however
    it ends, the stack stops. ``application`` off starts only the servers of other projects.
    ``doubled``: two APIs, two workers of each queue, two beats, and a standby of the catalog.
    ``limited``: servers of Postgres 16 and newer are enrolled with an administrator that is no
    superuser.
    ``environment`` is added to every process of the application, ``process_environment`` to
    the named ones. ``postgres_settings`` are added to every Postgres server.
    """

    home: Path
    attached: bool = False
    application: bool = True
    demo: bool = True
    servers: tuple[ServerOptions, ...] = DEFAULT_SERVERS
    poolers: tuple[str, ...] = ("p1", "p2")
    doubled: bool = False
    limited: bool = False
    postgres_settings: dict[str, str] = {}
    environment: dict[str, str] = {}
    process_environment: dict[str, dict[str, str]] = {}
    minimum_free_bytes: int = 1 << 30


def encode(options: StackOptions) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(options, enc_hook=str) + b"\n"


def decode(line: bytes) -> StackOptions:
    """The options of a line that ``encode`` wrote.

    Raises:
        msgspec.DecodeError: it is no such line.
    """
    return msgspec.json.decode(line, type=StackOptions, dec_hook=_from_text)


def _from_text(kind: type[Any], text: str) -> Any:  # noqa: ANN401 msgspec's signature
    return kind(text)
