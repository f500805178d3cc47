"""From a store's URL to the store."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.config import BackupSettings, Secret, SettingsError

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[\w.=+@-]+/)*", re.ASCII)
_CREDENTIALS = "TENANTRY_S3_CREDENTIALS_FILE"
_FORMS = "a store is s3://bucket/prefix or file:///directory"


class _KeyPair(msgspec.Struct, frozen=True):
    access_key: str
    secret_key: str


def open_store(url: str, settings: BackupSettings) -> ObjectStore:
    """The store at this URL; it is not asked anything yet.

    Raises:
        SettingsError: it cannot be a store.
    """
    # An URL with a password in it is not repeated: the message may be logged.
    if "@" in urlsplit(url).netloc:
        raise SettingsError(f"the URL of a store holds no key; name a file in {_CREDENTIALS}")
    if url.startswith("file://"):
        return FileStore(_directory(url))
    if url.startswith("s3://"):
        return _s3(url, settings)
    raise SettingsError(f"{url!r} is no store; {_FORMS}")


def _directory(url: str) -> Path:
    path = url.removeprefix("file://")
    directory = Path(path)
    if not path.startswith("/") or directory == Path("/") or ".." in directory.parts:
        raise SettingsError(f"{url!r} names no directory; {_FORMS}, such as file:///srv/backups")
    return directory


def _s3(url: str, settings: BackupSettings) -> ObjectStore:
    # boto3 takes a quarter of a second to import, and many a process has no store.
    from control_plane.adapters.object_stores.s3 import S3Store  # noqa: PLC0415
    from control_plane.adapters.object_stores.s3_requests import S3Place  # noqa: PLC0415

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise SettingsError(
            f"{url!r} names no bucket: a bucket has 3 to 63 lower-case letters, digits, dots and "
            "hyphens"
        )
    prefix = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
    if _PREFIX.fullmatch(prefix) is None:
        raise SettingsError(f"{url!r} has a prefix that is not plain words between slashes")
    keys = _key_pair(settings.s3_credentials)
    return S3Store(
        S3Place(
            bucket=bucket,
            prefix=prefix,
            endpoint=_endpoint(settings.s3_endpoint),
            region=settings.s3_region,
            access_key=keys.access_key if keys else None,
            secret_key=Secret(keys.secret_key) if keys else None,
        )
    )


def _endpoint(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError("TENANTRY_S3_ENDPOINT is a plain URL, without a user or parameters")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(
            f"TENANTRY_S3_ENDPOINT={url!r} is no URL such as https://s3.example.org"
        )
    return url


def _key_pair(secret: Secret | None) -> _KeyPair | None:
    if secret is None:
        return None
    try:
        return msgspec.json.decode(secret.reveal(), type=_KeyPair)
    except msgspec.DecodeError:
        # The cause would quote what is in the file.
        raise SettingsError(
            f'the file in {_CREDENTIALS} must hold {{"access_key": "…", "secret_key": "…"}}'
        ) from None
