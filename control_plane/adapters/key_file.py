"""The file with the root keys: read safely, replaced as a whole, kept apart from what it opens.

One key for each epoch. The active epoch seals; retained ones only open what was sealed before.
"""

import base64
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from control_plane.adapters import clock
from control_plane.domain.errors import KeyUnavailable

KEY_BYTES = 32
_DATABASE_MARKER = "PG_VERSION"

EpochState = Literal["active", "retained"]


class Epoch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One root key in base64; when it was made, put into escrow, and rebuilt from there."""

    key: str
    created: str
    state: EpochState
    escrowed: str | None = None
    drilled: str | None = None

    def __repr__(self) -> str:
        return f"Epoch({self.state}, created {self.created})"


class KeyFile(msgspec.Struct, frozen=True):
    """The content of the file; epochs by their number."""

    epochs: dict[str, Epoch]

    @property
    def active(self) -> int:
        """The number of the epoch that seals.

        Raises:
            ValueError: there is not exactly one.
        """
        found = [int(n) for n, epoch in self.epochs.items() if epoch.state == "active"]
        if len(found) != 1:
            raise ValueError(f"{len(found)} epochs are active instead of one")
        return found[0]

    def keys(self) -> dict[int, bytes]:
        """Every key by its epoch.

        Raises:
            ValueError: a key is no key, or an epoch no number.
        """
        found = {int(n): base64.b64decode(epoch.key) for n, epoch in self.epochs.items()}
        if any(number < 1 or len(key) != KEY_BYTES for number, key in found.items()):
            raise ValueError("a key has another length, or an epoch is no number")
        return found

    def with_new_epoch(self) -> "KeyFile":
        """A fresh key seals from now on; all others are kept for opening."""
        kept = {
            number: msgspec.structs.replace(epoch, state="retained")
            for number, epoch in self.epochs.items()
        }
        number = max(map(int, kept), default=0) + 1
        return KeyFile({**kept, str(number): _epoch(AESGCM.generate_key(bit_length=256))})

    def without(self, number: int) -> "KeyFile":
        """The key of this epoch is gone."""
        return KeyFile({n: epoch for n, epoch in self.epochs.items() if int(n) != number})

    def noting(self, numbers: Iterable[int], what: Literal["escrowed", "drilled"]) -> "KeyFile":
        """This happened to these epochs just now."""
        now, told = clock.now().isoformat(), {str(number) for number in numbers}
        return KeyFile(
            {
                n: msgspec.structs.replace(epoch, **{what: now}) if n in told else epoch
                for n, epoch in self.epochs.items()
            }
        )


def new() -> KeyFile:
    """A first epoch."""
    return KeyFile({}).with_new_epoch()


def rebuilt(keys: Mapping[int, bytes]) -> KeyFile:
    """The file that these keys were in; the newest epoch is the active one."""
    newest = max(keys)
    return KeyFile(
        {str(n): _epoch(key, "active" if n == newest else "retained") for n, key in keys.items()}
    )


def read(path: Path) -> KeyFile:
    """The file, proven to be usable.

    Raises:
        KeyUnavailable: it is missing, malformed, a symbolic link, or others may read it.
    """
    _refuse_unsafe(path)
    try:
        content = msgspec.json.decode(path.read_bytes(), type=KeyFile)
        _ = content.active, content.keys()
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise KeyUnavailable(f"the key file {path} cannot be read: {error}") from error
    return content


def create(path: Path, content: KeyFile, *, apart_from: Iterable[Path] = ()) -> None:
    """Write a new file; an existing one is never touched.

    Raises:
        KeyUnavailable: something is there already, it cannot be written, or it would lie inside
            the data of a Postgres server or in one of the directories it must be apart from.
    """
    refuse_place(path, apart_from)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, content)
    except OSError as error:
        raise KeyUnavailable(f"cannot create the key file {path}: {error.strerror}") from error


def change(path: Path, edit: Callable[[KeyFile], KeyFile]) -> KeyFile:
    """Put an edited file in the place of the present one, at once and as a whole.

    Of two changes at the same time the second sees the first.

    Raises:
        KeyUnavailable: the file cannot be used or written.
    """
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeyUnavailable(f"the key file {path} is not there: {error.strerror}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        edited = edit(read(path))
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        _write_new(fresh, edited, like=path)
        fresh.rename(path)
        os.fsync(directory)
    except OSError as error:
        raise KeyUnavailable(f"cannot change the key file {path}: {error.strerror}") from error
    finally:
        os.close(directory)
    return edited


def refuse_place(path: Path, apart_from: Iterable[Path]) -> None:
    """Whoever copies a database or a store of backups must not get the keys along with it.

    Raises:
        KeyUnavailable: this place would give them away.
    """
    folder = path.parent.resolve()
    for place in (folder, *folder.parents):
        if (place / _DATABASE_MARKER).exists():
            raise KeyUnavailable(f"{path} lies in the data of a Postgres server; keep it elsewhere")
    for other in apart_from:
        if folder.is_relative_to(other.resolve()):
            raise KeyUnavailable(f"{path} lies in {other}, which it protects; keep it elsewhere")


def _epoch(key: bytes, state: EpochState = "active") -> Epoch:
    return Epoch(base64.b64encode(key).decode(), clock.now().isoformat(), state)


def _write_new(path: Path, content: KeyFile, *, like: Path | None = None) -> None:
    """Write and flush; the owner stays who it was, although an administrator may write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if like is not None:
            owner = like.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(msgspec.json.encode(content))
        file.flush()
        os.fsync(file.fileno())


def _refuse_unsafe(path: Path) -> None:
    try:
        facts = path.lstat()
    except OSError as error:
        raise KeyUnavailable(
            f"the key file {path} is not there; make one with: tenantry admin keys init"
        ) from error
    if stat.S_ISLNK(facts.st_mode):
        raise KeyUnavailable(f"the key file {path} is a symbolic link; name the file itself")
    if facts.st_mode & 0o077:
        raise KeyUnavailable(f"others may read the key file {path}; run: chmod 600 {path}")
