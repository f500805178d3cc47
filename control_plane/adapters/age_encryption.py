"""Encryption for somebody else: age, to the public key (``age1…``) of whoever shall read it."""

from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import pyrage  # type: ignore[import-untyped]  # it comes without stubs

from control_plane.domain.errors import Invalid


class Recipient:
    """A public key that data is encrypted to.

    Raises:
        Invalid: the text is no age recipient.
    """

    def __init__(self, text: str) -> None:
        try:
            self._key = pyrage.x25519.Recipient.from_str(text)
        except pyrage.RecipientError as error:
            message = "this is no age recipient; age-keygen prints one that begins with age1"
            raise Invalid(
                f"recipient: {message}", [{"field": "recipient", "message": message}]
            ) from error

    def encrypt(self, pieces: Iterator[bytes], take: Callable[[bytes], None]) -> None:
        """Send all ``pieces`` to ``take``, encrypted. Blocks; memory stays flat.

        What ``pieces`` or ``take`` raises comes out as it was.
        """
        source, sink = _Source(pieces), _Sink(take)
        try:
            pyrage.encrypt_io(cast("BinaryIO", source), cast("BinaryIO", sink), [self._key])
        except pyrage.EncryptError as error:
            # The library keeps no more than the text of an error.
            raise source.error or sink.error or error from None


class _Source:
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            while not self._held:
                self._held = memoryview(next(self._pieces))
        except StopIteration:
            return b""
        except Exception as error:
            self.error = error
            raise
        wanted = size if size >= 0 else len(self._held)
        taken, self._held = self._held[:wanted], self._held[wanted:]
        return bytes(taken)


class _Sink:
    """A function as a file."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self.error: Exception | None = None

    def write(self, data: bytes) -> int:
        try:
            self._take(data)
        except Exception as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""
