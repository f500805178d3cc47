"""The only reader of the environment: one frozen tree of settings, secrets from files."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Self

import msgspec

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_TEMPLATE = "clinic"
# A chart is made of minutes.
_LONGEST_ROUND = 60
_TEMPLATE_NAME = r"[a-z][a-z0-9-]{0,38}[a-z0-9]"


class Secret:
    """A value that prints as ``***`` and is read only by an explicit ``reveal()``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names the variable and the remedy."""


class EngineSettings(msgspec.Struct, frozen=True):
    """Times of the operation engine, in seconds; ``pulse_file`` is touched while it lives."""

    lease_seconds: float = 15.0
    sweep_seconds: float = 2.0
    retry_cap_seconds: float = 30.0
    failpoint_dir: Path | None = None
    pulse_file: Path | None = None


class PoolerSettings(msgspec.Struct, frozen=True):
    """One PgBouncer process and the files and socket its agent owns."""

    name: str
    cell: str
    host: str
    port: int
    directory: Path
    socket_dir: Path
    console_password: Secret
    pulse_file: Path | None = None
    usage_seconds: float = 15.0


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


class Settings(msgspec.Struct, frozen=True):
    """Everything a process of the control plane may be told from outside."""

    home: Path
    catalog_dsn: str
    catalog_password: Secret | None
    redis_url: str
    redis_password: Secret | None
    keyring_file: Path
    server_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    templates: dict[str, Path]
    pool_target: int = 4
    rotation_grace_seconds: int = 3600
    rate_limit_per_minute: int = 6000
    upkeep_minutes: float = 15.0
    usage_seconds: float = 15.0
    engine: EngineSettings = EngineSettings()
    backup: BackupSettings = BackupSettings()

    @classmethod
    def from_environment(cls) -> Self:
        """Read ``TENANTRY_*`` once.

        Raises:
            SettingsError: a required variable is missing or a value cannot be used.
        """
        home = Path(_text("TENANTRY_HOME", "/var/lib/tenantry"))
        return cls(
            home=home,
            catalog_dsn=_required("TENANTRY_CATALOG_DSN"),
            catalog_password=_secret("TENANTRY_CATALOG_PASSWORD_FILE"),
            redis_url=_required("TENANTRY_REDIS_URL"),
            redis_password=_secret("TENANTRY_REDIS_PASSWORD_FILE"),
            keyring_file=Path(_text("TENANTRY_KEYRING_FILE", str(home / "keys" / "root.keys"))),
            server_networks=_networks("TENANTRY_SERVER_NETWORKS"),
            templates=_templates(),
            pool_target=int(_number("TENANTRY_POOL_TARGET", 4)),
            rotation_grace_seconds=int(_number("TENANTRY_ROTATION_GRACE_SECONDS", 3600)),
            rate_limit_per_minute=int(_number("TENANTRY_RATE_LIMIT_PER_MINUTE", 6000)),
            upkeep_minutes=_number("TENANTRY_UPKEEP_MINUTES", 15),
            usage_seconds=_usage_seconds(),
            engine=EngineSettings(
                lease_seconds=_number("TENANTRY_LEASE_SECONDS", 15),
                sweep_seconds=_number("TENANTRY_SWEEP_SECONDS", 2),
                retry_cap_seconds=_number("TENANTRY_RETRY_CAP_SECONDS", 30),
                failpoint_dir=_optional_path("TENANTRY_FAILPOINT_DIR"),
                pulse_file=_optional_path("TENANTRY_PULSE_PATH"),
            ),
            backup=_backup(home),
        )


def pooler_from_environment() -> PoolerSettings:
    """Read ``TENANTRY_POOLER_*``, which only an agent has.

    Raises:
        SettingsError: a variable is missing or a value cannot be used.
    """
    password = _secret("TENANTRY_POOLER_CONSOLE_PASSWORD_FILE")
    if password is None:
        raise SettingsError("TENANTRY_POOLER_CONSOLE_PASSWORD_FILE is not set; name a 0600 file")
    return PoolerSettings(
        name=_required("TENANTRY_POOLER_NAME"),
        cell=_text("TENANTRY_POOLER_CELL", "cell-1"),
        host=_required("TENANTRY_POOLER_HOST"),
        port=int(_required("TENANTRY_POOLER_PORT")),
        directory=Path(_required("TENANTRY_POOLER_DIR")),
        socket_dir=Path(_required("TENANTRY_POOLER_SOCKET_DIR")),
        console_password=password,
        pulse_file=_optional_path("TENANTRY_PULSE_PATH"),
        usage_seconds=_usage_seconds(),
    )


class ClientSettings(msgspec.Struct, frozen=True):
    """What the CLI needs: where the API is, its token, and the password of a server to enrol.

    A file (``TENANTRY_TOKEN_FILE``, ``TENANTRY_SERVER_PASSWORD_FILE``) comes before the variable
    that holds the secret itself.
    """

    home: Path
    url: str | None
    token: Secret | None
    server_password: Secret | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """Read what a person or a script says about the API.

        Raises:
            SettingsError: a file with a secret cannot be read.
        """
        return cls(
            home=Path(_text("TENANTRY_HOME", str(default_home()))),
            url=os.environ.get("TENANTRY_URL"),
            token=_secret("TENANTRY_TOKEN_FILE") or _plain_secret("TENANTRY_TOKEN"),
            server_password=_secret("TENANTRY_SERVER_PASSWORD_FILE")
            or _plain_secret("TENANTRY_SERVER_PASSWORD"),
        )


class KeySettings(msgspec.Struct, frozen=True):
    """What opening tenants' keys takes, on a machine that may have nothing else."""

    keyring_file: Path
    backup: BackupSettings

    @classmethod
    def from_environment(cls) -> Self:
        """Read the variables about keys and stores.

        Raises:
            SettingsError: a value cannot be used.
        """
        home = Path(_text("TENANTRY_HOME", "/var/lib/tenantry"))
        keyring = Path(_text("TENANTRY_KEYRING_FILE", str(home / "keys" / "root.keys")))
        return cls(keyring, _backup(home))


def default_home() -> Path:
    """The state directory of the local stack: system-wide for root, per user otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/tenantry")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "tenantry"


def child_environment(**values: str) -> dict[str, str]:
    """The environment for a program we start: ours without settings and secrets, plus ``values``.

    Left out are ``TENANTRY_*``, and ``AWS_*``, which is where boto3 may find a secret key.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TENANTRY_", "AWS_"))}
    return kept | values


def secret_files() -> dict[str, Path]:
    """The variables that name a file with a secret, as far as they are set, and their files."""
    named = {k: v for k, v in os.environ.items() if k.startswith("TENANTRY_") and v}
    return {k: Path(v) for k, v in sorted(named.items()) if k.endswith("_FILE")}


def _backup(home: Path) -> BackupSettings:
    store = os.environ.get("TENANTRY_BACKUP_STORE") or None
    kms = _text("TENANTRY_KMS", "local")
    if kms != "local" and not re.fullmatch(r"aws-kms:[^\s,]+(,[^\s,]+)*", kms):
        raise SettingsError(f"TENANTRY_KMS={kms!r} is neither local nor aws-kms:<key id>")
    return BackupSettings(
        store=store,
        keystore=os.environ.get("TENANTRY_KEYSTORE") or store,
        s3_endpoint=os.environ.get("TENANTRY_S3_ENDPOINT") or None,
        s3_region=_text("TENANTRY_S3_REGION", "us-east-1"),
        s3_credentials=_secret("TENANTRY_S3_CREDENTIALS_FILE"),
        kms=kms,
        kms_endpoint=os.environ.get("TENANTRY_KMS_ENDPOINT") or None,
        spool=Path(_text("TENANTRY_SPOOL_DIR", str(home / "spool"))),
        postgres_programs=_paths("TENANTRY_POSTGRES_PROGRAMS"),
        at_once=int(_number("TENANTRY_BACKUPS_AT_ONCE", 4)),
        per_server=int(_number("TENANTRY_BACKUPS_PER_SERVER", 2)),
        undo_days=_number("TENANTRY_UNDO_DAYS", 7),
        delete_grace_days=_number("TENANTRY_DELETE_GRACE_DAYS", 30),
        copies_kept_days=int(_number("TENANTRY_COPIES_KEPT_DAYS", 35)),
        catalog_minutes=_number("TENANTRY_CATALOG_BACKUP_MINUTES", 60),
    )


def _paths(name: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in os.environ.get(name, "").split(":") if part)


def _text(name: str, default: str) -> str:
    return os.environ.get(name) or default


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SettingsError(f"{name} is not set; docs/configuration.md lists every setting")
    return value


def _number(name: str, default: float) -> float:
    raw = os.environ.get(name)
    if not raw:
        return default
    try:
        return float(raw)
    except ValueError as error:
        raise SettingsError(f"{name}={raw!r} is not a number") from error


def _usage_seconds() -> float:
    seconds = _number("TENANTRY_USAGE_SECONDS", 15)
    if not 1 <= seconds <= _LONGEST_ROUND:
        raise SettingsError(f"TENANTRY_USAGE_SECONDS={seconds:g} is not from 1 to {_LONGEST_ROUND}")
    return seconds


def _optional_path(name: str) -> Path | None:
    raw = os.environ.get(name)
    return Path(raw) if raw else None


def _templates() -> dict[str, Path]:
    """The default template and those named ``name=directory, …``."""
    clinic = _text("TENANTRY_TEMPLATE_DIR", str(REPOSITORY / "tenant_template"))
    found = {DEFAULT_TEMPLATE: Path(clinic)}
    raw = os.environ.get("TENANTRY_TEMPLATES", "")
    for part in filter(None, (part.strip() for part in raw.split(","))):
        name, equals, directory = part.partition("=")
        if not (equals and directory and re.fullmatch(_TEMPLATE_NAME, name)):
            raise SettingsError(f"TENANTRY_TEMPLATES: {part!r} is not name=directory")
        found[name] = Path(directory)
    return found


def _secret(name: str) -> Secret | None:
    path = _optional_path(name)
    if path is None:
        return None
    try:
        return Secret(path.read_text().strip())
    except OSError as error:
        raise SettingsError(f"{name}: cannot read {path}: {error.strerror}") from error


def _plain_secret(name: str) -> Secret | None:
    value = os.environ.get(name)
    return Secret(value) if value else None


def _networks(name: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    raw = os.environ.get(name, "")
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in raw.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(f"{name}={raw!r}: {error}; use CIDRs such as 10.0.0.0/8") from error
