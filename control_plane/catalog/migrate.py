"""Brings the catalog's schema to the newest revision; safe to run from many places at once."""

import sys
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from control_plane.catalog.primary import LOOK, hosts_of
from control_plane.config import Settings, SettingsError

_ADVISORY_LOCK = 0x7E4A_4717
_SCRIPTS = Path(__file__).parent / "migrations"
_CONNECT_TIMEOUT_SECONDS = 10

_Connection = psycopg.Connection[tuple[Any, ...]]


def _alembic(connection: sqlalchemy.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


@cache
def head() -> str:
    """The newest revision that this code knows."""
    revision = ScriptDirectory.from_config(_alembic()).get_current_head()
    if revision is None:
        raise RuntimeError(f"no migration under {_SCRIPTS}")
    return revision


@cache
def revisions() -> frozenset[str]:
    """Every revision that this code knows."""
    scripts = ScriptDirectory.from_config(_alembic())
    return frozenset(script.revision for script in scripts.walk_revisions())


def migrate(settings: Settings) -> None:
    """Upgrade to head under a lock, so that two processes never migrate at once.

    A catalog of a later release stays as it is: whoever starts here may work on it, or waits.

    Raises:
        sqlalchemy.exc.OperationalError: no server of the catalog that takes writes answers.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: _connect(settings), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as lock, engine.connect() as connection:
        lock.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
        reached = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        if reached is not None and reached not in revisions():
            sys.stderr.write(f"catalog migration: {reached} is of a later release; nothing to do\n")
            return
        command.upgrade(_alembic(connection), "head")


def _connect(settings: Settings) -> _Connection:
    """To the server of the DSN that takes writes on the highest timeline, as ``Primary`` does.

    Raises:
        psycopg.OperationalError: none of them does.
    """
    found: list[tuple[int, _Connection]] = []
    problem = psycopg.OperationalError("every server of the catalog is a standby")
    for host, port in hosts_of(settings.catalog_dsn):
        try:
            connection = _reach(settings, host, port)
        except psycopg.OperationalError as error:
            problem = error
            continue
        row = connection.execute(LOOK).fetchone()
        connection.rollback()
        if row is None or row[1]:
            connection.close()
        else:
            found.append((int(row[2]), connection))
    if not found:
        raise problem
    found.sort(key=itemgetter(0))
    *old, (_, best) = found
    for _, connection in old:
        connection.close()
    return best


def _reach(settings: Settings, host: str, port: int) -> _Connection:
    secret = settings.catalog_password
    return psycopg.connect(
        settings.catalog_dsn,
        host=host,
        port=port,
        password=secret.reveal() if secret else None,
        target_session_attrs="any",
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
    )


def main() -> int:
    """Entry point of ``python -m control_plane.catalog.migrate``."""
    try:
        migrate(Settings.from_environment())
    except (SettingsError, sqlalchemy.exc.OperationalError) as error:
        sys.stderr.write(f"catalog migration: {str(error).splitlines()[0]}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
