"""A proxy in front of a real S3 server that lets everything pass but what its script spoils.

    with ScriptedS3(lambda: of_stack(stack.layout)) as s3:
        s3.script(Rule(Answer(503, "SlowDown"), operation="UploadPart", part=3, times=2))

Clients use ``s3.url``; a stack does, with ``TENANTRY_S3_ENDPOINT`` in its options. The server is
looked for at each request, so the proxy may be there first. It passes on the Host that clients
signed, so their signatures stay valid. The first rule that fits a request and is not used up
spoils it.
"""

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.config import Config

from deploy.local import object_store
from deploy.local.layout import Layout

_PIECE = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)
_OPERATIONS = {
    ("PUT", "partNumber"): "UploadPart",
    ("PUT", ""): "PutObject",
    ("GET", ""): "GetObject",
    ("HEAD", ""): "HeadObject",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("DELETE", ""): "DeleteObject",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("POST", "delete"): "DeleteObjects",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "list-type"): "ListObjectsV2",
}


@dataclass(frozen=True)
class Answer:
    """An error in place of the server's answer; ``done``: the server did what it was asked to.

    With the status 200 it is S3's way to say that completing an upload failed after all.
    """

    status: int
    code: str
    done: bool = False


@dataclass(frozen=True)
class ResetRequest:
    """The connection is reset when so many bytes of the request's body have come.

    The server never sees the whole request.
    """

    after: int = 0


@dataclass(frozen=True)
class CutAnswer:
    """The connection ends after so many bytes of the answer's body; of 0, without a word."""

    after: int = 0
    reset: bool = False


@dataclass(frozen=True)
class LoseObject:
    """The server does what it was asked to, answers, and has no such object afterwards.

    With ``leaving`` it has one with these bytes.
    """

    leaving: bytes | None = None


@dataclass(frozen=True)
class Delay:
    """The request waits before it is passed on."""

    seconds: float


Fault = Answer | ResetRequest | CutAnswer | LoseObject | Delay


@dataclass(frozen=True)
class Request:
    """What a client asks, as far as rules look at it. ``key`` is without the bucket."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def operation(self) -> str:
        for (method, parameter), name in _OPERATIONS.items():
            if method == self.method and (not parameter or parameter in self.query):
                return name
        return self.method

    @property
    def part(self) -> int | None:
        return int(self.query["partNumber"]) if "partNumber" in self.query else None

    @property
    def expects(self) -> bool:
        """Whether the client waits with the body until it is told to send it."""
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))


@dataclass(frozen=True)
class _Ends:
    """The client's connection, and the one to the server for one of its requests."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: asyncio.StreamReader
    sending: asyncio.StreamWriter


@dataclass
class Rule:
    """Which requests are spoilt: of one operation, of keys of this form, the first few times.

    ``skip`` lets as many pass before; ``times`` of None never ends.
    """

    fault: Fault
    operation: str | None = None
    key: str = "*"
    part: int | None = None
    times: int | None = 1
    skip: int = 0

    def takes(self, request: Request) -> bool:
        """Whether it spoils this request; counts it if so."""
        if self.times == 0 or self.operation not in {None, request.operation}:
            return False
        if self.part not in {None, request.part} or not fnmatchcase(request.key, self.key):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times = None if self.times is None else self.times - 1
        return True


@dataclass(frozen=True)
class Server:
    """The real server, and a key pair to take objects away from it."""

    url: str
    access_key: str
    secret_key: str


def of_stack(layout: Layout) -> Server:
    """The S3 server of a stack, once its supervisor has chosen the ports."""
    port = json.loads(layout.ports.read_text())[object_store.NAME]
    keys = object_store.make_credentials(layout)
    return Server(f"http://127.0.0.1:{port}", keys["access_key"], keys["secret_key"])


@dataclass
class ScriptedS3:
    """The proxy; it runs in a thread of its own while the block lasts."""

    server: Callable[[], Server]
    port: int = 0
    seen: list[tuple[str, Fault | None]] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _problems: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *rules: Rule) -> None:
        """Follow these rules, after those that are there."""
        with self._lock:
            self._rules += rules

    def clear(self) -> None:
        """Let everything pass from now on, and forget what was seen."""
        with self._lock:
            self._rules.clear()
            self.seen.clear()

    def count(self, operation: str, *, spoilt: bool | None = None) -> int:
        """How many requests of this operation came; only the spoilt or the others if wanted."""
        with self._lock:
            return sum(
                seen == operation and spoilt in {None, fault is not None}
                for seen, fault in self.seen
            )

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-s3")
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._problems:
            raise self._problems[0]

    async def _listen(self) -> asyncio.Server:
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _close(self) -> None:
        self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await _head(reader):
                request = _request(head)
                fault = self._fault_for(request)
                if not await self._answer(request, head, fault, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two sides has gone
        except Exception as error:  # noqa: BLE001 shown to the test when its block ends
            self._problems.append(error)
        finally:
            writer.close()

    def _fault_for(self, request: Request) -> Fault | None:
        with self._lock:
            rule = next((rule for rule in self._rules if rule.takes(request)), None)
            fault = rule.fault if rule else None
            self.seen.append((request.operation, fault))
            return fault

    async def _answer(
        self,
        request: Request,
        head: list[str],
        fault: Fault | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; whether the connection can be used again."""
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, Answer) and not fault.done:
            _continue(request, writer)
            await _discard(reader, request.length)
            return await _refuse(request, fault, writer)
        if isinstance(fault, ResetRequest) and fault.after >= request.length:
            _continue(request, writer)
            await _discard(reader, request.length)
            _reset(writer)
            return False
        parts = urlsplit(self.server().url)
        answer, sending = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            return await self._passed_on(
                request, head, fault, _Ends(reader, writer, answer, sending)
            )
        finally:
            sending.close()

    async def _passed_on(
        self, request: Request, head: list[str], fault: Fault | None, ends: "_Ends"
    ) -> bool:
        kept = [line for line in head if not line.lower().startswith("connection:")]
        ends.sending.write("\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1"))
        if request.expects:
            first = await _head(ends.answer)
            if " 100 " not in first[0]:
                await _relay(request, None, first, ends)
                return False
            _continue(request, ends.writer)
        if isinstance(fault, ResetRequest):
            await _copy(ends.reader, ends.sending, fault.after)
            _reset(ends.sending)
            _reset(ends.writer)
            return False
        await _copy(ends.reader, ends.sending, request.length)
        if isinstance(fault, Answer):
            await ends.answer.read()
            return await _refuse(request, fault, ends.writer)
        if isinstance(fault, LoseObject):
            came = await ends.answer.read()
            await asyncio.to_thread(self._lose, request, fault.leaving)
            ends.writer.write(came)
            return False
        return await _relay(request, fault, await _head(ends.answer), ends)

    def _lose(self, request: Request, leaving: bytes | None) -> None:
        server = self.server()
        client: Any = boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )
        if leaving is None:
            client.delete_object(Bucket=request.bucket, Key=request.key)
        else:
            client.put_object(Bucket=request.bucket, Key=request.key, Body=leaving)


async def _head(reader: asyncio.StreamReader) -> list[str]:
    """The lines up to the empty one; none when the client has gone."""
    try:
        text = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return []
    return text.decode("latin-1").split("\r\n")[:-2]


def _request(head: list[str]) -> Request:
    method, target, _ = head[0].split(" ", 2)
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = {
        name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()
    }
    return Request(method, bucket, key, query, _headers(head))


def _headers(head: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in head[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _refuse(request: Request, fault: Answer, writer: asyncio.StreamWriter) -> bool:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{fault.code}</Code><Message>as the script says</Message></Error>"
    )
    writer.write(
        f"HTTP/1.1 {fault.status} Scripted\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{'' if request.method == 'HEAD' else body}".encode()
    )
    await writer.drain()
    return True


async def _relay(request: Request, fault: Fault | None, head: list[str], ends: _Ends) -> bool:
    """Pass the server's answer on; whether the connection can be used again."""
    headers = _headers(head)
    kept = [line for line in head if not line.lower().startswith("connection:")]
    bare = request.method == "HEAD" or head[0].split(" ")[1] in {"204", "304"}
    length = 0 if bare else int(headers.get("content-length", "-1"))
    closing = [] if length >= 0 else ["Connection: close"]
    if isinstance(fault, CutAnswer) and not fault.after:
        return _end(fault, ends.writer)
    ends.writer.write("\r\n".join([*kept, *closing, "", ""]).encode("latin-1"))
    if isinstance(fault, CutAnswer):
        most = min(fault.after, length) if length >= 0 else fault.after
        await _copy(ends.answer, ends.writer, most)
        return _end(fault, ends.writer)
    await _copy(ends.answer, ends.writer, length)
    return length >= 0


def _continue(request: Request, writer: asyncio.StreamWriter) -> None:
    if request.expects:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _end(fault: CutAnswer, writer: asyncio.StreamWriter) -> bool:
    if fault.reset:
        _reset(writer)
    return False


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, length: int) -> None:
    """Copy so many bytes; all there are if it is negative."""
    while length:
        piece = await source.read(_PIECE if length < 0 else min(_PIECE, length))
        if not piece:
            if length < 0:
                break
            raise asyncio.IncompleteReadError(piece, length)
        target.write(piece)
        await target.drain()
        length -= len(piece) if length > 0 else 0
    await target.drain()


async def _discard(source: asyncio.StreamReader, length: int) -> None:
    while length:
        piece = await source.read(min(_PIECE, length))
        if not piece:
            raise asyncio.IncompleteReadError(piece, length)
        length -= len(piece)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST."""
    with contextlib.suppress(OSError):
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
