"""The secrets of a composition, made once, and handed to each container as files of its own.

``own`` holds every secret once; each other directory holds what one kind of container reads, so
that a container is given its own directory and no other.
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

OWN = "own"
_PRIVATE, _OF_ONE_CONTAINER = 0o600, 0o444
_NAMES = (
    *("catalog-admin", "pg-a", "pg-b", "catalog", "redis"),
    *("store-access", "store-secret", "console"),
)

Secrets = Mapping[str, str]
Text = Callable[[Secrets], str]


def _plain(name: str) -> Text:
    return lambda known: known[name] + "\n"


def _store_keys(known: Secrets) -> str:
    pair = {"access_key": known["store-access"], "secret_key": known["store-secret"]}
    return json.dumps(pair) + "\n"


def _store_pair(known: Secrets) -> str:
    # rclone reads a list of comma-separated fields, so the pair needs its quotes.
    return f'"{known["store-access"]},{known["store-secret"]}"\n'


def _redis_configuration(known: Secrets) -> str:
    return f"requirepass {known['redis']}\n"


# Read by processes of Tenantry, which have one account everywhere.
OURS: Mapping[str, Mapping[str, Text]] = {
    "application": {
        "catalog.password": _plain("catalog"),
        "redis.password": _plain("redis"),
        "store.json": _store_keys,
    },
    "agent": {"catalog.password": _plain("catalog"), "console.password": _plain("console")},
}
# Read by programs of others, each by an account that its image chose: the volume is the boundary.
THEIRS: Mapping[str, Mapping[str, Text]] = {
    "catalog": {"admin.password": _plain("catalog-admin")},
    "pg-a": {"admin.password": _plain("pg-a")},
    "pg-b": {"admin.password": _plain("pg-b")},
    "redis": {"valkey.conf": _redis_configuration},
    "store": {"auth-key": _store_pair},
}
DIRECTORIES = (OWN, *OURS, *THEIRS)


def make_secrets(root: Path, owner: tuple[int, int]) -> list[Path]:
    """Make what is missing below ``root``; the files that were written.

    A secret that is there stays. ``owner`` is the account of Tenantry's processes; only root can
    give files away, so anybody else has to be that account.

    Raises:
        OSError: a file cannot be written or given away.
    """
    known = {name: _known(root / OWN / name, owner) for name in _NAMES}
    written = []
    for places, mode in ((OURS, _PRIVATE), (THEIRS, _OF_ONE_CONTAINER)):
        for directory, files in places.items():
            for name, text in files.items():
                path = root / directory / name
                if _write(path, text(known), mode, owner if mode == _PRIVATE else None):
                    written.append(path)
    return written


def _known(path: Path, owner: tuple[int, int]) -> str:
    if not path.exists():
        _write(path, secrets.token_hex(20) + "\n", _PRIVATE, owner)
    return path.read_text().strip()


def _write(path: Path, text: str, mode: int, owner: tuple[int, int] | None) -> bool:
    """Replace the file in one rename, unless it is as it should be."""
    if path.exists() and path.read_text() == text:
        return False
    # A directory that only one container sees need not be closed; that of the owner is.
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if owner is not None:
        os.chown(path.parent, *owner)
        path.parent.chmod(0o700)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return True
