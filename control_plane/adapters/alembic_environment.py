"""An Alembic environment that somebody else wrote, opened so that it leaves no trace in us.

Alembic and the environment share globals with this process: one is open at a time.
"""

import io
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy.exc import DBAPIError

from control_plane.domain import names
from control_plane.domain.errors import SchemaMismatch, TenantryError

# What a role-aware environment finds in ``config.attributes["roles"]`` while a template is made.
PLACEHOLDER_ROLES = {
    "owner": names.TEMPLATE_OWNER,
    "app": names.TEMPLATE_APP,
    "auditor": names.TEMPLATE_AUDITOR,
    "reader": names.TEMPLATE_READER,
}
CONFIG_FILE = "alembic.ini"

_globals = threading.Lock()
_SEPARATORS = re.compile(r"[,\s:;]+")


class Environment(msgspec.Struct, frozen=True):
    """An open environment: its settings, its revisions, and whether it knows our roles."""

    directory: Path
    config: Config
    scripts: ScriptDirectory
    role_aware: bool


@contextmanager
def open_environment(directory: Path) -> Iterator[Environment]:
    """The environment in ``directory``; others wait until the block ends.

    ``sys.path`` and modules of the directory are forgotten afterwards, and no bytecode is written
    beside the revisions: the directory may change at any time.

    Raises:
        SchemaMismatch: there is none, or its code fails; the message names the file. Errors of
            our own and those of a database pass unchanged.
    """
    with _globals, _no_trace(directory), _explained(directory):
        config = _config(directory)
        scripts = ScriptDirectory.from_config(config)
        aware = config.file_config.get("tenantry", "roles", fallback="") == "aware"
        yield Environment(directory, config, scripts, aware)


def line_of_revisions(environment: Environment) -> list[Script]:
    """Every revision, oldest first.

    Raises:
        SchemaMismatch: there is none, or they are not one line.
    """
    heads = environment.scripts.get_heads()
    if len(heads) != 1:
        found = f"{len(heads)} head revisions ({', '.join(sorted(heads))})" if heads else "none"
        raise SchemaMismatch(
            f"template {environment.directory.name}: exactly one head revision is wanted, found "
            f"{found}; set down_revision so that each revision follows another"
        )
    line = list(environment.scripts.walk_revisions())
    for script in line:
        if not isinstance(script.down_revision, str | None) or script.dependencies:
            raise SchemaMismatch(
                f"template {environment.directory.name}: revision {script.revision} joins "
                "branches; give it one down_revision and no depends_on"
            )
    return line[::-1]


def _config(directory: Path) -> Config:
    file = directory / CONFIG_FILE
    if not file.is_file():
        raise SchemaMismatch(
            f"template {directory.name}: no {CONFIG_FILE} in {directory}; name a directory that "
            "alembic init made"
        )
    # Offline, Alembic prints the SQL; what is wanted of it is captured elsewhere.
    config = Config(str(file), output_buffer=io.StringIO())
    location = config.get_main_option("script_location") or ""
    # As when alembic is called in the directory. A colon names a package.
    if location and ":" not in location:
        config.set_main_option("script_location", str(directory / location).replace("%", "%%"))
    paths = _SEPARATORS.split(config.get_main_option("prepend_sys_path") or "")
    sys.path[:0] = [str((directory / path).resolve()) for path in paths if path]
    config.set_main_option("prepend_sys_path", "")
    # An env.py as alembic init writes it would let the file configure the logging of our process.
    config.config_file_name = None
    return config


@contextmanager
def _no_trace(directory: Path) -> Iterator[None]:
    paths, bytecode, modules = list(sys.path), sys.dont_write_bytecode, set(sys.modules)
    sys.dont_write_bytecode = True
    try:
        with warnings.catch_warnings():
            # Two files with one revision, or a file that names a revision that is not there.
            warnings.filterwarnings("error", message="Revision ", category=UserWarning)
            yield
    finally:
        sys.path[:] = paths
        sys.dont_write_bytecode = bytecode
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(directory.resolve()):
                del sys.modules[name]


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except (TenantryError, psycopg.Error, DBAPIError):
        raise
    except (Exception, SystemExit) as error:
        text = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {text[0] if text else 'no message'}"
        place = _place(error, directory)
        raise SchemaMismatch(f"template {directory.name}: {place}{reason}") from error


def _place(error: BaseException, directory: Path) -> str:
    """The last line of the directory's own code that the error came through."""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    for root in (directory, directory.resolve()):
        for file, line in reversed(places):
            if Path(file).is_relative_to(root):
                return f"{Path(file).relative_to(root)} line {line}: "
    return ""
