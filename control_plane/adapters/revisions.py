"""Revisions as plain SQL: compiled once by Alembic's offline mode, bound to each tenant's roles."""

import re
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import postgast
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.exc import CompileError, NoInspectionAvailable
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.elements import TextClause

from control_plane.adapters.alembic_environment import (
    PLACEHOLDER_ROLES,
    Environment,
    line_of_revisions,
    open_environment,
)
from control_plane.domain.errors import Invalid, SchemaMismatch
from control_plane.domain.names import RoleSet

AWARE_SEARCH_PATH = "pg_catalog"
PLAIN_SEARCH_PATH = "public"

_PLACEHOLDER = re.compile(rf"\b({'|'.join(PLACEHOLDER_ROLES.values())})\b")
_ROLE_OF = {placeholder: role for role, placeholder in PLACEHOLDER_ROLES.items()}
_VERSION_TABLE = "alembic_version"
_SHOWN = 30
_URL = "postgresql+psycopg://"


class Segment(msgspec.Struct, frozen=True):
    """Statements, without their semicolons, that run in one transaction, or each on its own."""

    statements: tuple[str, ...]
    transactional: bool


class Revision(msgspec.Struct, frozen=True):
    """One revision with placeholder roles in its SQL; the last statement records it.

    ``privileged``: it runs as the connecting administrator. ``runs_python``: it cannot be known
    without a connection; ``segments`` is empty and Alembic has to run it. ``overrides``: rules of
    the lint and why they do not apply. ``search_path``: what unqualified names mean in it.
    """

    id: str
    down: str | None
    title: str
    privileged: bool
    runs_python: bool
    segments: tuple[Segment, ...]
    overrides: dict[str, str]
    search_path: str = AWARE_SEARCH_PATH

    @property
    def transactional(self) -> bool:
        """Whether all of it can run in transactions."""
        return all(segment.transactional for segment in self.segments)


def compile_path(directory: Path, target: str | None = None) -> tuple[Revision, ...]:
    """The revisions from an empty database to ``target`` (``None``: the head), oldest first.

    Nothing connects to a database.

    Raises:
        Invalid: there is no revision ``target``.
        SchemaMismatch: the revisions are not one line, or their code fails; the message says how.
    """
    with open_environment(directory) as environment:
        line = line_of_revisions(environment)
        ids = [script.revision for script in line]
        if target is not None and target not in ids:
            known = ", ".join(ids[-_SHOWN:])
            raise Invalid(f"template {directory.name} has no revision {target!r}; it has {known}")
        return _compile(environment, line[: ids.index(target) + 1] if target else line)


def bind_roles(sql: str, roles: RoleSet) -> str:
    """``sql`` with each placeholder role replaced by the tenant's."""
    if "cp_template_" not in sql:
        return sql
    return _PLACEHOLDER.sub(lambda found: str(getattr(roles, _ROLE_OF[found[0]])), sql)


def readable_sql(revision: Revision) -> list[str]:
    """The statements of a revision as people read them: its roles are owner, app and so on."""
    return [
        _PLACEHOLDER.sub(lambda found: _ROLE_OF[found[0]], sql)
        for part in revision.segments
        for sql in part.statements
    ]


def _compile(environment: Environment, line: list[Script]) -> tuple[Revision, ...]:
    compiled: list[Revision] = []

    def steps(_heads: object, context: MigrationContext) -> Iterator[MigrationStep]:
        _require_version_table(environment, context)
        capture = _Capture(context)
        for script in line:
            step = MigrationStep.upgrade_from_script(environment.scripts.revision_map, script)
            step.migration_fn = capture.watched(step.migration_fn)
            capture.begin()
            yield step
            compiled.append(_revision(environment, script, capture))

    config = environment.config
    config.attributes["roles"] = dict(PLACEHOLDER_ROLES)
    config.set_main_option("sqlalchemy.url", _URL)
    target = line[-1].revision
    with EnvironmentContext(
        config, environment.scripts, fn=steps, as_sql=True, destination_rev=target
    ):
        environment.scripts.run_env()
    if len(compiled) != len(line):
        raise SchemaMismatch(
            f"template {environment.directory.name}: env.py runs no migrations when "
            "context.is_offline_mode(); let it, as the one that alembic init writes"
        )
    return tuple(compiled)


def _require_version_table(environment: Environment, context: MigrationContext) -> None:
    schema = context.version_table_schema or "public"
    if (schema, context.version_table) != ("public", _VERSION_TABLE):
        raise SchemaMismatch(
            f"template {environment.directory.name}: the version table must be "
            f"public.{_VERSION_TABLE}, not {schema}.{context.version_table}; leave version_table "
            "and version_table_schema out of context.configure() in env.py"
        )


def _revision(environment: Environment, script: Script, capture: "_Capture") -> Revision:
    module, name = script.module, f"template {environment.directory.name}: {script.revision}"
    privileged = getattr(module, "privileged", False)
    overrides = getattr(module, "lint_overrides", {})
    if not isinstance(privileged, bool):
        raise SchemaMismatch(f"{name}: privileged is {privileged!r}; write True or False")
    try:
        overrides = msgspec.convert(overrides, dict[str, str])
        segments = capture.segments(split=not capture.connection.needed)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(f'{name}: lint_overrides is not {{"rule": "reason"}}') from error
    except postgast.PgQueryError as error:
        raise SchemaMismatch(f"{name}: Postgres would not read it: {error}") from error
    down = script.down_revision
    return Revision(
        id=script.revision,
        down=down if isinstance(down, str) else None,
        title=(script.doc or "").strip().partition("\n")[0],
        privileged=privileged,
        runs_python=capture.connection.needed,
        segments=segments,
        overrides=overrides,
        search_path=AWARE_SEARCH_PATH if environment.role_aware else PLAIN_SEARCH_PATH,
    )


class _NeedsConnection(Exception):
    """The revision asks the database something, or sends values that no SQL text can hold."""


class _Offline(MockConnection):
    """What ``op.get_bind()`` is: it takes statements and notices that one wants an answer."""

    needed = False

    def execute(self, obj: Any, parameters: Any = None, execution_options: Any = None) -> Any:  # noqa: ANN401, ARG002 - as the base
        if parameters:
            self.refuse()
        self._execute_impl(obj)
        return _Unread(self)

    def in_transaction(self) -> bool:
        """Alembic asks before a block that leaves the transaction."""
        return False

    def refuse(self) -> NoReturn:
        self.needed = True
        raise _NeedsConnection("this needs a connection")

    def __getattr__(self, name: str) -> NoReturn:
        if not name.startswith("__"):
            self.needed = True
        raise AttributeError(name)


class _Unread:
    """The result of a statement that was only written down: whoever looks at it is refused."""

    def __init__(self, connection: _Offline) -> None:
        self._refuse = connection.refuse

    def __getattr__(self, _name: str) -> NoReturn:
        self._refuse()

    def __bool__(self) -> bool:  # noqa: PLE0304 - it never returns
        self._refuse()

    def __iter__(self) -> Iterator[Any]:
        self._refuse()


class _Capture:
    """Takes the place of Alembic's printer, which would replace every tab by spaces."""

    def __init__(self, context: MigrationContext) -> None:
        # Text with ":name" and "%" as written, and backslashes as standard_conforming_strings
        # has them; without a server to ask, the dialect would double both.
        dialect: Any = make_url(_URL).get_dialect()
        self._dialect = dialect(paramstyle="named")
        self._dialect._backslash_escapes = False  # noqa: SLF001 - else only a connection sets it
        self._parts: list[tuple[bool, list[Any]]] = []
        self.connection = _Offline(self._dialect, self._write)
        impl: Any = context.impl
        impl.dialect = context.dialect = self._dialect
        impl.connection = context.connection = self.connection  # type: ignore[assignment]
        impl.transactional_ddl = True
        impl._exec = self._write  # noqa: SLF001 - everything Alembic emits goes through it
        impl.static_output = self._border

    def begin(self) -> None:
        """Another revision."""
        self._parts = [(True, [])]
        self.connection.needed = False

    def watched(self, upgrade: Callable[..., None]) -> Callable[..., None]:
        """``upgrade``, which may end early when it needs a connection."""

        @wraps(upgrade)
        def run(**arguments: Any) -> None:  # noqa: ANN401 - what env.py passes to run_migrations
            try:
                upgrade(**arguments)
            except NoInspectionAvailable:
                self.connection.needed = True
            except Exception:
                if not self.connection.needed:
                    raise

        return run

    def segments(self, *, split: bool) -> tuple[Segment, ...]:
        """What was written since ``begin``; nothing if it is not to be ``split``."""
        if not split:
            return ()
        parts = ((kept, tuple(_statements(found))) for kept, found in self._parts)
        return tuple(Segment(statements, kept) for kept, statements in parts if statements)

    def _border(self, line: str) -> None:
        if line in {"BEGIN;", "COMMIT;"}:
            self._parts.append((line == "BEGIN;", []))

    def _write(
        self,
        construct: Any,  # noqa: ANN401 - text, or anything that SQLAlchemy compiles
        _execution_options: object = None,
        multiparams: object = None,
        params: object = None,
    ) -> None:
        if multiparams or params:
            self.connection.refuse()
        construct = text(construct) if isinstance(construct, str) else construct
        literal = {} if isinstance(construct, ExecutableDDLElement) else {"literal_binds": True}
        try:
            sql = str(construct.compile(dialect=self._dialect, compile_kwargs=literal)).strip()
        except CompileError:
            self.connection.refuse()
        self._parts[-1][1].append((sql, isinstance(construct, TextClause)))


def _statements(found: list[tuple[str, bool]]) -> Iterator[str]:
    for sql, written_by_hand in found:
        if written_by_hand:
            yield from filter(None, map(_without_comment_at_the_end, postgast.split(sql)))
        else:
            yield sql


def _without_comment_at_the_end(statement: str) -> str:
    """A line comment would swallow the semicolon that comes after it."""
    statement = statement.strip()
    if "--" not in statement.rpartition("\n")[2]:
        return statement
    encoded = statement.encode()
    ends = [t.end for t in postgast.scan(statement).tokens if "COMMENT" not in _kind(t)]
    return encoded[: max(ends, default=0)].decode()


def _kind(token: Any) -> str:  # noqa: ANN401 - a protobuf message
    return str(postgast.pg_query_pb2.Token.Name(token.token))
