"""Bodies, parts and readings without a server: the rules they keep."""

import base64
import os
import threading
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.response import StreamingBody

from control_plane.adapters.object_stores.patience import Patience
from control_plane.adapters.object_stores.s3_errors import translated
from control_plane.adapters.object_stores.s3_transfer import Body, Reading
from control_plane.adapters.object_stores.s3_upload import part_bytes
from control_plane.adapters.object_stores.store import PART_BYTES
from control_plane.domain.errors import (
    BackupCorrupt,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    TenantryError,
)

MIB = 1024 * 1024
DATA = os.urandom(5 * MIB + 77)
QUICK = Patience(pauses=(0.001,) * 3)


def test_ten_thousand_parts_are_enough_and_the_usual_ones_are_small() -> None:
    sizes = [part_bytes(number) for number in range(1, 10_001)]
    assert set(sizes[:2_000]) == {PART_BYTES}
    assert sizes == sorted(sizes)
    # S3: a part has 5 MiB to 5 GiB.
    assert sizes[0] >= 5 * MIB
    assert sizes[-1] <= 2 * 1024 * MIB
    assert sum(sizes) > 3.9 * 1024**4
    hundred_gigabytes = next(n for n in range(10_000) if sum(sizes[:n]) > 100e9)
    assert sizes[hundred_gigabytes] <= 64 * MIB


def test_a_body_is_its_pieces_in_order() -> None:
    pieces: list[bytes | bytearray | memoryview] = [
        DATA[:10],
        bytearray(DATA[10 : 3 * MIB]),
        memoryview(DATA)[3 * MIB :],
        b"",
    ]
    body = Body(pieces)
    assert len(body) == len(DATA)
    assert body.read() == DATA
    assert body.read() == b""
    assert body.tell() == len(DATA)
    assert body.seek(0) == 0
    read = []
    while piece := body.read(16_384):
        assert len(piece) <= MIB
        read.append(bytes(piece))
    assert b"".join(read) == DATA
    assert base64.b64decode(body.crc32()) == zlib.crc32(DATA).to_bytes(4, "big")
    with pytest.raises(OSError, match="from its start"):
        body.seek(1)


class Cut(BytesIO):
    """A transfer that breaks after its last byte."""

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if not piece:
            raise ConnectionClosedError(endpoint_url="http://s3")
        return piece


class Object:
    """An object in S3, as far as reading goes; the transfer breaks after ``cuts`` bytes."""

    def __init__(self, *cuts: int, tag: str = '"tag"') -> None:
        self.cuts = list(cuts)
        self.tag = tag
        self.data = DATA
        self.asked: list[dict[str, Any]] = []

    def get(self, asked: dict[str, Any]) -> Any:
        self.asked.append(asked)
        if asked.get("IfMatch", self.tag) != self.tag:
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "GetObject")
        begin = int(asked["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in asked else 0
        rest = self.data[begin:]
        cut = self.cuts.pop(0) if self.cuts else len(rest)
        raw = Cut(rest[:cut]) if cut < len(rest) else BytesIO(rest)
        answer = {"Body": StreamingBody(raw, len(rest)), "ContentLength": len(rest)}
        if begin:
            size = len(self.data)
            answer["ContentRange"] = f"bytes {begin}-{size - 1}/{size}"
        return {**answer, "ETag": self.tag}


def reading(
    get: Callable[[dict[str, Any]], Any],
    begin: int = 0,
    accept: Callable[[int], None] | None = None,
) -> Reading:
    return Reading(get, "reading", accept or (lambda _: None), begin, QUICK)


def test_a_cut_reading_asks_for_the_rest_of_the_same_object() -> None:
    found = Object(MIB + 1, 1, 2 * MIB)
    assert b"".join(reading(found.get)) == DATA
    assert found.asked == [
        {},
        {"Range": f"bytes={MIB + 1}-", "IfMatch": '"tag"'},
        {"Range": f"bytes={MIB + 2}-", "IfMatch": '"tag"'},
        {"Range": f"bytes={3 * MIB + 2}-", "IfMatch": '"tag"'},
    ]


@pytest.mark.parametrize("tag", ["", '""'])
def test_a_store_without_tags_is_read_by_length(tag: str) -> None:
    found = Object(MIB + 1, tag=tag)
    assert b"".join(reading(found.get)) == DATA
    assert found.asked[1] == {"Range": f"bytes={MIB + 1}-"}


def test_an_object_that_was_replaced_by_one_of_its_length_is_noticed() -> None:
    found = Object(MIB + 1)
    pieces = iter(reading(found.get))
    assert next(pieces) == DATA[:MIB]
    found.tag = '"other"'
    with pytest.raises(BackupCorrupt, match="replaced"):
        next(pieces)


def test_a_store_that_ignores_ranges_is_refused() -> None:
    found = Object(MIB + 1)

    def whole(asked: dict[str, Any]) -> Any:
        return found.get({k: v for k, v in asked.items() if k != "Range"})

    with pytest.raises(StoreRefused, match="does not send a part"):
        b"".join(reading(whole))


def test_a_few_bytes_each_time_are_no_progress() -> None:
    found = Object(*[10] * 100)
    with pytest.raises(StoreUnavailable, match="Connection was closed"):
        b"".join(reading(found.get))
    assert len(found.asked) == 4
    # Each whole piece is progress, and the attempts are counted anew.
    steady = Object(*[MIB + 10] * 100)
    assert b"".join(reading(steady.get)) == DATA
    assert len(steady.asked) == 6


def test_what_is_not_accepted_is_not_read() -> None:
    found = Object()

    def refuse(size: int) -> None:
        assert size == len(DATA)
        raise StoreRefused("too large")

    with pytest.raises(StoreRefused, match="too large"):
        b"".join(reading(found.get, accept=refuse))
    assert len(found.asked) == 1


def error_of(code: str, status: int, **more: str) -> ClientError:
    headers = {"date": "Sat, 28 Nov 2026 01:00:00 GMT"}
    metadata: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    error: Any = {"Code": code, "Message": "words\nof the store", **more}
    return ClientError({"Error": error, "ResponseMetadata": metadata}, "PutObject")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("SlowDown", 503, StoreUnavailable),
        ("SlowDown", 200, StoreUnavailable),
        ("InternalError", 500, StoreUnavailable),
        ("502", 502, StoreUnavailable),
        ("RequestTimeout", 400, StoreUnavailable),
        ("BadDigest", 400, StoreUnavailable),
        ("TooManyRequests", 429, StoreUnavailable),
        ("NoSuchKey", 404, ObjectMissing),
        ("404", 404, ObjectMissing),
        ("NoSuchUpload", 404, ObjectMissing),
        ("NoSuchBucket", 404, StoreRefused),
        ("AccessDenied", 403, StoreRefused),
        ("NotImplemented", 501, StoreRefused),
        ("InvalidObjectState", 403, StoreRefused),
        ("RequestTimeTooSkewed", 403, StoreRefused),
    ],
)
def test_each_answer_is_our_error(code: str, status: int, kind: type[TenantryError]) -> None:
    with (
        pytest.raises(kind, match=rf"^writing x: the store answers {code} \({status}\): words of"),
        translated("writing x"),
    ):
        raise error_of(code, status)


def test_a_wrong_clock_is_told_the_time_of_the_store() -> None:
    with pytest.raises(StoreRefused, match=r"says Sat, 28 Nov.*by NTP"), translated("writing x"):
        raise error_of("RequestTimeTooSkewed", 403)
    with pytest.raises(StoreRefused, match="says 2026-11-28T01:02:03Z"), translated("writing x"):
        raise error_of("RequestTimeTooSkewed", 403, ServerTime="2026-11-28T01:02:03Z")


def test_patience_ends() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise StoreUnavailable(f"the {len(calls)}th time")

    with pytest.raises(StoreUnavailable, match="the 4th time"):
        QUICK.persist(fail)
    with pytest.raises(StoreUnavailable, match="the 5th time"):
        Patience(pauses=(0.001,) * 3, seconds=0).persist(fail)
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoreUnavailable, match="the 6th time"):
        Patience(pauses=(60.0,) * 3).persist(fail, stop)


def test_what_cannot_be_helped_is_not_tried_again() -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise StoreRefused("no")

    with pytest.raises(StoreRefused):
        QUICK.persist(refuse)
    assert len(calls) == 1
