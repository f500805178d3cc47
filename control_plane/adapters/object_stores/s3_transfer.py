"""Bytes on their way: the body of a request, and an object that is read to its end."""

import base64
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from control_plane.adapters.object_stores.patience import Patience
from control_plane.adapters.object_stores.s3_errors import translated
from control_plane.domain.errors import BackupCorrupt, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

_PIECE_BYTES = 1024 * 1024
_NO_TAG = {"", '""'}  # what rclone sends for an object that it has not hashed
_NOT_THE_SAME = {"412", "416", "InvalidRange", "PreconditionFailed"}


class Body:
    """Pieces of memory as the file that botocore sends, one piece for each ``read``.

    Nothing is joined or copied; and a timeout is for a piece, not for a part that a slow line
    needs minutes for. A body is sent once: another attempt takes another one.
    """

    def __init__(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        views = (memoryview(piece) for piece in pieces)
        self._pieces = [
            view[start : start + _PIECE_BYTES]
            for view in views
            for start in range(0, len(view), _PIECE_BYTES)
        ]
        self._next = 0

    def read(self, size: int | None = -1) -> bytes | memoryview:
        """The next piece, whatever size is asked for; all that is left when none is."""
        if size is None or size < 0:
            left, self._next = self._pieces[self._next :], len(self._pieces)
            return b"".join(left)
        if self._next == len(self._pieces):
            return b""
        self._next += 1
        return self._pieces[self._next - 1]

    def tell(self) -> int:
        return sum(map(len, self._pieces[: self._next]))

    def seek(self, position: int) -> int:
        """Go back to the start; botocore goes nowhere else."""
        if position:
            raise OSError("a body is read from its start only")
        self._next = 0
        return 0

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def crc32(self) -> str:
        """The checksum as S3 writes it."""
        value = 0
        for piece in self._pieces:
            value = zlib.crc32(piece, value)
        return base64.b64encode(value.to_bytes(4, "big")).decode()


class Reading:
    """One object, read once from ``begin``; a transfer that was cut goes on where it stopped.

    ``accept`` is told the length of the object before its first byte is returned, and raises if
    it is not to be read.
    """

    def __init__(
        self,
        get: "Callable[[dict[str, Any]], GetObjectOutputTypeDef]",
        what: str,
        accept: Callable[[int], None],
        begin: int,
        patience: Patience,
    ) -> None:
        self._get = get
        self._what = what
        self._accept = accept
        self._at = begin
        self._patience = patience
        self._size: int | None = None
        self._tag: str | None = None
        self._body: StreamingBody | None = None
        self._held = bytearray()
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        with closing(self):
            while piece := self._patience.persist(self._next):
                yield piece

    def close(self) -> None:
        """Let go of the connection; it is used again only if the object was read to its end."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _next(self) -> bytes:
        """A whole piece or the rest, so that whoever sends a few bytes each time is given up."""
        try:
            with translated(self._what):
                while not self._ended and len(self._held) < _PIECE_BYTES:
                    if self._body is None:
                        self._body = self._open()
                    came = self._body.read(_PIECE_BYTES - len(self._held))
                    self._at += len(came)
                    self._ended = not came
                    if len(came) == _PIECE_BYTES:
                        return came
                    self._held += came
        except StoreUnavailable:
            self.close()
            raise
        piece, self._held = bytes(self._held), bytearray()
        return piece

    def _open(self) -> "StreamingBody":
        """The rest of the object, of the same object as before.

        Raises:
            BackupCorrupt: it is another object by now, or shorter than what was asked for.
            StoreRefused: the store sends something else than the rest.
        """
        asked: dict[str, Any] = {"Range": f"bytes={self._at}-"} if self._at else {}
        if self._tag:
            asked["IfMatch"] = self._tag
        try:
            answer = self._get(asked)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NOT_THE_SAME:
                raise BackupCorrupt(f"{self._what}: it was replaced or cut meanwhile") from error
            raise
        body = answer["Body"]
        try:
            self._check(answer)
        except BaseException:
            body.close()
            raise
        return body

    def _check(self, answer: "GetObjectOutputTypeDef") -> None:
        size = answer["ContentLength"] + self._at
        if self._at and answer.get("ContentRange") != f"bytes {self._at}-{size - 1}/{size}":
            # The status says nothing: some servers send a part with a 200.
            raise StoreRefused(f"{self._what}: the store does not send a part of an object")
        if self._size is None:
            self._accept(size)
            self._size = size
            tag = answer.get("ETag", "")
            self._tag = None if tag in _NO_TAG else tag
        elif size != self._size:
            raise BackupCorrupt(f"{self._what}: it was replaced while it was read")
