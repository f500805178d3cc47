"""The folders of a store of files: private, made when needed, removed when empty."""

import datetime as dt
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from control_plane.adapters.object_stores.store import PendingUpload, StoredObject
from control_plane.domain.errors import StoreRefused, StoreUnavailable

PENDING = ".pending"
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn an error of the operating system into ours; ``what`` was being done begins it."""
    try:
        yield
    except OSError as error:
        kind = StoreUnavailable if error.errno in _PASSING else StoreRefused
        raise kind(f"{what}: {error.strerror}") from error


def stored(key: str, place: Path) -> StoredObject | None:
    """The object in this file, if there is one."""
    try:
        facts = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    return StoredObject(key, facts.st_size, _time(facts.st_mtime))


def pending_upload(folder: Path) -> PendingUpload | None:
    """The upload that is written in this folder; None if it has ended meanwhile."""
    for key in keys_below(folder):
        with suppress(FileNotFoundError):
            return PendingUpload(key, folder.name, _time(folder.stat().st_mtime))
    return None


def keys_below(start: Path) -> Iterator[str]:
    """Every file below ``start``, as a key relative to it; nothing hidden, no link is followed."""
    for folder, names, files in os.walk(start):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield str((Path(folder) / name).relative_to(start))


def folders_in(place: Path) -> list[Path]:
    """The folders in ``place``; none if it is not there."""
    try:
        return sorted(path for path in place.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def make_folders(folder: Path, root: Path) -> None:
    """Make every missing folder from ``root`` down to ``folder``, so that it outlives a crash."""
    made = root
    for name in folder.relative_to(root).parts:
        parent, made = made, made / name
        with suppress(FileExistsError):
            made.mkdir(mode=0o700)
            sync_folder(parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in this folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_empty(folder: Path, root: Path) -> None:
    """Remove this folder and those above it, below ``root``, as far as they are empty."""
    with suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def forget(folder: Path) -> None:
    """Remove what was written of an upload."""
    shutil.rmtree(folder, ignore_errors=True)


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
