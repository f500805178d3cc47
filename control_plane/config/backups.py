"""Settings of backups, of the keys they need, and of the stores they go to."""

import re
from pathlib import Path

import msgspec

from control_plane.config.environment import (
    Secret,
    SettingsError,
    number,
    optional_text,
    paths,
    secret,
    text,
)


class BackupSettings(msgspec.Struct, frozen=True):
    """Where backups go and how many run at once.

    ``store`` and ``keystore`` are ``s3://bucket/prefix`` or ``file:///directory``; the keystore is
    the store itself, under another prefix, unless it is named. ``kms`` is ``local`` or
    ``aws-kms:<key id>``; key ids after it, with commas, only open what they wrapped before.
    The catalog itself is backed up every ``catalog_minutes``.
    """

    store: str | None = None
    keystore: str | None = None
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_credentials: Secret | None = None
    kms: str = "local"
    kms_endpoint: str | None = None
    spool: Path = Path("/var/lib/tenantry/spool")
    postgres_programs: tuple[Path, ...] = ()
    at_once: int = 4
    per_server: int = 2
    undo_days: float = 7.0
    delete_grace_days: float = 30.0
    copies_kept_days: int = 35
    catalog_minutes: float = 60.0


def read_backups(home: Path) -> BackupSettings:
    store = optional_text("TENANTRY_BACKUP_STORE")
    kms = text("TENANTRY_KMS", "local")
    if kms != "local" and not re.fullmatch(r"aws-kms:[^\s,]+(,[^\s,]+)*", kms):
        raise SettingsError(f"TENANTRY_KMS={kms!r} is neither local nor aws-kms:<key id>")
    return BackupSettings(
        store=store,
        keystore=optional_text("TENANTRY_KEYSTORE") or store,
        s3_endpoint=optional_text("TENANTRY_S3_ENDPOINT"),
        s3_region=text("TENANTRY_S3_REGION", "us-east-1"),
        s3_credentials=secret("TENANTRY_S3_CREDENTIALS_FILE"),
        kms=kms,
        kms_endpoint=optional_text("TENANTRY_KMS_ENDPOINT"),
        spool=Path(text("TENANTRY_SPOOL_DIR", str(home / "spool"))),
        postgres_programs=paths("TENANTRY_POSTGRES_PROGRAMS"),
        at_once=int(number("TENANTRY_BACKUPS_AT_ONCE", 4)),
        per_server=int(number("TENANTRY_BACKUPS_PER_SERVER", 2)),
        undo_days=number("TENANTRY_UNDO_DAYS", 7),
        delete_grace_days=number("TENANTRY_DELETE_GRACE_DAYS", 30),
        copies_kept_days=int(number("TENANTRY_COPIES_KEPT_DAYS", 35)),
        catalog_minutes=number("TENANTRY_CATALOG_BACKUP_MINUTES", 60),
    )
