"""Every rule finds the statement that breaks it and leaves the safe form alone."""

from typing import NamedTuple

import msgspec
import pytest

from control_plane.adapters.revision_lint import RULES, LintFinding, lint
from control_plane.adapters.revisions import (
    PLAIN_SEARCH_PATH,
    Revision,
    Segment,
    compile_path,
)
from control_plane.config import REPOSITORY

# What every case finds in place, with rows in it.
BASE = (
    "CREATE SCHEMA a",
    "CREATE TABLE a.parent (id uuid PRIMARY KEY)",
    "CREATE TABLE a.t (id bigint PRIMARY KEY, parent_id uuid, x int, note varchar(20), at date)",
    "CREATE INDEX t_x ON a.t (x)",
    "CREATE FUNCTION a.draw() RETURNS int LANGUAGE sql RETURN 4",
    "CREATE MATERIALIZED VIEW a.totals AS SELECT count(*) FROM a.t",
    "CREATE UNIQUE INDEX t_note ON a.t (note)",
)
AUTOCOMMIT = "autocommit:"


class Case(NamedTuple):
    """A statement (or several) that breaks ``rule``, and what to write instead.

    Text that begins with ``autocommit:`` runs outside of a transaction.
    """

    rule: str
    bad: str | tuple[str, ...]
    good: str | tuple[str, ...] = ()


CASES = [
    Case("index-not-concurrent", "CREATE INDEX i ON a.t (at)",
         "autocommit:CREATE INDEX CONCURRENTLY i ON a.t (at)"),
    Case("index-not-concurrent", "CREATE INDEX i ON a.unknown (at)",
         ("CREATE TABLE a.fresh (at date)", "CREATE INDEX i ON a.fresh (at)")),
    Case("index-not-concurrent",
         "DO $$ BEGIN IF true THEN CREATE INDEX i ON a.t (at); END IF; END $$",
         "DO $$ BEGIN RAISE NOTICE 'CREATE INDEX i ON a.t (at);'; END $$"),
    Case("drop-index-not-concurrent", "DROP INDEX a.t_x",
         "autocommit:DROP INDEX CONCURRENTLY a.t_x"),
    Case("reindex-not-concurrent", "REINDEX INDEX a.t_x",
         "autocommit:REINDEX INDEX CONCURRENTLY a.t_x"),
    Case("not-null-without-path", "ALTER TABLE a.t ADD COLUMN y int NOT NULL",
         "ALTER TABLE a.t ADD COLUMN y int NOT NULL DEFAULT 0"),
    Case("not-null-without-path", "ALTER TABLE a.t ADD COLUMN y int NOT NULL DEFAULT NULL::int",
         "ALTER TABLE a.t ADD COLUMN y int"),
    Case("not-null-without-path", "ALTER TABLE a.t ALTER x SET NOT NULL",
         "ALTER TABLE a.t ALTER x DROP NOT NULL"),
    Case("not-null-without-path", "ALTER TABLE a.t ADD CONSTRAINT n NOT NULL x",
         "ALTER TABLE a.t ADD CONSTRAINT n NOT NULL x NOT VALID"),
    Case("volatile-default", "ALTER TABLE a.t ADD y uuid DEFAULT gen_random_uuid()",
         "ALTER TABLE a.t ADD y timestamptz DEFAULT now()"),
    Case("volatile-default",
         "ALTER TABLE a.t ADD y timestamptz DEFAULT pg_catalog.clock_timestamp()",
         "ALTER TABLE a.t ADD y timestamptz, ALTER y SET DEFAULT clock_timestamp()"),
    Case("volatile-default", "ALTER TABLE a.t ADD y bigserial",
         ("CREATE TABLE a.fresh (id int)", "ALTER TABLE a.fresh ADD y bigserial")),
    Case("volatile-default", "ALTER TABLE a.t ADD y int DEFAULT a.draw()",
         "ALTER TABLE a.t ADD y int DEFAULT 2 * 3"),
    Case("column-type-change", "ALTER TABLE a.t ALTER x TYPE bigint",
         "ALTER TABLE a.t ALTER note TYPE varchar(40)"),
    Case("column-type-change", "ALTER TABLE a.t ALTER note TYPE varchar(10)",
         "ALTER TABLE a.t ALTER note TYPE text"),
    Case("column-type-change", "ALTER TABLE a.t ALTER note TYPE text USING upper(note)"),
    Case("constraint-not-valid",
         "ALTER TABLE a.t ADD CONSTRAINT c CHECK (x > 0)",
         "ALTER TABLE a.t ADD CONSTRAINT c CHECK (x > 0) NOT VALID"),
    Case("constraint-not-valid",
         ("ALTER TABLE a.t ADD CONSTRAINT c CHECK (x > 0) NOT VALID",
          "ALTER TABLE a.t VALIDATE CONSTRAINT c"),
         "ALTER TABLE a.t VALIDATE CONSTRAINT from_an_earlier_revision"),
    Case("constraint-not-valid", "ALTER TABLE a.t ADD y int CHECK (y > 0)",
         "ALTER TABLE a.t ADD y int"),
    Case("constraint-not-valid",
         "ALTER TABLE a.t ADD y int DEFAULT 1 REFERENCES a.parent",
         "ALTER TABLE a.t ADD y int"),
    Case("unique-constraint-without-index", "ALTER TABLE a.t ADD CONSTRAINT u UNIQUE (note)",
         "ALTER TABLE a.t ADD CONSTRAINT u UNIQUE USING INDEX t_note"),
    Case("unique-constraint-without-index", "ALTER TABLE a.t ADD y int UNIQUE",
         "ALTER TABLE a.t ADD y int"),
    Case("cascade",
         "CREATE TABLE a.c (id int PRIMARY KEY REFERENCES a.parent ON DELETE CASCADE)",
         "CREATE TABLE a.c (id int PRIMARY KEY REFERENCES a.parent ON DELETE RESTRICT)"),
    Case("cascade",
         "CREATE TABLE a.c (i int UNIQUE, FOREIGN KEY (i) REFERENCES a.parent ON UPDATE SET NULL)",
         "CREATE TABLE a.c (id int UNIQUE, FOREIGN KEY (id) REFERENCES a.parent)"),
    Case("cascade", "DROP FUNCTION a.draw() CASCADE", "DROP FUNCTION a.draw()"),
    Case("cascade", "TRUNCATE a.t CASCADE"),
    Case("cascade", "ALTER TABLE a.t DROP CONSTRAINT t_pkey CASCADE",
         "ALTER TABLE a.t DROP CONSTRAINT t_pkey"),
    Case("unstable-index-predicate",
         "autocommit:CREATE INDEX CONCURRENTLY i ON a.t (x) WHERE at > CURRENT_DATE",
         "autocommit:CREATE INDEX CONCURRENTLY i ON a.t (x, at) WHERE x > 0"),
    Case("unstable-index-predicate",
         "autocommit:CREATE INDEX CONCURRENTLY i ON a.t (x) WHERE at > now()",
         "autocommit:CREATE INDEX CONCURRENTLY i ON a.t (lower(note))"),
    Case("unstable-index-predicate",
         "CREATE FUNCTION a.f() RETURNS date LANGUAGE sql IMMUTABLE AS 'SELECT current_date'",
         "CREATE FUNCTION a.f() RETURNS date LANGUAGE sql STABLE AS 'SELECT current_date'"),
    Case("unstable-index-predicate",
         "CREATE FUNCTION a.f() RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
         "$$ BEGIN RETURN pg_catalog.now(); END $$",
         "CREATE FUNCTION a.f(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
         "$$ BEGIN -- not now()\n RETURN upper(x) || 'now()' || r.user; END $$"),
    Case("rename-column", "ALTER TABLE a.t RENAME note TO remark",
         ("CREATE TABLE a.fresh (x int)", "ALTER TABLE a.fresh RENAME x TO y")),
    Case("rename-table", "ALTER TABLE a.t RENAME TO u", "ALTER INDEX a.t_x RENAME TO t_by_x"),
    Case("rename-table", "ALTER TABLE a.t SET SCHEMA public"),
    Case("rename-table", "ALTER SCHEMA a RENAME TO b"),
    Case("drop-column", "ALTER TABLE a.t DROP COLUMN note", "ALTER TABLE a.t ADD remark text"),
    Case("drop-table", "DROP TABLE a.t", ("CREATE TABLE a.fresh (x int)", "DROP TABLE a.fresh")),
    Case("drop-table", "DROP SCHEMA a"),
    Case("table-rewrite", "ALTER TABLE a.t SET UNLOGGED", "ALTER TABLE a.t SET (fillfactor = 80)"),
    Case("table-rewrite", "ALTER TABLE a.t SET TABLESPACE fast"),
    Case("table-rewrite", "ALTER TABLE a.t ADD y int GENERATED ALWAYS AS (x + 1) STORED",
         "ALTER TABLE a.t ADD y int"),
    Case("table-rewrite", "CLUSTER a.t USING t_x"),
    Case("table-rewrite", "autocommit:VACUUM FULL a.t", "autocommit:VACUUM a.t"),
    Case("table-rewrite", "REFRESH MATERIALIZED VIEW a.totals",
         "REFRESH MATERIALIZED VIEW CONCURRENTLY a.totals"),
    Case("table-rewrite", "ALTER TABLE ALL IN TABLESPACE fast SET TABLESPACE slow"),
    Case("reindex-not-concurrent", "REINDEX (CONCURRENTLY false) TABLE a.t"),
    Case("drop-table", "DROP OWNED BY app"),
    Case("constraint-not-valid", "ALTER DOMAIN a.d ADD CHECK (VALUE > 0)",
         "ALTER DOMAIN a.d ADD CHECK (VALUE > 0) NOT VALID"),
    Case("lock-table", "LOCK TABLE a.t", "SELECT 1 FROM a.t WHERE id = 1 FOR UPDATE"),
    Case("mixed-transaction",
         ("autocommit:CREATE INDEX CONCURRENTLY i ON a.t (x)", "ALTER TABLE a.t ADD y int"),
         ("autocommit:CREATE INDEX CONCURRENTLY i ON a.t (x)",
          "autocommit:ALTER TYPE a.mood ADD VALUE IF NOT EXISTS 'calm'",
          "UPDATE public.alembic_version SET version_num = '2' WHERE version_num = '1'")),
    Case("mixed-transaction", "autocommit:ALTER TYPE a.mood ADD VALUE 'calm'"),
    Case("concurrent-in-transaction", "CREATE INDEX CONCURRENTLY i ON a.t (x)"),
    Case("concurrent-in-transaction", "DROP INDEX CONCURRENTLY a.t_x"),
    Case("concurrent-in-transaction", "REINDEX TABLE CONCURRENTLY a.t"),
    Case("concurrent-in-transaction", "VACUUM a.t", "ANALYZE a.t"),
    Case("session-setting", "SET lock_timeout = '1s'", "SET LOCAL lock_timeout = '1s'"),
    Case("session-setting", "SET LOCAL ROLE someone",
         "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    Case("session-setting", "RESET ALL"),
    Case("session-setting", "SET SESSION AUTHORIZATION someone"),
    Case("session-setting", "DISCARD ALL"),
    Case("session-setting", "SELECT set_config('work_mem', '1GB', false)",
         "SELECT set_config('work_mem', '1GB', true)"),
    Case("transaction-control", "COMMIT", "SELECT 1"),
    Case("transaction-control", "DO $$ BEGIN PERFORM 1; COMMIT; END $$",
         "DO $$ BEGIN PERFORM 1; END $$"),
    Case("unqualified-name", "CREATE TABLE fresh (x int)", "CREATE TABLE a.fresh (x int)"),
    Case("unqualified-name", "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
         "WITH t AS (SELECT 1) SELECT 1 FROM t, pg_class"),
    Case("unqualified-name", "DROP TRIGGER touch ON t", "DROP TRIGGER touch ON a.t"),
    Case("unqualified-name", "CREATE TYPE mood AS ENUM ('calm')",
         "CREATE TYPE a.mood AS ENUM ('calm')"),
    Case("unqualified-name", "autocommit:DROP INDEX CONCURRENTLY t_x"),
    Case("security-definer-without-search-path",
         "CREATE FUNCTION a.f() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1",
         "CREATE FUNCTION a.f() RETURNS int LANGUAGE sql SECURITY DEFINER "
         "SET search_path = pg_catalog RETURN 1"),
    Case("security-definer-without-search-path", "ALTER FUNCTION a.draw() SECURITY DEFINER",
         "ALTER FUNCTION a.draw() SECURITY DEFINER SET search_path = pg_catalog"),
    Case("grant-to-public", "GRANT SELECT ON a.t TO PUBLIC", "GRANT SELECT ON a.t TO app"),
    Case("grant-to-public", "ALTER DEFAULT PRIVILEGES IN SCHEMA a GRANT SELECT ON TABLES TO PUBLIC",
         "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"),
    Case("foreign-key-without-index",
         "CREATE TABLE a.c (id int, parent_id uuid REFERENCES a.parent)",
         ("CREATE TABLE a.c (id int, parent_id uuid REFERENCES a.parent)",
          "CREATE INDEX c_parent ON a.c (parent_id, id)")),
    Case("foreign-key-without-index",
         ("CREATE TABLE a.c (id int, parent_id uuid REFERENCES a.parent)",
          "CREATE INDEX c_parent ON a.c (parent_id) WHERE id > 0"),
         ("CREATE TABLE a.c (id int, parent_id uuid REFERENCES a.parent)",
          "CREATE INDEX c_parent ON a.c (parent_id) WHERE parent_id IS NOT NULL")),
    Case("data-change-unbounded", "UPDATE a.t SET x = 0", "UPDATE a.t SET x = 0 WHERE x IS NULL"),
    Case("data-change-unbounded", "DELETE FROM a.t WHERE true", "DELETE FROM a.t WHERE id = 1"),
    Case("data-change-unbounded", "WITH d AS (DELETE FROM a.t RETURNING 1) SELECT 1 FROM d"),
    Case("data-change-unbounded", "TRUNCATE a.t"),
    Case("data-change-unbounded",
         "DO $$ DECLARE r a.t; BEGIN FOR r IN SELECT 1 LOOP DELETE FROM a.t; END LOOP; END $$",
         "DO $$ BEGIN DELETE FROM a.t WHERE id = 1; END $$"),
    Case("comment-on-database", "COMMENT ON DATABASE d IS 'Acme Clinic'",
         "COMMENT ON TABLE a.t IS 'visits'"),
    Case("dynamic-ddl", "DO $$ BEGIN EXECUTE format('DROP TABLE %I', 'x'); END $$",
         "DO $$ BEGIN GRANT EXECUTE ON FUNCTION a.draw() TO app; END $$"),
    Case("dynamic-ddl", "DO $$ DECLARE q text; BEGIN EXECUTE q; END $$",
         "DO $$ BEGIN EXECUTE 'SELECT 1'; END $$"),
    Case("dynamic-ddl", "DO LANGUAGE plperl $$ 1 $$"),
    Case("syntax-error", "ALTER TABLE a.t FROB x"),
]  # fmt: skip


def revision(
    key: str,
    *texts: str,
    down: str | None = None,
    overrides: dict[str, str] | None = None,
    privileged: bool = False,
) -> Revision:
    segments = [
        Segment((text.removeprefix(AUTOCOMMIT),), not text.startswith(AUTOCOMMIT)) for text in texts
    ]
    return Revision(
        id=key,
        down=down,
        title=key,
        privileged=privileged,
        runs_python=False,
        segments=tuple(segments),
        overrides=overrides or {},
    )


def found(given: str | tuple[str, ...]) -> list[LintFinding]:
    texts = (given,) if isinstance(given, str) else given
    path = [revision("1", *BASE), revision("2", *texts, down="1")]
    return lint(path, frozenset({"1"}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {case.bad}"[:70])
def test_the_statement_is_found_and_its_safe_form_is_not(case: Case) -> None:
    findings = found(case.bad)
    assert case.rule in {finding.rule for finding in findings}
    first = next(finding for finding in findings if finding.rule == case.rule)
    assert (first.revision, first.remedy) == ("2", RULES[case.rule])
    assert found(case.good) == []


def test_every_rule_has_a_case_here_or_below() -> None:
    below = {"runs-python", "useless-override"}
    assert {case.rule for case in CASES} | below == set(RULES)


def test_the_base_of_the_cases_is_itself_clean() -> None:
    assert lint([revision("1", *BASE)]) == []


def test_statements_are_counted_and_one_finding_is_made_for_a_rule() -> None:
    (finding,) = found(
        ("SELECT 1", "ALTER TABLE a.t DROP COLUMN note, DROP COLUMN at", "SELECT 2"),
    )
    assert (finding.statement_number, finding.rule) == (2, "drop-column")
    assert "a.t.note" in finding.message
    assert "a.t.at" in finding.message


def test_set_not_null_is_free_after_a_check_that_was_validated_in_an_earlier_revision() -> None:
    path = [
        revision("1", *BASE),
        revision("2", "ALTER TABLE a.t ADD CONSTRAINT x_set CHECK (x IS NOT NULL) NOT VALID"),
        revision("3", "ALTER TABLE a.t VALIDATE CONSTRAINT x_set"),
        revision("4", "ALTER TABLE a.t ALTER x SET NOT NULL"),
    ]
    assert lint(path) == []
    without_validation = [*path[:2], path[3]]
    assert [f.rule for f in lint(without_validation)] == ["not-null-without-path"]


def test_a_table_counts_as_empty_only_until_somebody_may_have_filled_it() -> None:
    path = [
        revision("1", *BASE),
        revision("2", "CREATE TABLE a.fresh (x int)"),
        revision("3", "CREATE INDEX i ON a.fresh (x)"),
    ]
    assert [f.rule for f in lint(path)] == ["index-not-concurrent"]
    assert lint(path, frozenset({"1"})) == []
    assert [f.rule for f in lint(path, frozenset({"1", "2"}))] == ["index-not-concurrent"]


def test_only_what_no_database_has_is_reported() -> None:
    path = [revision("1", *BASE), revision("2", "DROP TABLE a.t"), revision("3", "SELECT 1")]
    assert [f.revision for f in lint(path)] == ["2"]
    assert lint(path, frozenset({"1", "2"})) == []


def test_dropping_the_last_index_of_a_foreign_key_is_blamed_on_the_drop() -> None:
    path = [
        revision(
            "1",
            *BASE,
            "CREATE TABLE a.c (parent_id uuid REFERENCES a.parent)",
            "CREATE INDEX c_parent ON a.c (parent_id)",
        ),
        revision("2", "autocommit:DROP INDEX CONCURRENTLY a.c_parent"),
    ]
    assert [(f.revision, f.rule) for f in lint(path)] == [("2", "foreign-key-without-index")]


def test_an_index_on_a_function_that_only_says_immutable_is_found_where_it_is_made() -> None:
    lie = "CREATE FUNCTION a.f() RETURNS date LANGUAGE sql IMMUTABLE RETURN current_date"
    path = [
        revision("1", *BASE, lie),
        revision("2", "autocommit:CREATE INDEX CONCURRENTLY i ON a.t (x) WHERE at > a.f()"),
    ]
    assert [(f.revision, f.rule) for f in lint(path)] == [
        ("1", "unstable-index-predicate"),
        ("2", "unstable-index-predicate"),
    ]


def test_types_that_widen_in_the_catalog_alone() -> None:
    table = "CREATE TABLE a.w (n numeric(10, 2), v varchar(5), t text, z timestamptz(3), i int)"
    widening = [
        ("n", "numeric(12, 2)", True),
        ("n", "numeric", True),
        ("n", "numeric(12, 4)", False),
        ("n", "numeric(9, 2)", False),
        ("v", "varchar", True),
        ("t", "varchar", True),
        ("t", "varchar(9)", False),
        ("z", "timestamptz(6)", True),
        ("i", "text", False),
        ("i", "int[]", False),
        ("missing", "text", False),
    ]
    for column, kind, free in widening:
        path = [
            revision("1", "CREATE SCHEMA a", table),
            revision("2", f"ALTER TABLE a.w ALTER {column} TYPE {kind}"),
        ]
        assert (lint(path) == []) is free, (column, kind)


def test_a_recorded_reason_overrides_every_finding_of_its_rule_in_the_revision() -> None:
    reasons = {"drop-column": "no release since 2024 reads it"}
    text = "ALTER TABLE a.t DROP COLUMN note"
    path = [revision("1", *BASE), revision("2", text, "DROP TABLE a.t", overrides=reasons)]
    assert [(f.rule, f.overridden) for f in lint(path)] == [
        ("drop-column", reasons["drop-column"]),
        ("drop-table", None),
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"no-such-rule": "a reason that is long enough"}, "no such rule"),
        ({"drop-column": "a reason that is long enough"}, "nothing in this revision"),
        ({"lock-table": "short"}, "fewer than 10"),
        ({"useless-override": "a reason that is long enough"}, "no such rule"),
    ],
)
def test_an_override_that_does_nothing_is_a_finding(override: dict[str, str], said: str) -> None:
    path = [revision("1", *BASE), revision("2", "LOCK TABLE a.t", overrides=override)]
    locked, useless = lint(path)
    assert (locked.rule, locked.overridden) == ("lock-table", None)
    assert (useless.rule, useless.overridden) == ("useless-override", None)
    assert said in useless.message


def test_a_privileged_revision_may_change_its_role() -> None:
    path = [revision("1", "SET LOCAL ROLE auditor", privileged=True)]
    assert lint(path) == []


def test_a_plain_environment_finds_names_in_public() -> None:
    texts = {"1": "CREATE TABLE t (x int)", "2": "CREATE INDEX i ON t (x)"}
    aware = [revision(key, text) for key, text in texts.items()]
    plain = [msgspec.structs.replace(one, search_path=PLAIN_SEARCH_PATH) for one in aware]
    assert [f.rule for f in lint(plain)] == ["index-not-concurrent"]
    assert [f.rule for f in lint(aware)].count("unqualified-name") == len(texts)


def test_a_revision_that_runs_python_cannot_be_judged() -> None:
    python = Revision(
        id="1",
        down=None,
        title="fill",
        privileged=False,
        runs_python=True,
        segments=(),
        overrides={"runs-python": "fills a column with hashes made in Python"},
    )
    (finding,) = lint([python])
    assert (finding.rule, finding.statement_number) == ("runs-python", 0)
    assert finding.overridden == "fills a column with hashes made in Python"


def test_the_clinic_and_its_recorded_reasons_are_clean() -> None:
    path = compile_path(REPOSITORY / "tenant_template")
    assert [f for f in lint(path) if f.overridden is None] == []
