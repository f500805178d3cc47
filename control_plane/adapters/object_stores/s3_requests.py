"""Single requests to S3, or to what speaks its language: signed, tried again, errors translated."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import ClientError

from control_plane.adapters.object_stores.patience import Patience, T
from control_plane.adapters.object_stores.s3_errors import translated
from control_plane.adapters.object_stores.s3_transfer import Body
from control_plane.adapters.object_stores.store import StoredObject
from control_plane.config import Secret
from control_plane.domain.errors import ObjectMissing, StoreUnavailable, TenantryError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, ObjectIdentifierTypeDef

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_CONNECT_SECONDS = 10
_CONNECTIONS = 32

Pieces = Sequence[bytes | bytearray | memoryview]


class S3Place(msgspec.Struct, frozen=True):
    """Where the objects are and who asks for them.

    Without ``endpoint`` it is AWS. Without a key pair boto3 looks for one: environment, files,
    the role of the machine.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    access_key: str | None = None
    secret_key: Secret | None = None
    answer_seconds: float = 45.0

    @property
    def amazon(self) -> bool:
        host = urlsplit(self.endpoint).hostname if self.endpoint else None
        return host is None or host.endswith(_AMAZON)


class S3Requests:
    """One client of boto3, made at the first request; threads may share it."""

    def __init__(self, place: S3Place, patience: Patience) -> None:
        self.url = f"s3://{place.bucket}/{place.prefix}".rstrip("/")
        self.place = place
        self.patience = patience
        self._made: S3Client | None = None
        self._making = threading.Lock()

    def ask(
        self,
        doing: str,
        key: str,
        ask: "Callable[[S3Client], T]",
        stop: threading.Event | None = None,
    ) -> T:
        """The answer to a request that may be sent more than once.

        Raises:
            StoreUnavailable, StoreRefused, ObjectMissing: what went wrong while ``doing`` it.
        """

        def asked() -> T:
            with translated(f"{doing} {key} in {self.url}"):
                return ask(self.client())

        return self.patience.persist(asked, stop)

    def client(self) -> "S3Client":
        with self._making:
            if self._made is None:
                self._made = _connect(self.place)
            return self._made

    def named(self, key: str) -> dict[str, Any]:
        """The bucket and the object's full name, as arguments."""
        return {"Bucket": self.place.bucket, "Key": self.place.prefix + key}

    def head(self, key: str) -> StoredObject | None:
        try:
            found = self.ask("looking for", key, lambda s3: s3.head_object(**self.named(key)))
        except ObjectMissing:
            return None
        return StoredObject(key, found["ContentLength"], found["LastModified"])

    def put(self, key: str, pieces: Pieces, stop: threading.Event | None = None) -> StoredObject:
        """Write an object with one request, and look that it is there."""

        def put(s3: "S3Client") -> object:
            return s3.put_object(**self.named(key), **self._body(pieces))

        self.ask("writing", key, put, stop)
        return self.written(key, sum(map(len, pieces)))

    def written(self, key: str, size: int) -> StoredObject:
        """An object that was just written, if it is there, whole.

        Raises:
            StoreUnavailable: the store said that it has it, and that is not true.
        """
        found = self.head(key)
        if found is None:
            raise StoreUnavailable(f"{key} was written to {self.url}, and is not there")
        if found.size != size:
            with suppress(TenantryError):
                self.delete([key])
            raise StoreUnavailable(
                f"{key} was written to {self.url} with {size} bytes, and has {found.size} there"
            )
        return found

    def delete(self, keys: Sequence[str]) -> None:
        """Delete at most a thousand objects; those that are not there are no error."""
        names: list[ObjectIdentifierTypeDef] = [{"Key": self.place.prefix + key} for key in keys]

        def delete(s3: "S3Client") -> None:
            answer = s3.delete_objects(
                Bucket=self.place.bucket, Delete={"Objects": names, "Quiet": True}
            )
            for error in answer.get("Errors", []):
                if error.get("Code") != "NoSuchKey":
                    raise ClientError({"Error": error}, "DeleteObjects")

        self.ask("deleting", ", ".join(keys[:3]), delete)

    def begin(self, key: str, stop: threading.Event) -> str:
        """Begin an upload in parts; its id."""
        how: dict[str, Any] = {"ChecksumAlgorithm": "CRC32"} if self.place.amazon else {}

        def begin(s3: "S3Client") -> str:
            return s3.create_multipart_upload(**self.named(key), **how)["UploadId"]

        return self.ask("beginning the upload of", key, begin, stop)

    def send_part(
        self, key: str, upload_id: str, number: int, pieces: Pieces, stop: threading.Event
    ) -> "CompletedPartTypeDef":
        """Send one part; what the end of the upload must say about it."""

        def send(s3: "S3Client") -> "CompletedPartTypeDef":
            content = self._body(pieces)
            sent = s3.upload_part(
                **self.named(key), UploadId=upload_id, PartNumber=number, **content
            )
            part: CompletedPartTypeDef = {"PartNumber": number, "ETag": sent["ETag"]}
            if "ChecksumCRC32" in content:
                part["ChecksumCRC32"] = content["ChecksumCRC32"]
            return part

        return self.ask(f"writing part {number} of", key, send, stop)

    def complete(
        self,
        key: str,
        upload_id: str,
        parts: "Sequence[CompletedPartTypeDef]",
        stop: threading.Event,
    ) -> None:
        """Make the object of its parts."""

        def complete(s3: "S3Client") -> object:
            return s3.complete_multipart_upload(
                **self.named(key), UploadId=upload_id, MultipartUpload={"Parts": parts}
            )

        self.ask("completing the upload of", key, complete, stop)

    def abort(self, key: str, upload_id: str) -> None:
        """Forget an upload in parts; one that is not there is no error."""

        def abort(s3: "S3Client") -> object:
            return s3.abort_multipart_upload(**self.named(key), UploadId=upload_id)

        try:
            self.ask("giving up the upload of", key, abort)
        except ObjectMissing:
            return

    def _body(self, pieces: Pieces) -> dict[str, Any]:
        """The body of a request, and for AWS its checksum.

        botocore itself would append the checksum to the body, in chunks of a form that some
        stores have saved as a part of the object; and it would copy each byte many times.
        """
        body = Body(pieces)
        if self.place.amazon:
            return {"Body": body, "ChecksumCRC32": body.crc32()}
        return {"Body": body}


def _connect(place: S3Place) -> "S3Client":
    checksums: Any = "when_supported" if place.amazon else "when_required"
    config = Config(
        signature_version="s3v4",
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=place.answer_seconds,
        tcp_keepalive=True,
        max_pool_connections=_CONNECTIONS,
        # Trying again is ours alone: botocore's attempts would multiply with ours, and its calls
        # share a quota of them, which one failing upload would use up for all others.
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={
            "addressing_style": "auto" if place.amazon else "path",
            # To sign a body is to hash it with SHA-256, which costs more than to send it. What
            # is stored is encrypted, authenticated and hashed before it gets here, so no line and
            # no store can change it unseen. The request itself is signed all the same.
            "payload_signing_enabled": False,
        },
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=place.endpoint,
        region_name=place.region,
        aws_access_key_id=place.access_key,
        aws_secret_access_key=place.secret_key.reveal() if place.secret_key else None,
        config=config,
    )
