"""Which URLs are stores, and what is said of those that are none."""

from pathlib import Path
from typing import Any

import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.object_stores.opening import open_store
from control_plane.adapters.object_stores.s3 import S3Store
from control_plane.config import BackupSettings, Secret, SettingsError

KEYS = Secret('{"access_key": "AKIAEXAMPLE", "secret_key": "canary-secret"}')


@pytest.mark.parametrize(
    ("url", "name", "prefix"),
    [
        ("s3://abc", "s3://abc", ""),
        ("s3://abc/", "s3://abc", ""),
        ("s3://my.bucket-1/backups", "s3://my.bucket-1/backups", "backups/"),
        ("s3://my.bucket-1/a/b-c/", "s3://my.bucket-1/a/b-c", "a/b-c/"),
    ],
)
def test_a_bucket_with_or_without_a_prefix(url: str, name: str, prefix: str) -> None:
    store = open_store(url, BackupSettings())
    assert isinstance(store, S3Store)
    assert store.url == name
    assert store._requests.named("key")["Key"] == f"{prefix}key"


def test_a_directory(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/", BackupSettings())
    assert isinstance(store, FileStore)
    assert store.url == f"file://{tmp_path}"
    assert open_store("file:///not/there/yet", BackupSettings()).url == "file:///not/there/yet"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "a store is s3://bucket/prefix or file:///directory"),
        ("backups", "is no store"),
        ("/srv/backups", "is no store"),
        ("https://s3.example.org/bucket", "is no store"),
        ("s3:/bucket", "is no store"),
        ("s3://", "3 to 63"),
        ("s3://ab", "3 to 63"),
        ("s3://Bucket", "3 to 63"),
        ("s3://-bucket", "3 to 63"),
        ("s3://bucket:9000/x", "3 to 63"),
        ("s3://" + "b" * 64, "3 to 63"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket//a", "prefix"),
        ("s3://bucket/a?b", "prefix"),
        ("s3://bucket/a b", "prefix"),
        ("file://host/directory", "names no directory"),
        ("file://relative", "names no directory"),
        ("file:///", "names no directory"),
        ("file:///srv/../etc", "names no directory"),
    ],
)
def test_what_is_no_store_is_told_what_is(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        open_store(url, BackupSettings())


@pytest.mark.parametrize(
    "url", ["s3://AKIAEXAMPLE:canary@bucket/x", "file://user:canary@host/x", "ftp://a:canary@b/"]
)
def test_a_key_in_the_url_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="TENANTRY_S3_CREDENTIALS_FILE") as raised:
        open_store(url, BackupSettings())
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "canary",
        '"canary"',
        '{"access_key": "canary"}',
        '{"access_key": "canary", "secret_key": 7}',
        '{"access_key": "canary", "secret_key": "canary',
    ],
)
def test_a_file_that_holds_no_key_pair_is_not_quoted(text: str) -> None:
    with pytest.raises(SettingsError, match="TENANTRY_S3_CREDENTIALS_FILE must hold") as raised:
        open_store("s3://bucket", BackupSettings(s3_credentials=Secret(text)))
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("s3.example.org", "is no URL such as"),
        ("ftp://s3.example.org", "is no URL such as"),
        ("http://", "is no URL such as"),
        ("https://key:canary@s3.example.org", "without a user"),
        ("https://s3.example.org?x=canary", "without a user"),
    ],
)
def test_an_endpoint_is_a_plain_url(endpoint: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        open_store("s3://bucket", BackupSettings(s3_endpoint=endpoint))
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("endpoint", "amazon"),
    [
        (None, True),
        ("https://s3.eu-central-1.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", True),
        ("http://127.0.0.1:9000", False),
        ("https://s3.example.org", False),
        ("https://amazonaws.com.example.org", False),
        ("https://notamazonaws.com", False),
    ],
)
def test_only_amazon_gets_checksums_and_names_in_hosts(
    endpoint: str | None, *, amazon: bool
) -> None:
    store = open_store("s3://bucket", BackupSettings(s3_endpoint=endpoint, s3_credentials=KEYS))
    assert isinstance(store, S3Store)
    config: Any = store._requests.client().meta.config
    wanted = "when_supported" if amazon else "when_required"
    assert config.request_checksum_calculation == wanted
    assert config.response_checksum_validation == wanted
    assert config.s3["addressing_style"] == ("auto" if amazon else "path")
    assert 0 < config.connect_timeout < config.read_timeout <= 60
    assert "canary" not in repr(store._requests.place)
    link = store.link("key", 60)
    assert ("//bucket." in link) == (endpoint is None)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link
    assert "canary" not in link
