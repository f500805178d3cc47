"""What has to be there once before processes start, and once after: roles, keys, servers.

Every function may run again: what is there is left as it is.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from control_plane.config import Settings
from deploy import commands
from deploy.catalog_role import Administrator, make_catalog
from deploy.server_argument import ServerToEnrol

DEMO_SLUG, DEMO_NAME = "demo-clinic", "Demo Clinic"
ROLES = ("sales_ops", "operator", "security_admin", "auditor", "app")
_TOKEN = "admin.token"  # noqa: S105 the name of a file


class FirstStartError(Exception):
    """A part of the first start failed; the message is what ``tenantry`` said."""


def set_up(settings: Settings, administrator: Administrator) -> None:
    """Make the catalog's role and database, and the root key.

    Raises:
        FirstStartError: the root key cannot be made.
        psycopg.Error: the catalog's server does not answer, or refuses.
    """
    if settings.catalog_password is None:
        raise FirstStartError("TENANTRY_CATALOG_PASSWORD_FILE is not set; it names the password")
    asyncio.run(make_catalog(administrator, settings.catalog_password.reveal()))
    if not settings.keyring_file.exists():
        _tenantry("admin", "keys", "init")


def make_token(directory: Path) -> Path:
    """Make the first API key, mode 0600, in ``directory``, if it is not there.

    Raises:
        FirstStartError: the key cannot be made.
    """
    path = directory / _TOKEN
    if not path.exists():
        roles = [word for role in ROLES for word in ("--role", role)]
        made = _tenantry("admin", "create-key", "--name", "first", "--days", "90", *roles)
        draft = path.with_name(f".{_TOKEN}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(made)
        draft.replace(path)
    return path


def enrol(servers: list[ServerToEnrol], passwords: Path, user: str, *, demo: bool) -> list[str]:
    """Test the store, enrol the servers that are not, and provision the demo clinic if wanted.

    Returns what was done.

    Raises:
        FirstStartError: a command failed.
    """
    token = {"TENANTRY_TOKEN_FILE": str(make_token(passwords))}
    _tenantry("admin", "test-store", "--json")
    done = ["the store passed its test"]
    known = {one["name"] for one in json.loads(_tenantry("servers", "list", "--json", more=token))}
    for server in servers:
        if server.name not in known:
            _tenantry(
                *("servers", "add", server.name, "--host", server.host, "--user", user),
                *("--port", str(server.port), "--region", "local", "--wait"),
                more={**token, "TENANTRY_SERVER_PASSWORD_FILE": str(passwords / server.name)},
            )
            done.append(f"{server.name} enrolled")
    if demo and not _has_tenant(DEMO_SLUG, token):
        _tenantry("tenants", "create", DEMO_SLUG, "--name", DEMO_NAME, "--wait", more=token)
        done.append(f"{DEMO_SLUG} provisioned")
    return done


def _has_tenant(slug: str, token: Mapping[str, str]) -> bool:
    listed = json.loads(_tenantry("tenants", "list", "--json", more=token))
    return any(tenant["slug"] == slug for tenant in listed)


def _tenantry(*arguments: str, more: Mapping[str, str] | None = None) -> str:
    """Run the command line with the settings of this process, which name secrets by file."""
    ended = subprocess.run(
        commands.tenantry(*arguments),
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(more or {})},
    )
    if ended.returncode != 0:
        said = (ended.stderr.strip() or ended.stdout.strip()).replace("\n", "; ")
        raise FirstStartError(f"tenantry {' '.join(arguments[:2])}: {said}")
    return ended.stdout
