"""Rules about privileges: functions that run as their owner, and grants to everybody."""

from collections.abc import Iterator

from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint.context import Context
from control_plane.adapters.revision_lint.findings import Broken
from control_plane.adapters.revision_lint.schema import sets_search_path
from control_plane.adapters.revision_lint.syntax import Message, dotted, inner, options, words


def create_function(node: Message, context: Context) -> Iterator[Broken]:
    """A CREATE FUNCTION with SECURITY DEFINER."""
    del context
    if _definer(node.options) and not sets_search_path(node.options):
        yield _hijack(dotted(words(node.funcname)))


def alter_function(node: Message, context: Context) -> Iterator[Broken]:
    """An ALTER FUNCTION that makes it SECURITY DEFINER."""
    name = dotted(words(node.func.objname))
    known = context.schema.functions.get(name)
    fixed = known is not None and known.search_path
    if _definer(node.actions) and not (fixed or sets_search_path(node.actions)):
        yield _hijack(name)


def grant(node: Message, context: Context) -> Iterator[Broken]:
    """A GRANT, or ALTER DEFAULT PRIVILEGES … GRANT."""
    del context
    given = node.action if isinstance(node, pg.AlterDefaultPrivilegesStmt) else node
    everybody = any(inner(g).roletype == pg.ROLESPEC_PUBLIC for g in given.grantees)
    if given.is_grant and everybody:
        message = "GRANT to PUBLIC reaches every role that can connect, those made later too"
        yield Broken("grant-to-public", message)


def _definer(elements: Message) -> bool:
    security = options(elements).get("security")
    return security is not None and bool(security.boolval)


def _hijack(name: str) -> Broken:
    message = f"{name} runs as its owner with the search_path of whoever calls it"
    return Broken("security-definer-without-search-path", message)
