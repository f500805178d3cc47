"""Rules about the columns of a table that has rows: what rewrites, scans or loses them."""

from collections.abc import Iterator

from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint.context import Context
from control_plane.adapters.revision_lint.findings import Broken
from control_plane.adapters.revision_lint.schema import Type, column_type
from control_plane.adapters.revision_lint.syntax import Message, called, inner, relation_name

_SERIALS = frozenset({"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"})
_WIDENING = frozenset(
    {"numeric", "varchar", "varbit", "timestamp", "timestamptz", "time", "timetz"}
)
_REWRITES = {
    pg.AT_SetLogged: "SET LOGGED",
    pg.AT_SetUnLogged: "SET UNLOGGED",
    pg.AT_SetAccessMethod: "SET ACCESS METHOD",
    pg.AT_SetTableSpace: "SET TABLESPACE",
    pg.AT_SetExpression: "SET EXPRESSION",
    pg.AT_AddIdentity: None,
}


def alter(node: Message, context: Context) -> Iterator[Broken]:
    """An ALTER TABLE."""
    table = relation_name(node.relation)
    if node.objtype not in {pg.OBJECT_TABLE, pg.OBJECT_MATVIEW} or context.empty(table):
        return
    for command in map(inner, node.cmds):
        definition = inner(getattr(command, "def"))
        if command.subtype == pg.AT_AddColumn:
            yield from _add(table, definition, context)
        elif command.subtype == pg.AT_AlterColumnType:
            yield from _change_type(table, command.name, definition, context)
        else:
            yield from _change(table, command, context)


def _change(table: str, command: Message, context: Context) -> Iterator[Broken]:
    column = f"{table}.{command.name}"
    if command.subtype == pg.AT_SetNotNull and not _proven(table, command.name, context):
        message = f"SET NOT NULL reads all of {table} under a lock that blocks every query"
        yield Broken("not-null-without-path", f"{column}: {message}")
    elif command.subtype == pg.AT_DropColumn:
        yield Broken("drop-column", f"{column} and what it holds are lost")
    elif _REWRITES.get(command.subtype):
        message = f"{_REWRITES[command.subtype]} rewrites {table} under a lock"
        yield Broken("table-rewrite", message)


def _add(table: str, column: Message, context: Context) -> Iterator[Broken]:
    where = f"{table}.{column.colname}"
    constraints = {inner(c).contype: inner(c) for c in column.constraints}
    if constraints.keys() & {pg.CONSTR_IDENTITY, pg.CONSTR_GENERATED}:
        if not _virtual(constraints.get(pg.CONSTR_GENERATED)):
            yield Broken("table-rewrite", f"a value computed for {where} rewrites every row")
        return
    if column_type(column.type_name).name in _SERIALS:
        yield Broken("volatile-default", f"{where}: a serial rewrites every row")
        return
    default = constraints.get(pg.CONSTR_DEFAULT)
    if pg.CONSTR_NOTNULL in constraints and (default is None or _null(default.raw_expr)):
        message = "NOT NULL without a DEFAULT fails as soon as the table has a row"
        yield Broken("not-null-without-path", f"{where}: {message}")
    if default is not None:
        names = called(default.raw_expr)
        volatile = sorted(n for n in names if context.schema.volatility(n) == "volatile")
        if volatile:
            message = f"the default of {where} calls {', '.join(volatile)} and rewrites every row"
            yield Broken("volatile-default", message)


def _change_type(
    table: str, column: str, definition: Message, context: Context
) -> Iterator[Broken]:
    known = context.schema.tables.get(table)
    old = known.columns.get(column) if known else None
    new = column_type(definition.type_name)
    plain = not definition.HasField("raw_default") and not definition.HasField("coll_clause")
    if old is None or not plain or not _compatible(old, new):
        was = _shown(old) if old else "a type that is not known here"
        message = f"from {was} to {_shown(new)} may rewrite the table or its indexes under a lock"
        yield Broken("column-type-change", f"{table}.{column}: {message}")


def _compatible(old: Type, new: Type) -> bool:
    """Whether Postgres changes the type in its catalogs alone."""
    if old == new or old.array != new.array:
        return old == new
    if {old.name, new.name} <= {"varchar", "text"} and not new.modifiers:
        return True
    if old.name != new.name or old.name not in _WIDENING or not old.modifiers:
        return False
    scaled = old.name == "numeric"
    return not new.modifiers or _wider(old.modifiers, new.modifiers, scaled=scaled)


def _wider(old: tuple[int, ...], new: tuple[int, ...], *, scaled: bool) -> bool:
    """As many digits or more; of a numeric, with the same scale, which is 0 if not given."""
    same_scale = not scaled or (*old, 0)[1] == (*new, 0)[1]
    return new[0] >= old[0] and same_scale


def _proven(table: str, column: str, context: Context) -> bool:
    """Whether a CHECK that holds for every row, from an earlier transaction, says it already."""
    known = context.schema.tables.get(table)
    checks = known.checks.values() if known else ()
    return any(check.valid and column in check.not_null for check in checks)


def _null(expression: Message) -> bool:
    constant = inner(expression)
    while isinstance(constant, pg.TypeCast):
        constant = inner(constant.arg)
    return isinstance(constant, pg.A_Const) and bool(constant.isnull)


def _virtual(generated: Message | None) -> bool:
    return generated is not None and generated.generated_kind == "v"


def _shown(kind: Type) -> str:
    modifiers = f"({','.join(map(str, kind.modifiers))})" if kind.modifiers else ""
    return f"{kind.name}{modifiers}{'[]' if kind.array else ''}"
