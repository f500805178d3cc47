"""What only AWS does, on moto: checksums of parts, tags of objects, long lists of uploads."""

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from control_plane.adapters.object_stores.s3 import S3Store
from control_plane.adapters.object_stores.s3_requests import S3Place
from control_plane.adapters.object_stores.store import PART_BYTES
from control_plane.config import Secret
from control_plane.domain.errors import BackupCorrupt, StoreRefused
from tests.integration.object_store.s3_server import HASTY

BUCKET = "clinic-backups"
MIB = 1024 * 1024


@pytest.fixture
def store() -> Iterator[S3Store]:
    place = S3Place(BUCKET, "pre/", None, "us-east-1", "AKIAEXAMPLE", Secret("secret"))
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield S3Store(place, HASTY)


@pytest.fixture
def requests(store: S3Store) -> list[Any]:
    """Every request as it is sent."""
    sent: list[Any] = []
    store._requests.client().meta.events.register_first(
        "before-send.s3.*", lambda request, **_: sent.append(request)
    )
    return sent


def upload(store: S3Store, key: str, data: bytes) -> None:
    writer = store.upload(key)
    writer.write(data)
    assert writer.finish().size == len(data)


def test_the_store_passes_its_test(store: S3Store) -> None:
    assert len(store.self_test()) == 6
    assert list(store.list("")) == []


def test_every_byte_is_sent_with_a_checksum(store: S3Store, requests: list[Any]) -> None:
    data = os.urandom(2 * PART_BYTES + 5)
    upload(store, "large", data)
    store.put("small", data[:100])
    assert b"".join(store.read("large", len(data))) == data
    bodies = [sent for sent in requests if sent.method == "PUT"]
    assert len(bodies) == 4
    for sent in bodies:
        assert "x-amz-checksum-crc32" in sent.headers
        assert sent.headers["X-Amz-Content-SHA256"] == b"UNSIGNED-PAYLOAD"
        assert "Content-Encoding" not in sent.headers
    (completed,) = [sent for sent in requests if sent.method == "POST" and sent.body]
    assert completed.body.count(b"<ChecksumCRC32>") == 3


def test_the_secret_is_in_no_request(store: S3Store, requests: list[Any]) -> None:
    store.put("small", b"x")
    assert requests
    assert not [sent for sent in requests if "secret" in f"{sent.url} {sent.headers}"]


def test_more_uploads_than_a_page_are_all_found(store: S3Store) -> None:
    client, named = store._requests.client(), store._requests.named
    for number in range(1_003):
        client.create_multipart_upload(**named(f"backups/{number:04}"))
    client.create_multipart_upload(Bucket=BUCKET, Key="elsewhere")
    found = list(store.pending("backups/"))
    assert [upload.key for upload in found] == [f"backups/{n:04}" for n in range(1_003)]
    for upload_ in found:
        store.abort_pending(upload_)
    assert list(store.pending("")) == []


def test_an_object_replaced_by_one_of_its_length_is_noticed(store: S3Store) -> None:
    data = os.urandom(3 * MIB)
    store.put("object", data)
    reading = store._reading("object", lambda _: None)
    pieces = iter(reading)
    assert next(pieces) == data[:MIB]
    store.put("object", os.urandom(3 * MIB))
    reading.close()
    with pytest.raises(BackupCorrupt, match="replaced"):
        next(pieces)


def test_what_is_not_deleted_is_named(store: S3Store) -> None:
    def answer(*codes: str) -> dict[str, Any]:
        return {"Errors": [{"Key": "pre/a", "Code": code, "Message": "why"} for code in codes]}

    with Stubber(store._requests.client()) as server:
        server.add_response("delete_objects", answer("NoSuchKey", "AccessDenied"))
        with pytest.raises(
            StoreRefused, match=r"deleting a in s3://clinic-backups/pre: .*AccessDenied"
        ):
            store.delete(["a"])
        server.add_response("delete_objects", answer("SlowDown"))
        server.add_response("delete_objects", answer("NoSuchKey"))
        store.delete(["a"])
        server.assert_no_pending_responses()
