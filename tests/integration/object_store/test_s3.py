"""S3 in particular: what is asked of the server, who may ask, and what an error says."""

import datetime as dt
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from control_plane.adapters.object_stores.s3 import S3Store
from control_plane.adapters.object_stores.s3_requests import S3Place
from control_plane.adapters.object_stores.store import PART_BYTES
from control_plane.config import Secret
from control_plane.domain.errors import Invalid, ObjectMissing, StoreRefused, StoreUnavailable
from tests.fakes.scripted_s3 import ScriptedS3
from tests.integration.object_store.s3_server import HASTY, S3Server


def test_small_objects_are_written_with_one_request(
    s3_server: S3Server, proxy: ScriptedS3, prefix: str
) -> None:
    store = s3_server.store(prefix, proxy.url)
    assert proxy.seen == []
    writer = store.upload("small")
    writer.write(os.urandom(PART_BYTES))
    writer.finish()
    assert [operation for operation, _ in proxy.seen] == ["PutObject", "HeadObject"]


def test_large_objects_are_written_in_parts(
    s3_server: S3Server, proxy: ScriptedS3, prefix: str
) -> None:
    store = s3_server.store(prefix, proxy.url)
    writer = store.upload("large")
    writer.write(os.urandom(3 * PART_BYTES + 1))
    writer.finish()
    asked = [operation for operation, _ in proxy.seen]
    assert asked[:2] == ["HeadObject", "CreateMultipartUpload"]
    assert asked[2:-2] == ["UploadPart"] * 4
    assert asked[-2:] == ["CompleteMultipartUpload", "HeadObject"]


def test_a_list_longer_than_a_page_comes_in_full(s3_server: S3Server, prefix: str) -> None:
    store = s3_server.store(prefix)
    keys = [f"many/{number:05}" for number in range(1_005)]
    client, named = store._requests.client(), store._requests.named
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda key: client.put_object(**named(key), Body=b""), keys):
            pass
    assert [found.key for found in store.list("many/")] == keys
    store.delete(keys)
    assert list(store.list("")) == []


def test_a_store_sees_nothing_beside_its_prefix(s3_server: S3Server, prefix: str) -> None:
    inner = s3_server.store(f"{prefix}inner/")
    outer = s3_server.store(prefix)
    outer.put("outside", b"x")
    inner.put("inside", b"y")
    assert [found.key for found in inner.list("")] == ["inside"]
    assert [found.key for found in outer.list("")] == ["inner/inside", "outside"]
    assert inner.head("outside") is None


def test_a_link_shows_this_object_to_anybody_for_a_while(s3_server: S3Server, prefix: str) -> None:
    store = s3_server.store(prefix)
    data = os.urandom(100_000)
    store.put("shown", data)
    store.put("other", b"not shown")
    link = store.link("shown", 900)
    assert s3_server.secret_key not in link
    shown = httpx.get(link)
    assert (shown.status_code, shown.content) == (200, data)
    assert httpx.get(link.replace("shown", "other")).status_code == 403
    assert httpx.get(link.replace("X-Amz-Expires=900", "X-Amz-Expires=901")).status_code == 403
    assert httpx.put(link, content=b"x").status_code in {400, 403}
    assert store.get("shown") == data


@pytest.mark.parametrize("seconds", [-1, 0, 901, 86_400])
def test_a_link_that_lives_too_long_is_not_made(
    s3_server: S3Server, prefix: str, seconds: int
) -> None:
    with pytest.raises(Invalid, match="1 to 900 seconds"):
        s3_server.store(prefix).link("shown", seconds)


def test_a_wrong_key_is_refused_at_once_and_not_shown(
    s3_server: S3Server, proxy: ScriptedS3, prefix: str
) -> None:
    wrong = replace(s3_server, secret_key="canary-5f0d9be1")
    store = wrong.store(prefix, proxy.url)
    with pytest.raises(StoreRefused, match=r"SignatureDoesNotMatch \(403\)") as raised:
        store.put("object", b"x")
    assert proxy.count("PutObject") == 1
    assert "canary" not in str(raised.value)
    assert "canary" not in repr(store._requests.place)
    unknown = replace(s3_server, access_key="0123456789abcdef").store(prefix)
    with pytest.raises(StoreRefused, match="InvalidAccessKeyId"):
        unknown.get("object")


def test_a_bucket_that_is_not_there_is_named(s3_server: S3Server, prefix: str) -> None:
    place = S3Place(
        bucket="nobody-made-this",
        prefix=prefix,
        endpoint=s3_server.url,
        region="us-east-1",
        access_key=s3_server.access_key,
        secret_key=Secret(s3_server.secret_key),
    )
    store = S3Store(place, HASTY)
    with pytest.raises(StoreRefused, match=r"s3://nobody-made-this/.*NoSuchBucket"):
        store.self_test()
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        list(store.list(""))


def test_no_server_is_no_answer(s3_server: S3Server, prefix: str) -> None:
    with ScriptedS3(lambda: s3_server) as gone:
        store = s3_server.store(prefix, gone.url)
    with pytest.raises(StoreUnavailable, match="Could not connect"):
        store.put("object", b"x")
    writer = store.upload("large")
    with pytest.raises(StoreUnavailable, match="Could not connect"):
        writer.write(os.urandom(PART_BYTES + 1))
    with pytest.raises(StoreUnavailable, match="Could not connect"):
        list(store.read("object", 1))


def test_threads_share_a_store(s3_server: S3Server, prefix: str) -> None:
    store = s3_server.store(prefix)
    data = {f"object-{number}": os.urandom(2 * PART_BYTES + number) for number in range(4)}

    def written_and_read(key: str) -> bytes:
        writer = store.upload(key)
        writer.write(data[key])
        return b"".join(store.read(key, writer.finish().size))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(written_and_read, data)) == list(data.values())


def test_the_time_of_an_object_is_the_servers(s3_server: S3Server, prefix: str) -> None:
    stored = s3_server.store(prefix).put("object", b"x")
    assert stored.modified_at.utcoffset() == dt.timedelta(0)


def test_an_object_that_goes_while_it_is_read(s3_server: S3Server, prefix: str) -> None:
    store = s3_server.store(prefix)
    with pytest.raises(ObjectMissing, match=f"reading gone in {store.url}"):
        list(store.read("gone", 5))
