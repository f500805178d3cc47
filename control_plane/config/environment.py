"""Single values of the environment: the only place that reads it. Secrets come from files."""

import ipaddress
import os
from pathlib import Path


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


def paths(name: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in os.environ.get(name, "").split(":") if part)


def optional_text(name: str) -> str | None:
    return os.environ.get(name) or None


def text(name: str, default: str) -> str:
    return os.environ.get(name) or default


def required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SettingsError(f"{name} is not set; docs/configuration.md lists every setting")
    return value


def number(name: str, default: float) -> float:
    raw = os.environ.get(name)
    if not raw:
        return default
    try:
        return float(raw)
    except ValueError as error:
        raise SettingsError(f"{name}={raw!r} is not a number") from error


def optional_path(name: str) -> Path | None:
    raw = os.environ.get(name)
    return Path(raw) if raw else None


def secret(name: str) -> Secret | None:
    path = optional_path(name)
    if path is None:
        return None
    try:
        return Secret(path.read_text().strip())
    except OSError as error:
        raise SettingsError(f"{name}: cannot read {path}: {error.strerror}") from error


def plain_secret(name: str) -> Secret | None:
    value = os.environ.get(name)
    return Secret(value) if value else None


def networks(name: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    raw = os.environ.get(name, "")
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in raw.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(f"{name}={raw!r}: {error}; use CIDRs such as 10.0.0.0/8") from error
