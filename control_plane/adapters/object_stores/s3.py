"""Objects in S3, or in a store that speaks its language: SeaweedFS, Ceph, rclone and others."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from control_plane.adapters.object_stores.patience import Patience
from control_plane.adapters.object_stores.proving import prove
from control_plane.adapters.object_stores.s3_errors import translated
from control_plane.adapters.object_stores.s3_requests import S3Place, S3Requests
from control_plane.adapters.object_stores.s3_transfer import Reading
from control_plane.adapters.object_stores.s3_upload import S3Upload
from control_plane.adapters.object_stores.store import PendingUpload, StoredObject
from control_plane.domain.errors import BackupCorrupt, Invalid, ObjectMissing, StoreRefused

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import (
        GetObjectOutputTypeDef,
        ListMultipartUploadsOutputTypeDef,
        ListObjectsV2OutputTypeDef,
    )

LONGEST_LINK_SECONDS = 900
_DELETED_AT_ONCE = 1_000


class S3Store:
    """See ``ObjectStore``. Nothing is asked of the server before the first call."""

    def __init__(self, place: S3Place, patience: Patience | None = None) -> None:
        self._requests = S3Requests(place, patience or Patience())
        self.url = self._requests.url

    def put(self, key: str, data: bytes) -> StoredObject:
        return self._requests.put(key, [data])

    def get(self, key: str, most: int = 64 * 1024 * 1024) -> bytes:
        def accept(size: int) -> None:
            if size > most:
                raise StoreRefused(f"{key} has {size} bytes; at most {most} were expected")

        return b"".join(self._reading(key, accept))

    def upload(self, key: str) -> S3Upload:
        return S3Upload(self._requests, key)

    def read(self, key: str, size: int, begin: int = 0) -> Iterator[bytes]:
        """See ``ObjectStore``; ``begin`` leaves out what is before it."""

        def accept(found: int) -> None:
            if found != size:
                raise BackupCorrupt(f"{key} has {found} bytes in the store, and not {size}")

        yield from self._reading(key, accept, begin)

    def head(self, key: str) -> StoredObject | None:
        return self._requests.head(key)

    def delete(self, keys: Iterable[str]) -> None:
        every = list(keys)
        for start in range(0, len(every), _DELETED_AT_ONCE):
            self._requests.delete(every[start : start + _DELETED_AT_ONCE])

    def pending(self, prefix: str) -> Iterator[PendingUpload]:
        more: dict[str, Any] = {}
        while True:
            try:
                page = self._requests.ask(
                    "listing uploads to", prefix or "anywhere", partial(self._uploads, prefix, more)
                )
            except ObjectMissing:  # what rclone answers while there are none
                return
            for found in page.get("Uploads", []):
                yield PendingUpload(self._own(found["Key"]), found["UploadId"], found["Initiated"])
            if not page.get("IsTruncated"):
                return
            more = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def abort_pending(self, upload: PendingUpload) -> None:
        self._requests.abort(upload.key, upload.upload_id)

    def link(self, key: str, seconds: int) -> str:
        if not 0 < seconds <= LONGEST_LINK_SECONDS:
            raise Invalid(f"a link lives for 1 to {LONGEST_LINK_SECONDS} seconds, not {seconds}")
        with translated(f"making a link to {key} in {self.url}"):
            return self._requests.client().generate_presigned_url(
                "get_object", Params=self._requests.named(key), ExpiresIn=seconds
            )

    def self_test(self) -> Sequence[str]:
        return prove(self, self.read)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        more: dict[str, Any] = {}
        while True:
            page = self._requests.ask(
                "listing", prefix or "everything", partial(self._objects, prefix, more)
            )
            for found in page.get("Contents", []):
                yield StoredObject(self._own(found["Key"]), found["Size"], found["LastModified"])
            if not page.get("NextContinuationToken"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _reading(self, key: str, accept: Callable[[int], None], begin: int = 0) -> Reading:
        def get(asked: dict[str, Any]) -> "GetObjectOutputTypeDef":
            return self._requests.client().get_object(**self._requests.named(key), **asked)

        what = f"reading {key} in {self.url}"
        return Reading(get, what, accept, begin, self._requests.patience)

    def _objects(
        self, prefix: str, more: dict[str, Any], s3: "S3Client"
    ) -> "ListObjectsV2OutputTypeDef":
        place = self._requests.place
        return s3.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix + prefix, **more)

    def _uploads(
        self, prefix: str, more: dict[str, Any], s3: "S3Client"
    ) -> "ListMultipartUploadsOutputTypeDef":
        place = self._requests.place
        return s3.list_multipart_uploads(Bucket=place.bucket, Prefix=place.prefix + prefix, **more)

    def _own(self, name: str) -> str:
        return name.removeprefix(self._requests.place.prefix)
