"""Rules about the session and the transaction, which belong to the executor, and about rows."""

from collections.abc import Iterator

from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint.context import Context
from control_plane.adapters.revision_lint.findings import Broken
from control_plane.adapters.revision_lint.syntax import (
    Message,
    do_body,
    dynamic_ddl,
    inner,
    inside,
    options,
    relation_name,
    words,
)

_ROLES = frozenset({"role", "session_authorization"})
_SET_CONFIG = frozenset({("set_config",), ("pg_catalog", "set_config")})
_SET_CONFIG_ARGUMENTS = 3


def transaction(node: Message, context: Context) -> Iterator[Broken]:
    """BEGIN, COMMIT, ROLLBACK, SAVEPOINT, PREPARE TRANSACTION."""
    del context
    kind = pg.TransactionStmtKind.Name(node.kind).removeprefix("TRANS_STMT_").replace("_", " ")
    yield Broken("transaction-control", f"{kind} inside of a revision")


def setting(node: Message, context: Context) -> Iterator[Broken]:
    """SET and RESET."""
    if context.privileged or node.name.upper() == "TRANSACTION":
        return
    if node.name in _ROLES:
        yield Broken("session-setting", f"SET {node.name.upper().replace('_', ' ')}")
    elif not node.is_local:
        what = f"SET or RESET of {node.name or 'everything'}"
        yield Broken("session-setting", f"{what} stays for the revisions that follow")


def discard(node: Message, context: Context) -> Iterator[Broken]:
    """DISCARD ALL forgets the executor's own settings."""
    del node
    if not context.privileged:
        yield Broken("session-setting", "DISCARD forgets the settings of the executor")


def set_config(node: Message, context: Context) -> Iterator[Broken]:
    """SET in the disguise of a function: ``set_config`` with a last argument of false."""
    if context.privileged:
        return
    for call in inside(node, pg.FuncCall):
        if words(call.funcname) in _SET_CONFIG and not _is_local(call):
            message = "set_config without a third argument of true stays after the transaction"
            yield Broken("session-setting", message)


def rows(node: Message, context: Context) -> Iterator[Broken]:
    """UPDATE and DELETE of every row, wherever in the statement, and TRUNCATE."""
    for verb, kind in (("UPDATE", pg.UpdateStmt), ("DELETE", pg.DeleteStmt)):
        for change in inside(node, kind):
            table = relation_name(change.relation)
            if _everything(change) and not context.empty(table):
                message = f"{verb} of every row of {table} in one transaction"
                yield Broken("data-change-unbounded", message)
    if isinstance(node, pg.TruncateStmt):
        for table in (relation_name(inner(relation)) for relation in node.relations):
            if not context.empty(table):
                yield Broken("data-change-unbounded", f"TRUNCATE loses every row of {table}")


def block(node: Message, context: Context) -> Iterator[Broken]:
    """A DO block that hides DDL from this reader."""
    del context
    language = options(node.args).get("language")
    if language is not None and language.sval.lower() != "plpgsql":
        yield Broken("dynamic-ddl", f"a DO block in {language.sval} cannot be read")
    elif dynamic_ddl(do_body(node)):
        yield Broken("dynamic-ddl", "EXECUTE in a DO block runs DDL that cannot be read")


def _everything(change: Message) -> bool:
    if not change.HasField("where_clause"):
        return True
    condition = inner(change.where_clause)
    return isinstance(condition, pg.A_Const) and bool(condition.boolval.boolval)


def _is_local(call: Message) -> bool:
    if len(call.args) != _SET_CONFIG_ARGUMENTS:
        return False
    third = inner(call.args[2])
    return isinstance(third, pg.A_Const) and bool(third.boolval.boolval)
