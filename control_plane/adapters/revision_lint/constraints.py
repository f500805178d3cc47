"""Rules about constraints: checked without a long lock, and never deleting by themselves."""

from collections.abc import Iterator

from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint.context import Context
from control_plane.adapters.revision_lint.findings import Broken
from control_plane.adapters.revision_lint.syntax import Message, inner, inside, relation_name

_ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_UNIQUE = {
    pg.CONSTR_UNIQUE: "UNIQUE",
    pg.CONSTR_PRIMARY: "PRIMARY KEY",
    pg.CONSTR_EXCLUSION: "EXCLUDE",
}


def cascade(node: Message, context: Context) -> Iterator[Broken]:
    """Foreign keys, DROP, TRUNCATE and ALTER TABLE that reach further than what they name."""
    del context
    for key in inside(node, pg.Constraint):
        for event, action in (("DELETE", key.fk_del_action), ("UPDATE", key.fk_upd_action)):
            if key.contype == pg.CONSTR_FOREIGN and action in _ACTIONS:
                parent = relation_name(key.pktable)
                message = f"ON {event} {_ACTIONS[action]} changes rows when {parent} changes"
                yield Broken("cascade", message)
    reaching = [node, *inside(node, pg.AlterTableCmd)]
    if any(getattr(part, "behavior", None) == pg.DROP_CASCADE for part in reaching):
        yield Broken("cascade", "CASCADE takes along whatever depends on it, named or not")


def alter(node: Message, context: Context) -> Iterator[Broken]:
    """An ALTER TABLE that adds or validates constraints."""
    table = relation_name(node.relation)
    if context.empty(table):
        return
    for command in map(inner, node.cmds):
        definition = inner(getattr(command, "def"))
        if command.subtype == pg.AT_AddConstraint:
            yield from _added(table, definition)
        elif command.subtype == pg.AT_ValidateConstraint:
            yield from _validated(table, command.name, context)
        elif command.subtype == pg.AT_AddColumn:
            yield from _with_column(table, definition)


def alter_domain(node: Message, context: Context) -> Iterator[Broken]:
    """An ALTER DOMAIN: its constraints are checked in every table that uses it."""
    del context
    constraint = inner(getattr(node, "def"))
    if isinstance(constraint, pg.Constraint) and not constraint.skip_validation:
        message = "ADD CHECK to a domain reads every table that uses it under a lock"
        yield Broken("constraint-not-valid", message)


def _added(table: str, constraint: Message) -> Iterator[Broken]:
    kind = {pg.CONSTR_FOREIGN: "FOREIGN KEY", pg.CONSTR_CHECK: "CHECK"}.get(constraint.contype)
    if kind and not constraint.skip_validation and constraint.is_enforced:
        message = f"ADD {kind} reads all of {table} under a lock that blocks writes"
        yield Broken("constraint-not-valid", message)
    if constraint.contype == pg.CONSTR_NOTNULL and not constraint.skip_validation:
        message = f"ADD NOT NULL reads all of {table} under a lock that blocks every query"
        yield Broken("not-null-without-path", message)
    if constraint.contype in _UNIQUE and not constraint.indexname:
        message = f"ADD {_UNIQUE[constraint.contype]} builds its index while {table} is locked"
        yield Broken("unique-constraint-without-index", message)


def _with_column(table: str, column: Message) -> Iterator[Broken]:
    kinds = {inner(c).contype for c in column.constraints}
    where = f"{table}.{column.colname}"
    if pg.CONSTR_CHECK in kinds:
        message = f"a CHECK on the new column {where} reads every row under a lock"
        yield Broken("constraint-not-valid", message)
    # Postgres skips the check of a foreign key whose new column is NULL in every row.
    if {pg.CONSTR_FOREIGN, pg.CONSTR_DEFAULT} <= kinds:
        message = f"a foreign key on {where} with a DEFAULT is checked for every row under a lock"
        yield Broken("constraint-not-valid", message)
    for kind in kinds & _UNIQUE.keys():
        message = f"{_UNIQUE[kind]} on the new column {where} builds its index under a lock"
        yield Broken("unique-constraint-without-index", message)


def _validated(table: str, name: str, context: Context) -> Iterator[Broken]:
    known = context.schema.tables.get(table)
    added = {n: check.added_in for n, check in known.checks.items()} if known else {}
    for key in context.schema.keys:
        if key.table == table:
            added[key.name] = key.place.revision
    if added.get(name) == context.revision and context.transactional:
        message = f"VALIDATE {name} in the transaction that added it keeps the lock of ADD"
        yield Broken("constraint-not-valid", message)
