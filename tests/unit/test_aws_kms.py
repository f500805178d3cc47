"""AWS KMS as the root: the key it is told to use, the context of each key, and its bad days."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import boto3
import pytest
from moto import mock_aws

from control_plane.adapters.aws_kms import AwsKms
from control_plane.adapters.key_file import KEY_BYTES
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import KeyName, Keystore
from control_plane.adapters.kms import KeyContext, LocalKms, Wrapped
from control_plane.adapters.object_stores.files import FileStore
from control_plane.domain.errors import KeyServiceUnavailable, KeyUnavailable
from tests.unit.fake_kms import ARN, FakeKms, fake_kms

if TYPE_CHECKING:
    from types_boto3_kms import KMSClient

REGION = "eu-west-1"
OWN, OTHER = UUID(int=7), UUID(int=8)
CONTEXT = KeyContext(OWN, 1)
KEY = os.urandom(KEY_BYTES)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def aws() -> Iterator["KMSClient"]:
    with mock_aws():
        yield boto3.client("kms", region_name=REGION)


@pytest.fixture
def bad_day() -> Iterator[FakeKms]:
    with fake_kms() as running:
        yield running


def new_key(aws: "KMSClient") -> str:
    return aws.create_key()["KeyMetadata"]["Arn"]


def kms(*key_ids: str, endpoint: str | None = None) -> AwsKms:
    return AwsKms(key_ids, region="us-east-1", endpoint=endpoint)


def test_a_wrapped_key_opens_in_its_context_alone(aws: "KMSClient") -> None:
    arn = new_key(aws)
    wrapped = kms(arn).wrap(KEY, CONTEXT)
    assert wrapped.reference == kms(arn).reference() == arn
    assert KEY not in wrapped.blob
    assert kms(arn).unwrap(wrapped, CONTEXT) == KEY
    for other in (KeyContext(OTHER, 1), KeyContext(OWN, 2)):
        with pytest.raises(KeyUnavailable, match="InvalidCiphertextException") as refused:
            kms(arn).unwrap(wrapped, other)
        assert not refused.value.retryable


def test_an_alias_leads_to_the_key_it_names(aws: "KMSClient") -> None:
    arn = new_key(aws)
    aws.create_alias(AliasName="alias/tenantry", TargetKeyId=arn)
    named = AwsKms(["alias/tenantry"], region=REGION, endpoint=None)
    assert named.reference() == arn
    assert named.unwrap(named.wrap(KEY, CONTEXT), CONTEXT) == KEY


def test_a_key_that_is_not_named_is_not_used(aws: "KMSClient") -> None:
    """Whoever can write to the keystore could have wrapped a key of his own choice."""
    ours, theirs = new_key(aws), new_key(aws)
    planted = kms(theirs).wrap(KEY, CONTEXT)
    with pytest.raises(KeyUnavailable, match="which TENANTRY_KMS does not name"):
        kms(ours).unwrap(planted, CONTEXT)
    with pytest.raises(KeyUnavailable, match="which TENANTRY_KMS does not name"):
        kms(ours).rewrap(planted, CONTEXT)
    with pytest.raises(KeyUnavailable):
        kms(ours).unwrap(Wrapped(ours, planted.blob), CONTEXT)


def test_a_new_key_takes_over_and_the_one_before_still_opens(aws: "KMSClient") -> None:
    old, new = new_key(aws), new_key(aws)
    wrapped = kms(old).wrap(KEY, CONTEXT)
    both = kms(new, old)
    assert both.unwrap(wrapped, CONTEXT) == KEY
    again = both.rewrap(wrapped, CONTEXT)
    assert again.reference == new
    assert kms(new).unwrap(again, CONTEXT) == KEY


def test_keys_move_from_the_key_file_to_the_service(aws: "KMSClient", tmp_path: Path) -> None:
    local = LocalKms(Keyring({1: os.urandom(32)}, 1))
    store, arn = FileStore(tmp_path), new_key(aws)
    Keystore(store, local).keep(OWN, 1, KEY)
    moved = Keystore(store, kms(arn), also=(local,))
    assert moved.open(OWN, 1) == KEY
    assert moved.rewrap(KeyName(OWN.hex, 1))
    assert moved.wrapped_by() == {arn: 1}
    assert Keystore(store, kms(arn)).open(OWN, 1) == KEY
    with pytest.raises(KeyUnavailable, match="nothing that is configured opens"):
        Keystore(store, local).open(OWN, 1)


def test_a_mutated_object_never_opens(aws: "KMSClient", tmp_path: Path) -> None:
    held = Keystore(FileStore(tmp_path), kms(new_key(aws)))
    held.create(OWN, 1)
    file = tmp_path / "keystore" / OWN.hex / "1"
    content = file.read_bytes()
    for where in range(0, len(content), 3):
        file.write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
        with pytest.raises(KeyUnavailable):
            held.open(OWN, 1)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "KMSInternalException"),
        (503, "ServiceUnavailable"),
        (400, "ThrottlingException"),
        (400, "DependencyTimeoutException"),
        (400, "DisabledException"),
        (400, "KMSInvalidStateException"),
        (400, "AccessDeniedException"),
    ],
)
def test_what_may_pass_is_waited_for(bad_day: FakeKms, status: int, code: str) -> None:
    service = kms(ARN, endpoint=bad_day.url)
    wrapped = service.wrap(KEY, CONTEXT)
    bad_day.refusal = (status, code)
    for call in (
        lambda: service.wrap(KEY, CONTEXT),
        lambda: service.unwrap(wrapped, CONTEXT),
        lambda: service.rewrap(wrapped, CONTEXT),
    ):
        with pytest.raises(KeyServiceUnavailable) as refused:
            call()
        assert (refused.value.code, refused.value.retryable) == ("key_unavailable", True)
        assert code in refused.value.message or "503" in refused.value.message
    bad_day.refusal = None
    assert service.unwrap(wrapped, CONTEXT) == KEY


@pytest.mark.parametrize("code", ["NotFoundException", "IncorrectKeyException"])
def test_what_does_not_pass_is_told_at_once(bad_day: FakeKms, code: str) -> None:
    bad_day.refusal = (400, code)
    with pytest.raises(KeyUnavailable, match=code) as refused:
        kms(ARN, endpoint=bad_day.url).wrap(KEY, CONTEXT)
    assert not refused.value.retryable


def test_nobody_at_the_endpoint_is_waited_for() -> None:
    with pytest.raises(KeyServiceUnavailable, match="EndpointConnectionError"):
        kms(ARN, endpoint="http://127.0.0.1:1").wrap(KEY, CONTEXT)


def test_every_request_names_the_key_and_the_context(bad_day: FakeKms) -> None:
    service = kms(ARN, endpoint=bad_day.url)
    service.unwrap(service.wrap(KEY, CONTEXT), CONTEXT)
    words = {"app": "tenantry", "purpose": "tenant_key", "tenant_id": str(OWN), "kver": "1"}
    assert [action for action, _ in bad_day.asked] == ["Encrypt", "Decrypt"]
    for _, request in bad_day.asked:
        assert (request["KeyId"], request["EncryptionContext"]) == (ARN, words)
