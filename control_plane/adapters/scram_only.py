"""asyncpg, made to speak SCRAM-SHA-256 with a tenant server or nothing at all (S-28).

asyncpg answers a server that asks for a cleartext or an MD5 password, at any point of the
handshake, and accepts "authentication OK" from a server that proved nothing. This protocol reads
every message of the handshake first: the server must ask for SCRAM, prove that it knows the
verifier, and only then say OK. libpq has ``require_auth=scram-sha-256`` for the same purpose.
Messages: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import asyncpg
from asyncpg import connect_utils
from asyncpg.protocol import Protocol

from control_plane.domain.errors import ServerRefused

if TYPE_CHECKING:
    _Base = Protocol[asyncpg.Record]
else:
    _Base = Protocol

_HEADER: Final = struct.Struct("!cI")
_STATUS: Final = struct.Struct("!I")
_OK, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 10, 11, 12
_HANDSHAKE: Final = (_SASL, _SASL_CONTINUE, _SASL_FINAL, _OK)
_NAMES: Final = {0: "no password", 2: "Kerberos", 3: "a cleartext password", 5: "an MD5 password"}
# ErrorResponse, NoticeResponse and NegotiateProtocolVersion may come before authentication.
_HARMLESS: Final = frozenset({b"E", b"N", b"v"})
_LONGEST_MESSAGE: Final = 65_536
# A hostile server could ask for 2^31 rounds of hashing; Postgres' own default is 4,096.
_MOST_ITERATIONS: Final = 100_000


class _UnsafeServer(Exception):
    """The server asked for, or claimed, something other than SCRAM-SHA-256."""


class ScramOnlyProtocol(_Base):
    """asyncpg's protocol behind a gate that opens after a complete SCRAM exchange."""

    _held: bytes = b""
    _passed: int = 0
    _refused: bool = False

    @property
    def authenticated(self) -> bool:
        """Whether the whole exchange was seen, the server's own proof included."""
        return self._passed == len(_HANDSHAKE)

    def data_received(self, data: object) -> None:
        """Hand on complete messages that belong to the exchange; refuse everything else."""
        if self.authenticated:
            super().data_received(data)
        elif not self._refused:
            self._held += bytes(data)  # type: ignore[call-overload]  # asyncio hands bytes
            for part in self._released():
                super().data_received(part)

    def _released(self) -> Iterator[bytes]:
        try:
            while part := self._next_part():
                yield part
        except _UnsafeServer as refusal:
            self._refused = True
            # Told as an ErrorResponse, so that asyncpg ends the attempt in its usual way.
            yield _error_response(str(refusal))

    def _next_part(self) -> bytes:
        """One checked message, or everything that is left once the gate is open."""
        if self.authenticated:
            size = len(self._held)
        elif len(self._held) < _HEADER.size:
            return b""
        else:
            kind, length = _HEADER.unpack_from(self._held)
            size = 1 + length
            if length > _LONGEST_MESSAGE:
                raise _UnsafeServer("this is not a Postgres server")
            if len(self._held) < size:
                return b""
            self._check(kind, self._held[_HEADER.size : size])
        part, self._held = self._held[:size], self._held[size:]
        return part

    def _check(self, kind: bytes, body: bytes) -> None:
        if kind in _HARMLESS:
            return
        if kind != b"R" or len(body) < _STATUS.size:
            raise _UnsafeServer("this is not a Postgres server")
        (status,) = _STATUS.unpack_from(body)
        if status != _HANDSHAKE[self._passed]:
            asked = _NAMES.get(status, f"authentication method {status}")
            raise _UnsafeServer(
                f"the server wants {asked} where SCRAM-SHA-256 is required; "
                "set scram-sha-256 in its pg_hba.conf"
            )
        if status == _SASL_CONTINUE:
            _check_iterations(body)
        self._passed += 1


def _check_iterations(body: bytes) -> None:
    found = re.search(rb",i=([0-9]{1,10})(?:,|$)", body)
    if found is None or int(found[1]) > _MOST_ITERATIONS:
        raise _UnsafeServer(
            f"the server wants more than {_MOST_ITERATIONS} SCRAM iterations; "
            "lower scram_iterations and set the password again"
        )


def _error_response(message: str) -> bytes:
    fields = b"SFATAL\0C28000\0M" + message.encode() + b"\0\0"
    return _HEADER.pack(b"E", len(fields) + 4) + fields


_required: ContextVar[bool] = ContextVar("scram_required", default=False)


class _Protocols:
    """What ``asyncpg.connect_utils`` sees as its module of protocols."""

    @staticmethod
    def Protocol(*args: object) -> "Protocol[asyncpg.Record]":  # noqa: N802 - the name it calls
        chosen = ScramOnlyProtocol if _required.get() else Protocol
        return chosen(*args)  # type: ignore[arg-type]  # passed on exactly as asyncpg gave them


# asyncpg has no setting for this. Connections made outside scram_required() are not affected.
connect_utils.protocol = _Protocols  # type: ignore[attr-defined]


@contextmanager
def scram_required() -> Iterator[None]:
    """Inside, ``asyncpg.connect`` speaks SCRAM-SHA-256 only."""
    token = _required.set(True)
    try:
        yield
    finally:
        _required.reset(token)


def check_authenticated(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make sure the gate was really there, whatever a new version of asyncpg does.

    Raises:
        ServerRefused: the connection did not go through ``ScramOnlyProtocol``; it is closed.
    """
    protocol = getattr(connection, "_protocol", None)
    if not (isinstance(protocol, ScramOnlyProtocol) and protocol.authenticated):
        connection.terminate()
        raise ServerRefused("the driver skipped the SCRAM check; pin asyncpg to a tested version")
