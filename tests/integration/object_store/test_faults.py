"""F-14, F-15, F-16, F-19: the store fails, and the result is right or an error of ours.

Nothing half-made is ever visible, and no upload in parts stays behind.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from control_plane.adapters.object_stores.s3 import S3Store
from control_plane.adapters.object_stores.store import PART_BYTES, PendingUpload
from control_plane.domain.errors import BackupCorrupt, StoreRefused, StoreUnavailable
from tests.fakes.scripted_s3 import (
    Answer,
    CutAnswer,
    Delay,
    Fault,
    LoseObject,
    ResetRequest,
    Rule,
    ScriptedS3,
)
from tests.integration.object_store.s3_server import HASTY, S3Server

MIB = 1024 * 1024
ATTEMPTS = len(HASTY.pauses) + 1
DATA = os.urandom(2 * PART_BYTES + 4_321)
BUSY = Answer(503, "SlowDown")
BROKEN = Answer(500, "InternalError")
LOST_ANSWER = CutAnswer(0, reset=True)


@pytest.fixture
def direct(s3_server: S3Server, prefix: str) -> S3Store:
    """The same objects, asked of the server itself: what others see."""
    return s3_server.store(prefix)


@pytest.fixture
def store(
    s3_server: S3Server, proxy: ScriptedS3, prefix: str, direct: S3Store
) -> Iterator[S3Store]:
    yield s3_server.store(prefix, proxy.url)
    for upload in direct.pending(""):
        direct.abort_pending(upload)


def upload(store: S3Store, key: str = "object") -> None:
    writer = store.upload(key)
    for start in range(0, len(DATA), MIB):
        writer.write(DATA[start : start + MIB])
    stored = writer.finish()
    assert stored.size == len(DATA)


def read(store: S3Store, key: str = "object") -> bytes:
    return b"".join(store.read(key, len(DATA)))


def left(direct: S3Store) -> list[PendingUpload]:
    return list(direct.pending(""))


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        BROKEN,
        Answer(500, "InternalError", done=True),
        Answer(429, "TooManyRequests"),
        Answer(400, "RequestTimeout"),
        ResetRequest(0),
        ResetRequest(3 * MIB + 17),
        CutAnswer(0),
        LOST_ANSWER,
    ],
    ids=str,
)
@pytest.mark.parametrize("part", [1, 3])
def test_f14_a_part_is_sent_again(
    store: S3Store, direct: S3Store, proxy: ScriptedS3, fault: Fault, part: int
) -> None:
    proxy.script(Rule(fault, operation="UploadPart", part=part, times=2))
    upload(store)
    assert proxy.count("UploadPart", spoilt=True) == 2
    assert read(direct) == DATA
    assert left(direct) == []


@pytest.mark.parametrize("fault", [BUSY, BROKEN, LOST_ANSWER], ids=str)
@pytest.mark.parametrize(
    "operation", ["HeadObject", "CreateMultipartUpload", "CompleteMultipartUpload"]
)
def test_f14_what_is_around_the_parts_is_asked_again(
    store: S3Store, direct: S3Store, proxy: ScriptedS3, fault: Fault, operation: str
) -> None:
    proxy.script(Rule(fault, operation=operation, times=2))
    upload(store)
    assert proxy.count(operation, spoilt=True) == 2
    assert read(direct) == DATA
    # An upload that was begun without our hearing its id can only be swept.
    begun_unheard = operation == "CreateMultipartUpload" and fault is LOST_ANSWER
    assert len(left(direct)) == (2 if begun_unheard else 0)


def test_f14_every_request_fails_once(store: S3Store, direct: S3Store, proxy: ScriptedS3) -> None:
    for operation in ("HeadObject", "CreateMultipartUpload", "CompleteMultipartUpload"):
        proxy.script(Rule(BUSY, operation=operation))
    for part in range(1, 4):
        proxy.script(Rule(ResetRequest(part * 1_000), operation="UploadPart", part=part))
    proxy.script(Rule(CutAnswer(MIB), operation="GetObject"))
    upload(store)
    assert read(store) == DATA
    assert proxy.count("GetObject") == 2
    assert left(direct) == []


@pytest.mark.parametrize("fault", [BUSY, ResetRequest(MIB), LOST_ANSWER], ids=str)
@pytest.mark.parametrize(
    "operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"]
)
def test_f14_a_store_that_goes_on_failing_is_given_up(
    store: S3Store, direct: S3Store, proxy: ScriptedS3, fault: Fault, operation: str
) -> None:
    direct.put("object", b"as it was")
    part = 2 if operation == "UploadPart" else None
    proxy.script(Rule(fault, operation=operation, part=part, times=None))
    lost_answer_to_the_end = operation == "CompleteMultipartUpload" and fault is LOST_ANSWER
    if lost_answer_to_the_end:
        upload(store)
        assert read(direct) == DATA
    else:
        with pytest.raises(StoreUnavailable, match="object in s3://"):
            upload(store)
        assert direct.get("object") == b"as it was"
    assert proxy.count(operation, spoilt=True) == ATTEMPTS
    assert [found.key for found in direct.list("")] == ["object"]
    begun_unheard = operation == "CreateMultipartUpload" and fault is LOST_ANSWER
    assert len(left(direct)) == (ATTEMPTS if begun_unheard else 0)


def test_f14_giving_up_never_fails(store: S3Store, direct: S3Store, proxy: ScriptedS3) -> None:
    writer = store.upload("object")
    writer.write(DATA)
    proxy.script(Rule(BUSY, times=None))
    writer.abort()
    assert [pending.key for pending in left(direct)] == ["object"]
    proxy.clear()
    upload(store)
    assert read(direct) == DATA


def test_f14_an_older_object_of_the_same_length_is_not_taken_for_the_new_one(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    upload(store)
    other = bytes(reversed(DATA))
    proxy.script(Rule(BROKEN, operation="CompleteMultipartUpload", times=None))
    writer = store.upload("object")
    writer.write(other)
    with pytest.raises(StoreUnavailable, match="InternalError"):
        writer.finish()
    assert read(direct) == DATA
    assert left(direct) == []


def test_f14_small_objects_are_written_again(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    for fault in (BUSY, ResetRequest(100), LOST_ANSWER, BROKEN):
        proxy.script(Rule(fault, operation="PutObject"))
    store.put("small", DATA[:MIB])
    assert direct.get("small") == DATA[:MIB]
    proxy.script(Rule(BROKEN, operation="PutObject", times=None))
    with pytest.raises(StoreUnavailable, match=r"writing small in s3://.*InternalError"):
        store.put("small", b"never written")
    assert direct.get("small") == DATA[:MIB]


def test_f14_parts_that_come_late_are_in_their_place(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    proxy.script(Rule(Delay(0.4), operation="UploadPart", part=1))
    proxy.script(Rule(Delay(0.2), operation="UploadPart", part=2))
    upload(store)
    assert read(direct) == DATA


def test_f14_a_server_that_falls_silent_is_asked_again(
    s3_server: S3Server, direct: S3Store, proxy: ScriptedS3, prefix: str
) -> None:
    impatient = s3_server.store(prefix, proxy.url, answer_seconds=3.0)
    proxy.script(Rule(Delay(600), operation="UploadPart", part=2))
    upload(impatient)
    assert proxy.count("UploadPart", spoilt=True) == 1
    assert read(direct) == DATA
    proxy.script(Rule(Delay(600), operation="GetObject"))
    assert read(impatient) == DATA
    assert left(direct) == []


def test_f14_lists_and_deletions_are_asked_again(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    direct.put("one", b"1")
    for operation in ("ListObjectsV2", "DeleteObjects", "ListMultipartUploads"):
        proxy.script(Rule(BUSY, operation=operation), Rule(LOST_ANSWER, operation=operation))
    assert [found.key for found in store.list("")] == ["one"]
    store.delete(["one"])
    assert list(store.pending("")) == []
    assert list(direct.list("")) == []
    proxy.script(Rule(CutAnswer(50), operation="ListObjectsV2"))
    assert list(store.list("")) == []


@pytest.mark.parametrize("how", ["ended", "reset"])
@pytest.mark.parametrize("after", [0, 1, MIB, MIB + 1, 14 * MIB, len(DATA) - 1])
def test_f15_a_cut_transfer_goes_on_where_it_stopped(
    store: S3Store, direct: S3Store, proxy: ScriptedS3, after: int, how: str
) -> None:
    upload(direct)
    cut = CutAnswer(after, reset=how == "reset")
    proxy.script(Rule(cut, operation="GetObject"))
    assert read(store) == DATA
    assert proxy.count("GetObject") == 2
    proxy.script(Rule(cut, operation="GetObject"))
    assert store.get("object") == DATA


def test_f15_a_transfer_that_is_cut_again_and_again_ends(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    upload(direct)
    proxy.script(Rule(CutAnswer(1_000), operation="GetObject", times=None))
    with pytest.raises(StoreUnavailable, match="reading object in s3://"):
        read(store)
    assert proxy.count("GetObject") == ATTEMPTS


def test_f15_a_transfer_that_gets_on_goes_on(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    upload(direct)
    proxy.script(Rule(CutAnswer(3 * MIB + 1), operation="GetObject", times=None))
    assert read(store) == DATA
    assert proxy.count("GetObject") == len(DATA) // (3 * MIB) + 1


def test_f15_an_object_that_becomes_another_while_it_is_read(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    upload(direct)
    proxy.script(Rule(CutAnswer(2 * MIB + 5), operation="GetObject"))
    pieces = store.read("object", len(DATA))
    assert next(pieces) == DATA[:MIB]
    direct.put("object", DATA[: 9 * MIB])
    with pytest.raises(BackupCorrupt, match="replaced"):
        for _ in pieces:
            pass


def test_f15_an_object_that_becomes_shorter_than_what_was_read(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    upload(direct)
    proxy.script(Rule(CutAnswer(2 * MIB + 5), operation="GetObject"))
    pieces = store.read("object", len(DATA))
    assert next(pieces) == DATA[:MIB]
    direct.put("object", b"short")
    with pytest.raises(BackupCorrupt, match="replaced or cut"):
        for _ in pieces:
            pass


def test_f16_an_error_inside_a_200_is_an_error(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    proxy.script(Rule(Answer(200, "InternalError"), operation="CompleteMultipartUpload"))
    upload(store)
    assert proxy.count("CompleteMultipartUpload") == 2
    assert read(direct) == DATA
    proxy.clear()
    proxy.script(Rule(Answer(200, "SlowDown"), operation="CompleteMultipartUpload", times=None))
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        upload(store, "other")
    assert proxy.count("CompleteMultipartUpload") == ATTEMPTS
    assert direct.head("other") is None
    assert left(direct) == []


@pytest.mark.parametrize("operation", ["CompleteMultipartUpload", "PutObject"])
def test_f16_an_object_that_was_lost_is_noticed(
    store: S3Store, direct: S3Store, proxy: ScriptedS3, operation: str
) -> None:
    data = DATA if operation == "CompleteMultipartUpload" else DATA[:100]
    proxy.script(Rule(LoseObject(), operation=operation))
    writer = store.upload("object")
    writer.write(data)
    with pytest.raises(StoreUnavailable, match="is not there"):
        writer.finish()
    proxy.script(Rule(LoseObject(leaving=data[:50]), operation=operation))
    writer = store.upload("object")
    writer.write(data)
    with pytest.raises(StoreUnavailable, match=f"with {len(data)} bytes, and has 50"):
        writer.finish()
    assert list(direct.list("")) == []
    assert left(direct) == []
    writer = store.upload("object")
    writer.write(data)
    assert writer.finish().size == len(data)


@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload", "GetObject"])
def test_f19_a_wrong_clock_is_named_at_once(
    store: S3Store, direct: S3Store, proxy: ScriptedS3, operation: str
) -> None:
    direct.put("small", b"x")
    proxy.script(Rule(Answer(403, "RequestTimeTooSkewed"), operation=operation, times=None))
    attempts: dict[str, Callable[[], object]] = {
        "PutObject": lambda: store.put("small", b"y"),
        "CreateMultipartUpload": lambda: upload(store),
        "GetObject": lambda: store.get("small"),
    }
    with pytest.raises(StoreRefused, match="set the clock of this machine"):
        attempts[operation]()
    assert proxy.count(operation) == 1
    assert [found.key for found in direct.list("")] == ["small"]
    assert direct.get("small") == b"x"
    assert left(direct) == []


def test_f19_a_clock_that_goes_wrong_in_the_middle_leaves_nothing(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    skewed = Answer(403, "RequestTimeTooSkewed")
    proxy.script(Rule(skewed, operation="UploadPart", part=3, times=None))
    with pytest.raises(StoreRefused, match="clock"):
        upload(store)
    assert proxy.count("UploadPart", spoilt=True) == 1
    assert list(direct.list("")) == []
    assert left(direct) == []


def test_a_store_that_lies_does_not_pass_its_test(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    proxy.script(Rule(LoseObject(leaving=bytes(100_000)), operation="PutObject"))
    with pytest.raises(StoreRefused, match="the store lies: an object that was read back"):
        store.self_test()
    proxy.script(Rule(Answer(403, "AccessDenied"), operation="DeleteObjects", times=2))
    with pytest.raises(StoreRefused, match="AccessDenied"):
        store.self_test()
    proxy.clear()
    for found in direct.list(""):
        direct.delete([found.key])
    assert len(store.self_test()) == 6


def test_a_store_that_forgets_an_upload_is_asked_anew(
    store: S3Store, direct: S3Store, proxy: ScriptedS3
) -> None:
    writer = store.upload("object")
    writer.write(DATA[: PART_BYTES + 1])
    for pending in left(direct):
        direct.abort_pending(pending)
    with pytest.raises(StoreUnavailable, match=r"forgot the upload: .*NoSuchUpload"):
        writer.finish()
    assert direct.head("object") is None
    assert proxy.count("UploadPart") == 2
