"""Where the API answers and with which key we ask it."""

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from control_plane.cli.problems import Exit, problem, unreachable, usage
from control_plane.config import ClientSettings, Secret

_HOW = "set TENANTRY_URL and TENANTRY_TOKEN, or start the local stack with: ./dev up"


@dataclass(frozen=True)
class Endpoint:
    """The API's base URL without a trailing slash, and the key to show it."""

    url: str
    token: Secret

    @property
    def secure(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    @property
    def loopback(self) -> bool:
        return is_loopback(self.url)


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_endpoint(settings: ClientSettings) -> Endpoint:
    """The API named by the environment, else the one of the local stack.

    The key of the local stack is never sent to another address than its own.

    Raises:
        Problem: nothing names an API, the URL cannot be used, or there is no key for it.
    """
    stack = _read_stack(settings.home)
    url = settings.url or str(stack.get("api_url") or "")
    if not url:
        raise unreachable(f"no API to talk to: {_HOW}")
    if not _usable_url(url):
        raise usage(f"TENANTRY_URL={url!r} is not a URL such as https://tenantry.example.org")
    url = url.rstrip("/")
    return Endpoint(url, _token(settings, stack, url))


def _usable_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _token(settings: ClientSettings, stack: dict[str, Any], url: str) -> Secret:
    if settings.token is not None:
        return _usable(settings.token, "TENANTRY_TOKEN")
    own = str(stack.get("api_url") or "").rstrip("/") == url
    if not own or "token_file" not in stack:
        raise problem(Exit.DENIED, "no_key", f"no key for {url}: set TENANTRY_TOKEN")
    path = Path(stack["token_file"])
    try:
        return _usable(Secret(path.read_text().strip()), str(path))
    except OSError as error:
        raise problem(
            Exit.DENIED, "no_key", f"cannot read the key in {path}: {error.strerror}"
        ) from error


def _usable(token: Secret, source: str) -> Secret:
    text = token.reveal()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise problem(Exit.DENIED, "no_key", f"{source} does not hold an API key")
    return token


def _read_stack(home: Path) -> dict[str, Any]:
    path = home / "stack.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
