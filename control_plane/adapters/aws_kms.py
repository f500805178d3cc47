"""AWS KMS as the root of all tenant keys.

Every call names the key it wants, so that whoever can write to the keystore cannot make us open
what another key wrapped; the context is checked by the service and appears in its log.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from control_plane.adapters.kms import KeyContext, Wrapped
from control_plane.domain.errors import KeyServiceUnavailable, KeyUnavailable

if TYPE_CHECKING:
    from types_boto3_kms import KMSClient

_ARN_SECONDS = 300.0
_KEY_ARN = ":key/"
_CONFIG = Config(
    connect_timeout=2,
    read_timeout=4,
    retries={"total_max_attempts": 2, "mode": "standard"},
)
# Trying again changes nothing about these. A disabled key can be enabled again, and a permission
# be granted: operations wait for that until their deadline.
_FINAL = frozenset(
    {
        "IncorrectKeyException",
        "InvalidArnException",
        "InvalidCiphertextException",
        "InvalidKeyUsageException",
        "NotFoundException",
        "UnsupportedOperationException",
        "ValidationException",
    }
)


class AwsKms:
    """Wraps under the first of ``key_ids``; what an earlier one of the others wrapped opens too.

    Credentials are those the AWS SDK finds: a role of the machine, a profile, or its variables.
    """

    def __init__(self, key_ids: Sequence[str], *, region: str, endpoint: str | None) -> None:
        self._key_ids = key_ids
        self._client: KMSClient = boto3.client(
            "kms",
            region_name=_region_of(key_ids[0]) or region,
            endpoint_url=endpoint,
            config=_CONFIG,
        )
        self._arns: dict[str, tuple[str, float]] = {}

    def reference(self) -> str:
        return self._arn(self._key_ids[0])

    def opens(self, reference: str) -> bool:
        return reference.startswith("arn:")

    def wrap(self, key: bytes, context: KeyContext) -> Wrapped:
        with _translated("wrap a tenant key"):
            answer = self._client.encrypt(
                KeyId=self.reference(), Plaintext=key, EncryptionContext=context.words()
            )
        return Wrapped(answer["KeyId"], answer["CiphertextBlob"])

    def unwrap(self, wrapped: Wrapped, context: KeyContext) -> bytes:
        self._require_ours(wrapped.reference)
        with _translated("open a tenant key"):
            answer = self._client.decrypt(
                KeyId=wrapped.reference,
                CiphertextBlob=wrapped.blob,
                EncryptionContext=context.words(),
            )
        return answer["Plaintext"]

    def rewrap(self, wrapped: Wrapped, context: KeyContext) -> Wrapped:
        self._require_ours(wrapped.reference)
        with _translated("wrap a tenant key anew"):
            answer = self._client.re_encrypt(
                CiphertextBlob=wrapped.blob,
                SourceKeyId=wrapped.reference,
                SourceEncryptionContext=context.words(),
                DestinationKeyId=self.reference(),
                DestinationEncryptionContext=context.words(),
            )
        return Wrapped(answer["KeyId"], answer["CiphertextBlob"])

    def _require_ours(self, reference: str) -> None:
        if reference not in {self._arn(key_id) for key_id in self._key_ids}:
            raise KeyUnavailable(
                f"a tenant key was wrapped by {reference}, which TENANTRY_KMS does not name"
            )

    def _arn(self, key_id: str) -> str:
        """The full name of a key; an alias is looked up again after a while."""
        if _KEY_ARN in key_id:
            return key_id
        known, until = self._arns.get(key_id, ("", 0.0))
        if time.monotonic() < until:
            return known
        with _translated("describe the root key"):
            found = self._client.describe_key(KeyId=key_id)["KeyMetadata"]
        self._arns[key_id] = (found["Arn"], time.monotonic() + _ARN_SECONDS)
        return found["Arn"]


def _region_of(key_id: str) -> str | None:
    return key_id.split(":")[3] if key_id.startswith("arn:") else None


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn errors of the SDK into ours.

    Raises:
        KeyServiceUnavailable: the service is away or busy, or does not let us for now.
        KeyUnavailable: it will never do this.
    """
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        kind = KeyUnavailable if code in _FINAL else KeyServiceUnavailable
        raise kind(f"the key service did not {doing}: {code}") from error
    except BotoCoreError as error:
        raise KeyServiceUnavailable(
            f"the key service did not {doing}: {type(error).__name__}"
        ) from error
