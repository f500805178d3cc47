"""Revisions in, findings out: every rule on every statement, then what revisions override."""

from collections.abc import Iterator, Sequence

import msgspec
import postgast
from postgast import pg_query_pb2 as pg

from control_plane.adapters.revision_lint import (
    columns,
    constraints,
    indexes,
    objects,
    privileges,
    sessions,
)
from control_plane.adapters.revision_lint.context import Context, Rule
from control_plane.adapters.revision_lint.findings import RULES, Broken, LintFinding
from control_plane.adapters.revision_lint.schema import Place, Schema
from control_plane.adapters.revision_lint.syntax import (
    Message,
    do_body,
    fragments,
    inside,
    is_on,
    options,
    statements,
)
from control_plane.adapters.revisions import AWARE_SEARCH_PATH, Revision

_SHORTEST_REASON = 10
_VERSION_TABLE = "alembic_version"
_EVERY: tuple[Rule, ...] = (
    constraints.cascade,
    objects.names,
    sessions.rows,
    sessions.set_config,
)
_BY_KIND: dict[type, tuple[Rule, ...]] = {
    pg.IndexStmt: (indexes.create,),
    pg.DropStmt: (indexes.drop, objects.drop),
    pg.ReindexStmt: (indexes.reindex,),
    pg.CreateFunctionStmt: (indexes.function, privileges.create_function),
    pg.AlterFunctionStmt: (privileges.alter_function,),
    pg.AlterTableStmt: (columns.alter, constraints.alter),
    pg.AlterDomainStmt: (constraints.alter_domain,),
    pg.AlterTableMoveAllStmt: (objects.move_all,),
    pg.DropOwnedStmt: (objects.drop_owned,),
    pg.RenameStmt: (objects.rename,),
    pg.AlterObjectSchemaStmt: (objects.set_schema,),
    pg.ClusterStmt: (objects.cluster,),
    pg.VacuumStmt: (objects.vacuum,),
    pg.RefreshMatViewStmt: (objects.refresh,),
    pg.LockStmt: (objects.lock,),
    pg.CommentStmt: (objects.comment,),
    pg.TransactionStmt: (sessions.transaction,),
    pg.VariableSetStmt: (sessions.setting,),
    pg.DiscardStmt: (sessions.discard,),
    pg.DoStmt: (sessions.block,),
    pg.GrantStmt: (privileges.grant,),
    pg.AlterDefaultPrivilegesStmt: (privileges.grant,),
}


def lint(
    revisions: Sequence[Revision], existing: frozenset[str] | None = None
) -> list[LintFinding]:
    """What the revisions, oldest first from the base, would do to a database in use.

    ``existing`` names the revisions that some database has already: they are read for what they
    make and not reported, and a table made by any other revision counts as empty. Without it all
    are reported, and a table counts as empty only in the revision that makes it.
    """
    ids = frozenset(revision.id for revision in revisions)
    schema = Schema(ids - existing if existing is not None else frozenset())
    found = {r.id: list(_of_revision(r, schema)) for r in revisions}
    for key, place in schema.unindexed():
        message = f"{key.table} ({', '.join(key.columns)}): a change of the parent reads all of it"
        broken = Broken("foreign-key-without-index", message)
        found[place.revision].append(_finding(place, broken))
    reported = [r for r in revisions if existing is None or r.id not in existing]
    return [finding for r in reported for finding in _overridden(r, found[r.id])]


def _of_revision(revision: Revision, schema: Schema) -> Iterator[LintFinding]:
    if revision.runs_python:
        message = "it runs Python against the database, which cannot be read beforehand"
        yield _finding(Place(revision.id, 0), Broken("runs-python", message))
    leaves = not revision.transactional
    qualified = revision.search_path == AWARE_SEARCH_PATH
    number = 0
    for segment in revision.segments:
        context = Context(
            schema, revision.id, revision.privileged, segment.transactional, qualified
        )
        for statement in segment.statements:
            number += 1
            place = Place(revision.id, number)
            broken = list(_of_text(statement, context, place, alone=leaves))
            yield from (_finding(place, one) for one in _joined(broken))


def _of_text(text: str, context: Context, place: Place, *, alone: bool) -> Iterator[Broken]:
    try:
        nodes = statements(text)
    except postgast.PgQueryError as error:
        yield Broken("syntax-error", f"the parser stops: {str(error).splitlines()[0]}")
        return
    for node in nodes:
        if any(table.relname == _VERSION_TABLE for table in inside(node, pg.RangeVar)):
            continue
        if alone and not _may_leave_transaction(node):
            message = "half of a revision that leaves the transaction stays when it fails"
            yield Broken("mixed-transaction", message)
        yield from _of_node(node, context, place)


def _of_node(node: Message, context: Context, place: Place) -> Iterator[Broken]:
    for rule in (*_EVERY, *_BY_KIND.get(type(node), ())):
        yield from rule(node, context)
    context.schema.apply(node, place)
    if isinstance(node, pg.DoStmt):
        for part in fragments(do_body(node)):
            yield from _of_node(part, context, place)


def _may_leave_transaction(node: Message) -> bool:
    if isinstance(node, pg.IndexStmt):
        return bool(node.concurrent)
    if isinstance(node, pg.DropStmt):
        return bool(node.remove_type == pg.OBJECT_INDEX and node.concurrent)
    if isinstance(node, pg.ReindexStmt):
        return is_on(options(node.params), "concurrently")
    if isinstance(node, pg.AlterEnumStmt):
        return bool(node.skip_if_new_val_exists)
    return isinstance(node, pg.VacuumStmt)


def _joined(found: list[Broken]) -> Iterator[Broken]:
    """One for each rule."""
    for rule in dict.fromkeys(broken.rule for broken in found):
        messages = dict.fromkeys(broken.message for broken in found if broken.rule == rule)
        yield Broken(rule, "; ".join(messages))


def _finding(place: Place, broken: Broken) -> LintFinding:
    remedy = RULES[broken.rule]
    return LintFinding(place.revision, place.number, broken.rule, broken.message, remedy)


def _overridden(revision: Revision, found: list[LintFinding]) -> Iterator[LintFinding]:
    """The findings in order, those with a recorded reason marked; overrides that do nothing."""
    reasons = {
        rule: reason.strip()
        for rule, reason in revision.overrides.items()
        if len(reason.strip()) >= _SHORTEST_REASON
    }
    for finding in sorted(found, key=lambda one: one.statement_number):
        yield msgspec.structs.replace(finding, overridden=reasons.get(finding.rule))
    broken = {finding.rule for finding in found}
    for rule in revision.overrides:
        if (problem := _useless(rule, rule in reasons, rule in broken)) is not None:
            place = Place(revision.id, 0)
            yield _finding(place, Broken("useless-override", f"override of {rule}: {problem}"))


def _useless(rule: str, has_reason: bool, is_broken: bool) -> str | None:  # noqa: FBT001 - two facts, told apart by the one caller
    if rule not in RULES or rule == "useless-override":
        return "there is no such rule"
    if not has_reason:
        return f"the reason has fewer than {_SHORTEST_REASON} characters"
    return None if is_broken else "nothing in this revision breaks the rule"
