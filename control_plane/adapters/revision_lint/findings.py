"""The rules: what each forbids, why, and the safe form; and what is found against one."""

from typing import NamedTuple

import msgspec


class LintFinding(msgspec.Struct, frozen=True):
    """One statement of a revision breaks one rule.

    ``statement_number`` counts the statements of the revision from 1; 0 is the revision as a
    whole. ``overridden`` is the reason the revision records for breaking the rule, else ``None``.
    """

    revision: str
    statement_number: int
    rule: str
    message: str
    remedy: str
    overridden: str | None = None


class Broken(NamedTuple):
    """A rule and what breaks it, before it is known where."""

    rule: str
    message: str


# Rule -> the safe form. docs/revision-lint.md says why for each.
RULES: dict[str, str] = {
    "index-not-concurrent": "CREATE INDEX CONCURRENTLY in a revision of its own, inside "
    "op.get_context().autocommit_block()",
    "drop-index-not-concurrent": "DROP INDEX CONCURRENTLY in a revision of its own, inside "
    "op.get_context().autocommit_block()",
    "reindex-not-concurrent": "REINDEX … CONCURRENTLY in a revision of its own, inside "
    "op.get_context().autocommit_block()",
    "not-null-without-path": "add the column nullable or with a constant DEFAULT; fill it; then "
    "CHECK (column IS NOT NULL) NOT VALID, VALIDATE in the next revision, SET NOT NULL after it",
    "volatile-default": "add the column without a default; SET DEFAULT in a second command; fill "
    "the old rows in batches",
    "column-type-change": "add a column of the new type, write both, fill it in batches, read the "
    "new one, drop the old one in a later release",
    "constraint-not-valid": "ADD CONSTRAINT … NOT VALID, and VALIDATE CONSTRAINT in the next "
    "revision",
    "unique-constraint-without-index": "CREATE UNIQUE INDEX CONCURRENTLY in a revision of its "
    "own, then ADD CONSTRAINT … USING INDEX",
    "cascade": "RESTRICT or NO ACTION; name and remove what depends on it, one by one",
    "unstable-index-predicate": "keep the predicate constant and make the time a key column; the "
    "query says column > now()",
    "rename-column": "add the new column, write both, move the readers, drop the old one in a "
    "later release",
    "rename-table": "make a view of the new name (or move the readers to it first), rename in a "
    "later release",
    "drop-column": "make sure no running application reads it and record why it may go as an "
    "override",
    "drop-table": "make sure no running application reads it and record why it may go as an "
    "override",
    "table-rewrite": "make a new object beside the old one, fill it in batches, change over; or "
    "do it in a maintenance window with an override",
    "lock-table": "take row locks (SELECT … FOR UPDATE) or an advisory lock",
    "mixed-transaction": "leave only the concurrent statements in this revision and move the "
    "others to one that runs in a transaction",
    "concurrent-in-transaction": "put it inside op.get_context().autocommit_block(), in a "
    "revision of its own",
    "session-setting": "SET LOCAL for a timeout or work_mem; a change of role needs "
    "privileged = True in the revision",
    "transaction-control": "remove it: every revision is one transaction of the executor; use "
    "op.get_context().autocommit_block() to leave it",
    "unqualified-name": "write schema.name: search_path is pg_catalog while revisions run",
    "security-definer-without-search-path": "add SET search_path = pg_catalog (or the schemas "
    "that are needed) to the function",
    "grant-to-public": "grant to the application's, the reader's or the auditor's role",
    "foreign-key-without-index": "make an index that begins with the columns of the key and "
    "covers every row",
    "data-change-unbounded": "change rows in batches with a WHERE, outside of the revision if "
    "the table may be big",
    "comment-on-database": "keep it in the catalog: every tenant of the server can read it",
    "dynamic-ddl": "write the DDL as statements of the revision, where it can be checked and "
    "compared",
    "runs-python": "write it as SQL (op.execute works without a connection); if it must be "
    "Python, record why as an override",
    "syntax-error": "mend the statement; one that only a newer Postgres or an extension knows "
    "needs an override",
    "useless-override": "remove it from lint_overrides, or name a rule that this revision breaks, "
    "with a reason of 10 characters or more",
}
