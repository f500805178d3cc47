"""The only reader of the environment: one frozen tree of settings, secrets from files."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Self

import msgspec

from control_plane.config.backups import BackupSettings, read_backups
from control_plane.config.console import ConsoleSettings, OidcSettings, read_console
from control_plane.config.environment import (
    Secret,
    SettingsError,
    child_environment,
    networks,
    number,
    optional_path,
    optional_text,
    plain_secret,
    required,
    secret,
    secret_files,
    text,
)
from control_plane.config.providers import (
    KubernetesSettings,
    ProviderSettings,
    RdsSettings,
    read_providers,
)

__all__ = [
    "DEFAULT_TEMPLATE",
    "REPOSITORY",
    "BackupSettings",
    "ClientSettings",
    "ConsoleSettings",
    "EngineSettings",
    "KeySettings",
    "KubernetesSettings",
    "OidcSettings",
    "PoolerSettings",
    "ProviderSettings",
    "RdsSettings",
    "Secret",
    "Settings",
    "SettingsError",
    "child_environment",
    "default_home",
    "pooler_from_environment",
    "secret_files",
]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DEFAULT_TEMPLATE = "clinic"
# A chart is made of minutes.
_LONGEST_ROUND = 60
_TEMPLATE_NAME = r"[a-z][a-z0-9-]{0,38}[a-z0-9]"


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
    console: ConsoleSettings = ConsoleSettings()
    providers: ProviderSettings = ProviderSettings()

    @classmethod
    def from_environment(cls) -> Self:
        """Read ``TENANTRY_*`` once.

        Raises:
            SettingsError: a required variable is missing or a value cannot be used.
        """
        home = Path(text("TENANTRY_HOME", "/var/lib/tenantry"))
        return cls(
            home=home,
            catalog_dsn=required("TENANTRY_CATALOG_DSN"),
            catalog_password=secret("TENANTRY_CATALOG_PASSWORD_FILE"),
            redis_url=required("TENANTRY_REDIS_URL"),
            redis_password=secret("TENANTRY_REDIS_PASSWORD_FILE"),
            keyring_file=Path(text("TENANTRY_KEYRING_FILE", str(home / "keys" / "root.keys"))),
            server_networks=networks("TENANTRY_SERVER_NETWORKS"),
            templates=_templates(),
            pool_target=int(number("TENANTRY_POOL_TARGET", 4)),
            rotation_grace_seconds=int(number("TENANTRY_ROTATION_GRACE_SECONDS", 3600)),
            rate_limit_per_minute=int(number("TENANTRY_RATE_LIMIT_PER_MINUTE", 6000)),
            upkeep_minutes=number("TENANTRY_UPKEEP_MINUTES", 15),
            usage_seconds=_usage_seconds(),
            engine=EngineSettings(
                lease_seconds=number("TENANTRY_LEASE_SECONDS", 15),
                sweep_seconds=number("TENANTRY_SWEEP_SECONDS", 2),
                retry_cap_seconds=number("TENANTRY_RETRY_CAP_SECONDS", 30),
                failpoint_dir=optional_path("TENANTRY_FAILPOINT_DIR"),
                pulse_file=optional_path("TENANTRY_PULSE_PATH"),
            ),
            backup=read_backups(home),
            console=read_console(),
            providers=read_providers(),
        )


def pooler_from_environment() -> PoolerSettings:
    """Read ``TENANTRY_POOLER_*``, which only an agent has.

    Raises:
        SettingsError: a variable is missing or a value cannot be used.
    """
    password = secret("TENANTRY_POOLER_CONSOLE_PASSWORD_FILE")
    if password is None:
        raise SettingsError("TENANTRY_POOLER_CONSOLE_PASSWORD_FILE is not set; name a 0600 file")
    return PoolerSettings(
        name=required("TENANTRY_POOLER_NAME"),
        cell=text("TENANTRY_POOLER_CELL", "cell-1"),
        host=required("TENANTRY_POOLER_HOST"),
        port=int(required("TENANTRY_POOLER_PORT")),
        directory=Path(required("TENANTRY_POOLER_DIR")),
        socket_dir=Path(required("TENANTRY_POOLER_SOCKET_DIR")),
        console_password=password,
        pulse_file=optional_path("TENANTRY_PULSE_PATH"),
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
            home=Path(text("TENANTRY_HOME", str(default_home()))),
            url=optional_text("TENANTRY_URL"),
            token=secret("TENANTRY_TOKEN_FILE") or plain_secret("TENANTRY_TOKEN"),
            server_password=secret("TENANTRY_SERVER_PASSWORD_FILE")
            or plain_secret("TENANTRY_SERVER_PASSWORD"),
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
        home = Path(text("TENANTRY_HOME", "/var/lib/tenantry"))
        keyring = Path(text("TENANTRY_KEYRING_FILE", str(home / "keys" / "root.keys")))
        return cls(keyring, read_backups(home))


def default_home() -> Path:
    """The state directory of the local stack: system-wide for root, per user otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/tenantry")
    base = optional_text("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "tenantry"


def _usage_seconds() -> float:
    seconds = number("TENANTRY_USAGE_SECONDS", 15)
    if not 1 <= seconds <= _LONGEST_ROUND:
        raise SettingsError(f"TENANTRY_USAGE_SECONDS={seconds:g} is not from 1 to {_LONGEST_ROUND}")
    return seconds


def _templates() -> dict[str, Path]:
    """The default template and those named ``name=directory, …``."""
    clinic = text("TENANTRY_TEMPLATE_DIR", str(REPOSITORY / "tenant_template"))
    found = {DEFAULT_TEMPLATE: Path(clinic)}
    raw = text("TENANTRY_TEMPLATES", "")
    for part in filter(None, (part.strip() for part in raw.split(","))):
        name, equals, directory = part.partition("=")
        if not (equals and directory and re.fullmatch(_TEMPLATE_NAME, name)):
            raise SettingsError(f"TENANTRY_TEMPLATES: {part!r} is not name=directory")
        found[name] = Path(directory)
    return found
