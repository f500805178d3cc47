"""Templates as directories: which there are, what their files hash to, where they lead."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from control_plane.adapters.alembic_environment import line_of_revisions, open_environment
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.errors import Invalid, SchemaMismatch

_SOURCES = frozenset({".py", ".sql", ".ini", ".toml"})
# What a template's directory may hold beside what shapes the schema; and what is hidden.
_ASIDE = frozenset({"client", "queries", "__pycache__"})
_FINGERPRINT_CHARS = 16
_FRESH_SECONDS = 0.5

Signature = tuple[tuple[str, int, int], ...]


class Template(msgspec.Struct, frozen=True):
    """One class of tenants as its directory is now.

    ``fingerprint``: 16 hex digits of the content; ``revision``: the Alembic head.
    """

    name: str
    directory: Path
    fingerprint: str
    revision: str


def content_fingerprint(directory: Path, name: str = DEFAULT_TEMPLATE) -> str:
    """16 hex digits that change when a file that shapes the schema changes (names and bytes).

    Two classes ``name`` with equal files differ; the default class is the files alone.
    """
    digest = hashlib.sha256()
    if name != DEFAULT_TEMPLATE:
        _add(digest, name.encode())
    for path in _sources(directory):
        _add(digest, path.relative_to(directory).as_posix().encode())
        _add(digest, path.read_bytes())
    return digest.hexdigest()[:_FINGERPRINT_CHARS]


def head_revision(directory: Path) -> str:
    """The revision a fresh database of this template has.

    Raises:
        SchemaMismatch: there is not exactly one head, or a revision cannot be read.
    """
    with open_environment(directory) as environment:
        return line_of_revisions(environment)[-1].revision


class Templates:
    """The classes of tenants, read again when a file of theirs changes."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self._directories = dict(directories)
        self._known: dict[str, tuple[float, Signature | None, Template | str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._directories)

    def current(self, name: str) -> Template:
        """The template ``name`` as it is on disk, at most half a second ago.

        Raises:
            Invalid: there is no such class; the message lists those there are.
            SchemaMismatch: the directory is not, or not yet, a template; the message names the
                file.
        """
        if name not in self._directories:
            known = ", ".join(sorted(self._directories))
            message = f"there is no template {name!r}; the known ones are {known}"
            raise Invalid(message, [{"field": "template", "message": message}])
        now = time.monotonic()
        looked, signature, found = self._known.get(name, (-_FRESH_SECONDS, None, ""))
        if now - looked >= _FRESH_SECONDS:
            if (present := _signature(self._directories[name])) != signature:
                found = _read(name, self._directories[name])
            self._known[name] = (now, present, found)
        if isinstance(found, str):
            raise SchemaMismatch(found)
        return found

    def fresh(self, name: str) -> Template:
        """The template ``name`` as it is on disk now, whatever its files' times and sizes say.

        Raises:
            Invalid, SchemaMismatch: see ``current``.
        """
        self._known.pop(name, None)
        return self.current(name)


def _read(name: str, directory: Path) -> Template | str:
    """The template, or why it is none."""
    try:
        fingerprint = content_fingerprint(directory, name)
        return Template(name, directory, fingerprint, head_revision(directory))
    except SchemaMismatch as error:
        return error.message
    except OSError as error:
        return f"template {name}: {error.filename} cannot be read: {error.strerror}"


def _signature(directory: Path) -> Signature:
    found = []
    for path in _sources(directory):
        with suppress(FileNotFoundError):
            facts = path.stat()
            found.append((str(path), facts.st_mtime_ns, facts.st_size))
    return tuple(found)


def _sources(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*"), key=lambda p: p.relative_to(directory).as_posix()):
        if path.suffix in _SOURCES and _counts(path.relative_to(directory)) and path.is_file():
            yield path


def _counts(path: Path) -> bool:
    return not any(part in _ASIDE or part.startswith(".") for part in path.parts)


def _add(digest: "hashlib._Hash", part: bytes) -> None:
    digest.update(len(part).to_bytes(8))
    digest.update(part)
