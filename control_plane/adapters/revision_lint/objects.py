"""Rules about whole objects: renamed, dropped, rewritten, locked, named without a schema."""

from collections.abc import Callable, Iterator

from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint.context import Context
from control_plane.adapters.revision_lint.findings import Broken
from control_plane.adapters.revision_lint.syntax import (
    Message,
    dotted,
    inner,
    inside,
    is_on,
    options,
    relation_name,
    words,
)

_DATA = {
    pg.OBJECT_TABLE: "table",
    pg.OBJECT_FOREIGN_TABLE: "foreign table",
    pg.OBJECT_SEQUENCE: "sequence",
}
# DROP of these names them by a list of which the last part is the object in its schema.
_LISTED = frozenset({*_DATA, pg.OBJECT_VIEW, pg.OBJECT_MATVIEW, pg.OBJECT_INDEX})
_OF_TABLE = frozenset({pg.OBJECT_TRIGGER, pg.OBJECT_POLICY, pg.OBJECT_RULE})
_SHARED = {
    pg.OBJECT_DATABASE: "DATABASE",
    pg.OBJECT_ROLE: "ROLE",
    pg.OBJECT_TABLESPACE: "TABLESPACE",
}


def rename(node: Message, context: Context) -> Iterator[Broken]:
    """A RENAME."""
    table = relation_name(node.relation)
    tables = {pg.OBJECT_TABLE, pg.OBJECT_VIEW, pg.OBJECT_MATVIEW}
    if node.rename_type == pg.OBJECT_SCHEMA:
        yield Broken("rename-table", f"applications still say schema {node.subname}")
    elif context.empty(table):
        return
    elif node.rename_type == pg.OBJECT_COLUMN:
        yield Broken("rename-column", f"applications still say {table}.{node.subname}")
    elif node.rename_type in tables:
        yield Broken("rename-table", f"applications still say {table}")


def set_schema(node: Message, context: Context) -> Iterator[Broken]:
    """An ALTER … SET SCHEMA."""
    if node.object_type in {pg.OBJECT_TABLE, pg.OBJECT_VIEW, pg.OBJECT_MATVIEW}:
        table = relation_name(node.relation)
        if not context.empty(table):
            yield Broken("rename-table", f"applications still say {table}")


def drop(node: Message, context: Context) -> Iterator[Broken]:
    """A DROP of something that holds data."""
    for dropped in map(inner, node.objects):
        if node.remove_type in _DATA:
            name = dotted(words(dropped.items))
            if not context.empty(name):
                message = f"the {_DATA[node.remove_type]} {name} and its data are lost"
                yield Broken("drop-table", message)
        elif node.remove_type == pg.OBJECT_SCHEMA:
            yield Broken("drop-table", f"the schema {dropped.sval} goes with everything in it")


def drop_owned(node: Message, context: Context) -> Iterator[Broken]:
    """A DROP OWNED."""
    del node, context
    yield Broken("drop-table", "DROP OWNED takes every table of the role with its data")


def move_all(node: Message, context: Context) -> Iterator[Broken]:
    """An ALTER TABLE ALL IN TABLESPACE."""
    del node, context
    yield Broken("table-rewrite", "SET TABLESPACE copies every table under a lock")


def cluster(node: Message, context: Context) -> Iterator[Broken]:
    """A CLUSTER."""
    if not context.empty(relation_name(node.relation)):
        yield Broken("table-rewrite", "CLUSTER rewrites under a lock that blocks every query")


def vacuum(node: Message, context: Context) -> Iterator[Broken]:
    """A VACUUM; ANALYZE is one to the grammar."""
    if not node.is_vacuumcmd:
        return
    if context.transactional:
        yield Broken("concurrent-in-transaction", "VACUUM in a transaction")
    if is_on(options(node.options), "full"):
        yield Broken("table-rewrite", "VACUUM FULL rewrites under a lock that blocks every query")


def refresh(node: Message, context: Context) -> Iterator[Broken]:
    """A REFRESH MATERIALIZED VIEW."""
    view = relation_name(node.relation)
    if not (node.concurrent or node.skip_data or context.empty(view)):
        message = f"REFRESH {view} without CONCURRENTLY blocks its readers until it is done"
        yield Broken("table-rewrite", message)


def lock(node: Message, context: Context) -> Iterator[Broken]:
    """A LOCK TABLE."""
    del context
    tables = ", ".join(relation_name(inner(relation)) for relation in node.relations)
    yield Broken("lock-table", f"LOCK {tables} holds up the application until the revision ends")


def comment(node: Message, context: Context) -> Iterator[Broken]:
    """A COMMENT on what every tenant of the server can read (security rule S-05)."""
    del context
    if node.objtype in _SHARED:
        message = f"COMMENT ON {_SHARED[node.objtype]} stands in a catalog all tenants share"
        yield Broken("comment-on-database", message)


def names(node: Message, context: Context) -> Iterator[Broken]:
    """Every relation of the statement, and the object it makes or drops, has its schema."""
    if not context.qualified:
        return
    found = [*_relations(node), *_made(node), *_dropped(node)]
    bare = sorted(name for name in dict.fromkeys(found) if "." not in name)
    if bare:
        yield Broken("unqualified-name", f"{', '.join(bare)} without a schema")


def _relations(node: Message) -> Iterator[str]:
    local = {cte.ctename for cte in inside(node, pg.CommonTableExpr)}
    local |= {table.name for table in inside(node, pg.TriggerTransition)}
    for relation in inside(node, pg.RangeVar):
        # Temporary tables have no schema to name; pg_class and its kind are in pg_catalog.
        found = relation.relpersistence == "t" or relation.relname.startswith("pg_")
        if not (relation.schemaname or found or relation.relname in local):
            yield relation.relname


_NAMED: dict[type, Callable[[Message], Message]] = {
    pg.CreateFunctionStmt: lambda node: node.funcname,
    pg.CreateEnumStmt: lambda node: node.type_name,
    pg.AlterEnumStmt: lambda node: node.type_name,
    pg.CreateRangeStmt: lambda node: node.type_name,
    pg.CreateDomainStmt: lambda node: node.domainname,
    pg.AlterDomainStmt: lambda node: node.type_name,
    pg.AlterFunctionStmt: lambda node: node.func.objname,
}


def _made(node: Message) -> Iterator[str]:
    read = _NAMED.get(type(node))
    if read is not None:
        yield ".".join(words(read(node)))


def _dropped(node: Message) -> Iterator[str]:
    if not isinstance(node, pg.DropStmt):
        return
    for dropped in map(inner, node.objects):
        if node.remove_type in _LISTED:
            yield ".".join(words(dropped.items))
        elif node.remove_type in _OF_TABLE:
            yield ".".join(words(dropped.items)[:-1])
        elif isinstance(dropped, pg.ObjectWithArgs):
            yield ".".join(words(dropped.objname))
        elif isinstance(dropped, pg.TypeName):
            yield ".".join(words(dropped.names))
