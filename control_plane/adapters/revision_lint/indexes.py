"""Rules about indexes: built without stopping writers, and never on something that changes."""

from collections.abc import Iterator

from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint.context import Context
from control_plane.adapters.revision_lint.findings import Broken
from control_plane.adapters.revision_lint.syntax import (
    Message,
    body_calls,
    called,
    dotted,
    is_on,
    options,
    relation_name,
    words,
)


def create(node: Message, context: Context) -> Iterator[Broken]:
    """A CREATE INDEX."""
    table = relation_name(node.relation)
    if not (node.concurrent or context.empty(table) or _parent_only(node, table, context)):
        message = f"CREATE INDEX stops every write to {table} until the index is built"
        yield Broken("index-not-concurrent", message)
    if node.concurrent and context.transactional:
        yield Broken("concurrent-in-transaction", "CREATE INDEX CONCURRENTLY in a transaction")
    unstable = sorted(f for f in called(node) if context.schema.volatility(f) != "immutable")
    unstable += _disguised(node, context)
    if unstable:
        message = f"the index on {table} calls {', '.join(unstable)}, whose answer changes"
        yield Broken("unstable-index-predicate", message)


def drop(node: Message, context: Context) -> Iterator[Broken]:
    """A DROP INDEX."""
    if node.remove_type != pg.OBJECT_INDEX:
        return
    if node.concurrent:
        if context.transactional:
            yield Broken("concurrent-in-transaction", "DROP INDEX CONCURRENTLY in a transaction")
        return
    for name in (dotted(words(o.list.items)) for o in node.objects):
        index = context.schema.indexes.get(name)
        if index is None or not context.empty(index.table):
            message = f"DROP INDEX {name} waits for every query on its table and blocks new ones"
            yield Broken("drop-index-not-concurrent", message)


def reindex(node: Message, context: Context) -> Iterator[Broken]:
    """A REINDEX."""
    concurrent = is_on(options(node.params), "concurrently")
    if concurrent and context.transactional:
        yield Broken("concurrent-in-transaction", "REINDEX CONCURRENTLY in a transaction")
    if not concurrent:
        yield Broken("reindex-not-concurrent", "REINDEX stops every write until it is done")


def function(node: Message, context: Context) -> Iterator[Broken]:
    """A function that says it is IMMUTABLE and is not: an index on it would go wrong silently."""
    volatility = options(node.options).get("volatility")
    if volatility is None or volatility.sval != "immutable":
        return
    schema = context.schema
    unstable = sorted(f for f in body_calls(node) if schema.volatility(f) != "immutable")
    if unstable:
        name = dotted(words(node.funcname))
        message = f"{name} says IMMUTABLE and calls {', '.join(unstable)}"
        yield Broken("unstable-index-predicate", message)


def _disguised(node: Message, context: Context) -> list[str]:
    """Functions the index calls that say IMMUTABLE and are not."""
    known = context.schema.functions
    names = [name for name in called(node) if name in known and known[name].unstable]
    return sorted(n for n in names if context.schema.volatility(n) == "immutable")


def _parent_only(node: Message, table: str, context: Context) -> bool:
    """An index on a partitioned table alone has nothing to build."""
    known = context.schema.tables.get(table)
    return known is not None and known.partitioned and not node.relation.inh
