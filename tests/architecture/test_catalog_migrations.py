"""Catalog migrations expand; one that takes something away says what code can do without it.

While an upgrade rolls, processes of the release before work on the new schema. A column they read
must still be there, and a row they write must be one that is let in.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import postgast
import pytest
from postgast import pg_query_pb2 as pg

from control_plane.catalog import migrate

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"
# Nobody ran a release before them side by side with another one.
RELEASED_TOGETHER = ("0001", "0002", "0003", "0004", "0005")
CONTRACT = re.compile(r'^contract = "(\d{4})"$', re.MULTILINE)
NEEDS = "UPDATE catalog_place SET needs_code = '{}'"
TAKING_AWAY = {
    pg.AT_DropColumn: "drops a column",
    pg.AT_AlterColumnType: "changes a column's type",
    pg.AT_SetNotNull: "forbids NULL",
    pg.AT_AddConstraint: "adds a constraint to what is there",
}
DROPPED = {pg.OBJECT_TABLE: "a table", pg.OBJECT_FUNCTION: "a function", pg.OBJECT_TYPE: "a type"}


def contractions(sql: str) -> Iterator[str]:
    """What of a migration the code before it may stumble over, in words."""
    statements = [postgast.unwrap_node(raw.stmt) for raw in postgast.parse(sql).stmts]
    made = {node.relation.relname for node in statements if isinstance(node, pg.CreateStmt)}
    for node in statements:
        if isinstance(node, pg.RenameStmt):
            yield "renames something"
        elif isinstance(node, pg.DropStmt) and node.remove_type in DROPPED:
            yield f"drops {DROPPED[node.remove_type]}"
        elif isinstance(node, pg.AlterTableStmt) and node.relation.relname not in made:
            for command in map(postgast.unwrap_node, node.cmds):
                yield from _of_command(command)


def _of_command(command: Any) -> Iterator[str]:
    if command.subtype in TAKING_AWAY:
        yield TAKING_AWAY[command.subtype]
    if command.subtype == pg.AT_AddColumn:
        column = postgast.unwrap_node(getattr(command, "def"))
        kinds = {postgast.unwrap_node(each).contype for each in column.constraints}
        if pg.CONSTR_NOTNULL in kinds and pg.CONSTR_DEFAULT not in kinds:
            yield f"adds {column.colname}, which old code does not fill"


def problems(name: str, python: str, sql: str) -> list[str]:
    found = sorted(set(contractions(sql)))
    contract = CONTRACT.search(python)
    if not found or (contract and NEEDS.format(contract[1]) in " ".join(sql.split())):
        return []
    remedy = f'in a migration with contract = "NNNN" and {NEEDS.format("NNNN")}'
    return [f"{name} {', '.join(found)}: do that a release later, {remedy}"]


@pytest.mark.parametrize(
    "script", [p for p in sorted(VERSIONS.glob("0*.py")) if p.name[:4] not in RELEASED_TOGETHER]
)
def test_migrations_expand_or_say_that_they_contract(script: Path) -> None:
    sql = script.with_suffix(".sql")
    assert sql.exists(), "a migration is a file of SQL, which can be read here"
    assert problems(script.stem, script.read_text(), sql.read_text()) == []


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("ALTER TABLE tenants DROP COLUMN name", "drops a column"),
        ("ALTER TABLE tenants RENAME COLUMN name TO title", "renames something"),
        ("ALTER TABLE tenants RENAME TO clinics", "renames something"),
        ("DROP TABLE tenants", "drops a table"),
        ("DROP FUNCTION f()", "drops a function"),
        ("ALTER TABLE tenants ALTER COLUMN region SET NOT NULL", "forbids NULL"),
        ("ALTER TABLE tenants ALTER COLUMN region TYPE integer USING 1", "changes a column's type"),
        ("ALTER TABLE tenants ADD COLUMN x text NOT NULL", "adds x, which old code does not fill"),
        ("ALTER TABLE tenants ADD CONSTRAINT c CHECK (x > 0)", "adds a constraint"),
    ],
)
def test_what_old_code_would_stumble_over_is_refused(sql: str, words: str) -> None:
    (problem,) = problems("0099_x", 'revision = "0099"\n', sql)
    assert words in problem
    assert problems("0099_x", 'contract = "0098"\n', sql), "it must tell the catalog, too"
    told = "; ".join((sql, NEEDS.format("0098")))
    assert problems("0099_x", 'contract = "0098"\n', told) == []


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE x (a text NOT NULL); ALTER TABLE x ADD CONSTRAINT c CHECK (a <> '')",
        "ALTER TABLE tenants ADD COLUMN x text NOT NULL DEFAULT ''",
        "ALTER TABLE tenants ADD COLUMN x text",
        "CREATE INDEX i ON tenants (name); DROP INDEX i",
    ],
)
def test_what_only_adds_is_let_through(sql: str) -> None:
    assert problems("0099_x", "", sql) == []
