"""What the revisions read so far have made: enough of a schema to judge the next statement."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec
from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint.syntax import (
    Message,
    body_calls,
    dotted,
    inner,
    options,
    relation_name,
    words,
)
from control_plane.adapters.revision_lint.volatility import (
    STABLE,
    VOLATILE,
    VOLATILE_EXTENSIONS,
)


class Place(NamedTuple):
    """A statement of a revision."""

    revision: str
    number: int


class Type(msgspec.Struct, frozen=True):
    """A column's type: the last part of its name, its modifiers, and whether it is an array."""

    name: str
    modifiers: tuple[int, ...]
    array: bool


@dataclass(frozen=True)
class Check:
    """A CHECK: the columns it proves to be not null, and since when it holds for every row."""

    not_null: frozenset[str]
    valid: bool
    added_in: str


@dataclass
class Table:
    """A table that a revision made."""

    made_in: str
    partitioned: bool = False
    columns: dict[str, Type] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """An index, by what a foreign key needs of it."""

    table: str
    columns: tuple[str, ...]
    predicate_columns: frozenset[str] | None
    dropped: Place | None = None

    def serves(self, key: "ForeignKey") -> bool:
        """Whether it begins with the columns of ``key`` and has every row in which they are set."""
        begins = set(self.columns[: len(key.columns)]) == set(key.columns)
        whole = self.predicate_columns is not None and self.predicate_columns <= set(key.columns)
        return self.table == key.table and begins and whole


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key and the statement that made it."""

    table: str
    name: str
    columns: tuple[str, ...]
    place: Place


@dataclass(frozen=True)
class Function:
    """A function: how its answer varies, and whether it fixes its ``search_path``."""

    volatility: str
    search_path: bool
    unstable: frozenset[str]


class Schema:
    """Grows statement by statement; tables made by a revision of ``unapplied`` have no rows."""

    def __init__(self, unapplied: frozenset[str]) -> None:
        self._unapplied = unapplied
        self.tables: dict[str, Table] = {}
        self.indexes: dict[str, Index] = {}
        self.keys: list[ForeignKey] = []
        self.functions: dict[str, Function] = {}

    def empty(self, table: str, revision: str) -> bool:
        """Whether ``table`` can have no rows when ``revision`` comes to it."""
        known = self.tables.get(table)
        return known is not None and (known.made_in == revision or known.made_in in self._unapplied)

    def volatility(self, function: str) -> str:
        """``volatile``, ``stable`` or ``immutable``; what nobody made here is taken as built in."""
        name = function.removeprefix("pg_catalog.")
        known = self.functions.get(function) or self.functions.get(f"public.{name}")
        if known is not None:
            return "volatile" if known.unstable & VOLATILE else known.volatility
        last = name.rpartition(".")[2]
        if name in VOLATILE or last in VOLATILE_EXTENSIONS:
            return "volatile"
        if name in STABLE or name in _VALUE_FUNCTIONS:
            return "stable"
        return "immutable" if "." not in name else "volatile"

    def unindexed(self) -> Iterator[tuple[ForeignKey, Place]]:
        """Foreign keys no index serves, with the statement to blame: the drop of the last one."""
        for key in self.keys:
            serving = [index for index in self.indexes.values() if index.serves(key)]
            if all(index.dropped for index in serving):
                places = [index.dropped for index in serving if index.dropped]
                yield key, places[-1] if places else key.place

    def apply(self, node: Message, place: Place) -> None:
        """Take in what the statement changes."""
        step = _STEPS.get(type(node))
        if step is not None:
            step(self, node, place)

    def forget(self, table: str, place: Place) -> None:
        """The table is gone with everything on it."""
        self.tables.pop(table, None)
        self.keys = [key for key in self.keys if key.table != table]
        for name, index in list(self.indexes.items()):
            if index.table == table:
                self.drop_index(name, place)

    def drop_index(self, name: str, place: Place) -> None:
        """Keep it as dropped: a foreign key may have lost its only index."""
        if name in self.indexes:
            gone = replace(self.indexes.pop(name), dropped=place)
            self.indexes[f"{name} {place}"] = gone


# Written without parentheses; libpg_query appends _n to those with a precision.
_VALUE_WORDS = """
    current_date current_time current_timestamp localtime localtimestamp current_role
    current_user user session_user current_catalog current_schema current_time_n
    current_timestamp_n localtime_n localtimestamp_n
"""
_VALUE_FUNCTIONS = frozenset(_VALUE_WORDS.split())


def column_type(name: Message) -> Type:
    """The type as written; a modifier that is not a number counts as 0."""
    numbers = [inner(mod) for mod in name.typmods]
    modifiers = tuple(n.ival.ival if isinstance(n, pg.A_Const) else 0 for n in numbers)
    parts = words(name.names)
    return Type(parts[-1] if parts else "", modifiers, bool(name.array_bounds))


def not_null_columns(expression: Message) -> frozenset[str]:
    """The columns that ``expression`` proves to be not null: one test, or several with AND."""
    node = inner(expression)
    if isinstance(node, pg.BoolExpr) and node.boolop == pg.AND_EXPR:
        return frozenset().union(*map(not_null_columns, node.args))
    if isinstance(node, pg.NullTest) and node.nulltesttype == pg.IS_NOT_NULL:
        column = inner(node.arg)
        if isinstance(column, pg.ColumnRef) and len(column.fields) == 1:
            return frozenset(words(column.fields))
    return frozenset()


def _create_table(schema: Schema, node: Message, place: Place) -> None:
    name = relation_name(node.relation)
    if node.if_not_exists and name in schema.tables:
        return
    table = Table(place.revision, partitioned=node.HasField("partspec"))
    schema.tables[name] = table
    for element in map(inner, node.table_elts):
        if isinstance(element, pg.ColumnDef):
            _add_column(schema, name, element, place)
        elif isinstance(element, pg.Constraint):
            _add_constraint(schema, name, element, place)


def _create_table_as(schema: Schema, node: Message, place: Place) -> None:
    name = relation_name(node.into.rel)
    if not (node.if_not_exists and name in schema.tables):
        schema.tables[name] = Table(place.revision)


def _add_column(schema: Schema, table: str, column: Message, place: Place) -> None:
    if table in schema.tables:
        schema.tables[table].columns[column.colname] = column_type(column.type_name)
    for constraint in map(inner, column.constraints):
        _add_constraint(schema, table, constraint, place, column.colname)


def _add_constraint(
    schema: Schema, table: str, node: Message, place: Place, column: str | None = None
) -> None:
    bare = table.rpartition(".")[2]
    if node.contype == pg.CONSTR_FOREIGN:
        columns = words(node.fk_attrs) or ((column,) if column else ())
        name = node.conname or "_".join((bare, *columns, "fkey"))
        schema.keys.append(ForeignKey(table, name, columns, place))
    elif node.contype in {pg.CONSTR_PRIMARY, pg.CONSTR_UNIQUE} and not node.indexname:
        columns = words(getattr(node, "keys")) or ((column,) if column else ())  # noqa: B009 - protobuf's field, not a mapping's keys()
        primary = node.contype == pg.CONSTR_PRIMARY
        name = node.conname or "_".join((bare, *(("pkey",) if primary else (*columns, "key"))))
        schema.indexes[_beside(table, name)] = Index(table, columns, frozenset())
    elif node.contype in {pg.CONSTR_CHECK, pg.CONSTR_NOTNULL} and table in schema.tables:
        proven = (
            frozenset(words(getattr(node, "keys")))  # noqa: B009 - as above
            if node.contype == pg.CONSTR_NOTNULL
            else not_null_columns(node.raw_expr)
        )
        kind = "check" if node.contype == pg.CONSTR_CHECK else "not_null"
        name = node.conname or "_".join((bare, *sorted(proven), kind))
        check = Check(proven, not node.skip_validation, place.revision)
        schema.tables[table].checks[name] = check


def _alter_table(schema: Schema, node: Message, place: Place) -> None:
    table = relation_name(node.relation)
    for command in map(inner, node.cmds):
        _alter(schema, table, command, place)


def _alter(schema: Schema, table: str, command: Message, place: Place) -> None:
    definition = inner(getattr(command, "def"))
    known = schema.tables.get(table)
    if command.subtype == pg.AT_AddColumn:
        _add_column(schema, table, definition, place)
    elif command.subtype == pg.AT_AddConstraint:
        _add_constraint(schema, table, definition, place)
    elif command.subtype == pg.AT_DropConstraint:
        _drop_constraint(schema, table, command.name, place)
    elif known and command.subtype == pg.AT_ValidateConstraint:
        if command.name in known.checks:
            known.checks[command.name] = replace(known.checks[command.name], valid=True)
    elif known and command.subtype == pg.AT_AlterColumnType:
        known.columns[command.name] = column_type(definition.type_name)
    elif command.subtype == pg.AT_DropColumn:
        _drop_column(schema, table, command.name, place)


def _drop_constraint(schema: Schema, table: str, name: str, place: Place) -> None:
    schema.keys = [key for key in schema.keys if (key.table, key.name) != (table, name)]
    schema.drop_index(_beside(table, name), place)
    if table in schema.tables:
        schema.tables[table].checks.pop(name, None)


def _drop_column(schema: Schema, table: str, column: str, place: Place) -> None:
    schema.keys = [k for k in schema.keys if k.table != table or column not in k.columns]
    for name, index in list(schema.indexes.items()):
        if index.table == table and column in index.columns and index.dropped is None:
            schema.drop_index(name, place)
    if table in schema.tables:
        schema.tables[table].columns.pop(column, None)


def _create_index(schema: Schema, node: Message, place: Place) -> None:
    table = relation_name(node.relation)
    columns = tuple(inner(param).name for param in node.index_params)
    predicate: frozenset[str] | None = frozenset()
    if node.HasField("where_clause"):
        predicate = not_null_columns(node.where_clause) or None
    name = node.idxname or f"unnamed {place}"
    schema.indexes[_beside(table, name)] = Index(table, columns, predicate)


def _drop(schema: Schema, node: Message, place: Place) -> None:
    for dropped in map(inner, node.objects):
        if node.remove_type in {pg.OBJECT_TABLE, pg.OBJECT_MATVIEW}:
            schema.forget(dotted(words(dropped.items)), place)
        elif node.remove_type == pg.OBJECT_INDEX:
            schema.drop_index(dotted(words(dropped.items)), place)
        elif node.remove_type == pg.OBJECT_SCHEMA:
            for table in [t for t in schema.tables if t.startswith(f"{dropped.sval}.")]:
                schema.forget(table, place)


def _rename(schema: Schema, node: Message, place: Place) -> None:
    del place
    table = relation_name(node.relation)
    if node.rename_type == pg.OBJECT_TABLE and table in schema.tables:
        renamed = _beside(table, node.newname)
        schema.tables[renamed] = schema.tables.pop(table)
        schema.keys = [
            replace(key, table=renamed) if key.table == table else key for key in schema.keys
        ]
        for name, index in schema.indexes.items():
            if index.table == table:
                schema.indexes[name] = replace(index, table=renamed)
    elif node.rename_type == pg.OBJECT_COLUMN:
        _rename_column(schema, table, node.subname, node.newname)
    elif node.rename_type == pg.OBJECT_INDEX and table in schema.indexes:
        schema.indexes[_beside(table, node.newname)] = schema.indexes.pop(table)


def _rename_column(schema: Schema, table: str, old: str, new: str) -> None:
    def renamed(columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new if column == old else column for column in columns)

    schema.keys = [
        replace(k, columns=renamed(k.columns)) if k.table == table else k for k in schema.keys
    ]
    for name, index in schema.indexes.items():
        if index.table == table:
            schema.indexes[name] = replace(index, columns=renamed(index.columns))
    if table in schema.tables and old in schema.tables[table].columns:
        schema.tables[table].columns[new] = schema.tables[table].columns.pop(old)


def _create_function(schema: Schema, node: Message, place: Place) -> None:
    del place
    given = options(node.options)
    calls = {name.removeprefix("pg_catalog.") for name in body_calls(node)}
    schema.functions[dotted(words(node.funcname))] = Function(
        volatility=given["volatility"].sval if "volatility" in given else "volatile",
        search_path=sets_search_path(node.options),
        unstable=frozenset(name for name in calls if schema.volatility(name) != "immutable"),
    )


def sets_search_path(elements: Message) -> bool:
    """Whether the options of a function fix its ``search_path``."""
    settings = [inner(e).arg for e in elements if inner(e).defname == "set"]
    return any(inner(setting).name == "search_path" for setting in settings)


def _beside(table: str, name: str) -> str:
    return f"{table.rpartition('.')[0]}.{name}"


_STEPS: dict[type, Callable[[Schema, Message, Place], None]] = {
    pg.CreateStmt: _create_table,
    pg.CreateTableAsStmt: _create_table_as,
    pg.AlterTableStmt: _alter_table,
    pg.IndexStmt: _create_index,
    pg.DropStmt: _drop,
    pg.RenameStmt: _rename,
    pg.CreateFunctionStmt: _create_function,
}
