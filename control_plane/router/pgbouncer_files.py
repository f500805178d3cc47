"""The files of one PgBouncer process: replaced whole, mode 0600, owned as their directory is."""

import os
from collections.abc import Mapping
from pathlib import Path

from control_plane.domain.errors import PoolerUnavailable

_MODE = 0o600


class PoolerFiles:
    """Reads and writes the files of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str) -> str | None:
        """The text of a file, or ``None`` when there is none that can be read.

        A link is none of ours: the directory's owner may have less rights than this process.
        """
        try:
            descriptor = os.open(self.directory / name, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor) as file:
                return file.read()
        except (OSError, UnicodeDecodeError):
            return None

    def write(self, name: str, text: str) -> bool:
        """Replace a file in one rename; whether anything changed.

        Raises:
            PoolerUnavailable: the file cannot be written.
        """
        try:
            if self.read(name) == text:
                return False
            self._replace(self.directory / name, text)
        except OSError as error:
            raise PoolerUnavailable(
                f"cannot write {self.directory / name}: {error.strerror}"
            ) from error
        return True

    def write_all(self, texts: Mapping[str, str]) -> list[str]:
        """Write every file that differs; the names of those that did.

        Raises:
            PoolerUnavailable: a file cannot be written.
        """
        return [name for name, text in texts.items() if self.write(name, text)]

    def differing(self, texts: Mapping[str, str]) -> list[str]:
        """Names of the files that do not hold these texts."""
        return [name for name, text in texts.items() if self.read(name) != text]

    def _replace(self, path: Path, text: str) -> None:
        owner = self.directory.stat()
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(draft, flags, _MODE)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, _MODE)
                if os.geteuid() == 0:
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                _date_after(descriptor, path)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _date_after(descriptor: int, before: Path) -> None:
    """Give the new file a date at least one second after the old one's.

    PgBouncer reads ``auth_file`` again only if its inode, size, owner, mode or date in whole
    seconds differ from those of last time (src/loader.c, auth_loaded), and both inode and size
    may come back when a verifier is replaced.
    """
    try:
        old = int(before.stat().st_mtime)
    except FileNotFoundError:
        return
    new = os.fstat(descriptor)
    if int(new.st_mtime) <= old:
        os.utime(descriptor, (old + 1, old + 1))
