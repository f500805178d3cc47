"""Revisions compiled to SQL: what each statement says, where transactions end, what is refused."""

import logging
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from control_plane.adapters.revisions import Revision, Segment, bind_roles, compile_path
from control_plane.config import REPOSITORY
from control_plane.domain.errors import Invalid, SchemaMismatch
from control_plane.domain.names import RoleSet

CLINIC = REPOSITORY / "tenant_template"
LAB = REPOSITORY / "tests" / "templates" / "lab"
PLAIN = REPOSITORY / "tests" / "templates" / "plain"
RECORD = "UPDATE {0} SET version_num='{1}' WHERE {0}.version_num = '{2}'"
HEADER = """'''{title}'''
import sqlalchemy as sa
from alembic import context, op
revision = {revision!r}
down_revision = {down!r}
"""


def template(place: Path, *bodies: str) -> Path:
    """A template in ``place``: revisions 1, 2, … with these bodies, and the environment of lab."""
    (place / "versions").mkdir()
    for file in ("alembic.ini", "env.py"):
        (place / file).write_text((LAB / file).read_text())
    for number, body in enumerate(bodies, 1):
        down = str(number - 1) if number > 1 else None
        header = HEADER.format(title=f"Step {number}", revision=str(number), down=down)
        (place / "versions" / f"{number}.py").write_text(header + body)
    return place


def upgrade(*lines: str) -> str:
    return "\n    ".join(("def upgrade():", *lines))


def statements(place: Path, *lines: str) -> tuple[str, ...]:
    """The statements of one revision with these lines, without those of the version table."""
    (compiled,) = compile_path(template(place, upgrade(*lines)))
    assert [segment.transactional for segment in compiled.segments] == [True]
    create, *middle, record = compiled.segments[0].statements
    assert create.startswith("CREATE TABLE public.alembic_version")
    assert record.startswith("INSERT INTO public.alembic_version (version_num) VALUES ('1')")
    return tuple(middle)


def test_the_lab_is_compiled_segment_by_segment() -> None:
    first, second, third = compile_path(LAB)
    assert (first.id, first.down, first.title) == (
        "0001",
        None,
        "Samples and what is measured in them.",
    )
    assert first.transactional
    assert first.segments[0].statements[2] == (
        "GRANT USAGE ON SCHEMA lab TO cp_template_app, cp_template_ro"
    )
    assert second.segments == (
        Segment(
            ("CREATE INDEX CONCURRENTLY IF NOT EXISTS taken ON lab.sample (taken_at)",),
            transactional=False,
        ),
        Segment(
            (RECORD.format("public.alembic_version", "0002", "0001"),),
            transactional=True,
        ),
    )
    assert not second.transactional
    assert (third.runs_python, third.segments, third.down) == (True, (), "0002")
    assert third.overrides == {
        "runs-python": "it looks whether a laboratory has samples",
    }
    assert {revision.search_path for revision in (first, second, third)} == {"pg_catalog"}


def test_a_plain_environment_is_compiled_and_leaves_no_trace() -> None:
    level, paths = logging.getLogger().level, list(sys.path)
    first, second = compile_path(PLAIN)
    assert (level, paths) == (logging.getLogger().level, sys.path)
    assert "models" not in sys.modules
    assert not list(PLAIN.rglob("__pycache__/*3f1c*"))
    assert (first.search_path, first.title, second.title) == ("public", "notes", "author")
    assert [text.split(" (")[0] for text in first.segments[0].statements[1:4]] == [
        "CREATE TYPE mood AS ENUM",
        "CREATE TABLE note",
        "CREATE FUNCTION notes() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM note'",
    ]
    assert "DEFAULT 'it''s 100%: fine'" in first.segments[0].statements[2]
    assert second.segments == (
        Segment(
            (
                "ALTER TABLE note ADD COLUMN author VARCHAR(80)",
                "CREATE INDEX note_author ON note (author)",
                RECORD.format("alembic_version", "8ab2", "3f1c"),
            ),
            transactional=True,
        ),
    )


def test_the_clinic_is_written_for_the_placeholders_and_bound_to_a_tenant() -> None:
    roles = RoleSet(UUID(int=1))
    text = "\n".join(
        statement
        for revision in compile_path(CLINIC)
        for segment in revision.segments
        for statement in segment.statements
    )
    assert "GRANT USAGE ON SCHEMA patients TO cp_template_app" in text
    assert "SET lock_timeout = '5s'" not in text
    bound = bind_roles(text, roles)
    assert f"GRANT USAGE ON SCHEMA patients TO {roles.app}" in bound
    assert "cp_template_" not in bound


def test_only_whole_names_are_bound() -> None:
    roles = RoleSet(UUID(int=1))
    text = (
        "cp_template_owner cp_template_app cp_template_audit cp_template_ro cp_template_role "
        "x_cp_template_app"
    )
    assert bind_roles(text, roles).split() == [
        roles.owner,
        roles.app,
        roles.auditor,
        roles.reader,
        "cp_template_role",
        "x_cp_template_app",
    ]


def test_text_arrives_as_it_was_written(tmp_path: Path) -> None:
    body = "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$\n\tSELECT 'a;b' -- 50%\n$$"
    found = statements(
        tmp_path,
        f"op.execute({body!r})",
        r"op.execute('COMMENT ON FUNCTION f() IS $$\\d: 100%, é$$;SELECT 1 -- the end')",
        "op.execute('/* nothing */ -- at all')",
        "op.execute('SELECT 2 -- two\\n; -- three\\nSELECT 3')",
    )
    assert found == (
        body,
        "COMMENT ON FUNCTION f() IS $$\\d: 100%, é$$",
        "SELECT 1",
        "SELECT 2",
        "SELECT 3",
    )


def test_values_become_literals(tmp_path: Path) -> None:
    found = statements(
        tmp_path,
        "kind = op.create_table('kind', sa.Column('name', sa.Text), sa.Column('n', sa.Integer))",
        r"""rows = [{'name': "it's 100% a\\b\t:c", 'n': 1}, {'name': None, 'n': 2}]""",
        "op.bulk_insert(kind, rows)",
        "op.execute(sa.text('UPDATE kind SET n = :n').bindparams(n=3))",
        "op.get_bind().execute(kind.update().values(name='x').where(kind.c.n == 2))",
    )
    assert found[1:] == (
        "INSERT INTO kind (name, n) VALUES ('it''s 100% a\\b\t:c', 1)",
        "INSERT INTO kind (name, n) VALUES (NULL, 2)",
        "UPDATE kind SET n = 3",
        "UPDATE kind SET name='x' WHERE kind.n = 2",
    )


ASKS = {
    "a scalar": "op.get_bind().execute(sa.text('SELECT 1')).scalar()",
    "a truth": "op.get_bind().execute(sa.text('SELECT 1')) or None",
    "rows": "[row for row in op.get_bind().execute(sa.text('SELECT 1'))]",
    "values": "op.get_bind().execute(sa.text('SELECT :a'), {'a': 1})",
    "the driver": "op.get_bind().exec_driver_sql('SELECT 1')",
    "the context": "op.get_context().bind.execute(sa.text('SELECT 1')).one()",
    "an inspector": "sa.inspect(op.get_bind()).get_table_names()",
    "a session": "from sqlalchemy.orm import Session; Session(op.get_bind()).scalar(sa.select(1))",
    "a literal of no type": "op.execute(sa.select(sa.bindparam('x', object())))",
}


@pytest.mark.parametrize("line", ASKS.values(), ids=ASKS.keys())
def test_a_revision_that_asks_the_database_is_left_to_alembic(tmp_path: Path, line: str) -> None:
    plain = upgrade("op.execute('SELECT 1')")
    asking = upgrade("op.execute('SELECT 1')", line)
    compiled = compile_path(template(tmp_path, plain, asking, plain))
    assert [revision.runs_python for revision in compiled] == [False, True, False]
    assert compiled[1].segments == ()
    assert compiled[2].segments[0].statements[-1].endswith("version_num = '2'")


def test_a_question_that_is_caught_is_still_a_question(tmp_path: Path) -> None:
    body = upgrade(
        "try:",
        "    op.get_bind().execute(sa.text('SELECT 1')).scalar()",
        "except Exception:",
        "    op.execute('SELECT 2')",
    )
    (compiled,) = compile_path(template(tmp_path, body))
    assert compiled.runs_python


def test_a_block_outside_of_the_transaction_parts_what_is_around_it(tmp_path: Path) -> None:
    body = upgrade(
        "op.execute('SELECT 1')",
        "with op.get_context().autocommit_block():",
        "    op.execute('SELECT 2; SELECT 3')",
        "op.execute('SELECT 4')",
    )
    compiled = compile_path(template(tmp_path, upgrade("pass"), body))[1]
    assert [(s.transactional, s.statements[0]) for s in compiled.segments] == [
        (True, "SELECT 1"),
        (False, "SELECT 2"),
        (True, "SELECT 4"),
    ]
    assert compiled.segments[1].statements == ("SELECT 2", "SELECT 3")
    assert len(compiled.segments[2].statements) == 2


def test_marks_of_a_revision(tmp_path: Path) -> None:
    body = "privileged = True\nlint_overrides = {'cascade': 'nobody refers to it'}\n"
    (compiled,) = compile_path(template(tmp_path, body + upgrade("pass")))
    assert (compiled.privileged, compiled.overrides) == (True, {"cascade": "nobody refers to it"})
    assert not compiled.runs_python


def test_a_compiled_path_is_kept_as_json() -> None:
    for directory in (CLINIC, LAB, PLAIN):
        compiled = compile_path(directory)
        assert msgspec.json.decode(msgspec.json.encode(compiled), type=tuple[Revision, ...]) == (
            compiled
        )


def test_a_target_before_the_head() -> None:
    assert [revision.id for revision in compile_path(LAB, "0002")] == ["0001", "0002"]
    with pytest.raises(Invalid, match=r"no revision '0009'; it has 0001, 0002, 0003$"):
        compile_path(LAB, "0009")


WRONG = {
    "a syntax error": ("def upgrade(:", r"versions/1\.py line 6: SyntaxError"),
    "an error at import": ("nothing", r"versions/1\.py line 6: NameError"),
    "an error in upgrade": (upgrade("nothing()"), r"versions/1\.py line 7: NameError"),
    "no upgrade": ("", "AttributeError"),
    "SQL that nobody reads": (upgrade("op.execute('SELEC 1')"), r"1: Postgres would not read it"),
    "privileged": ("privileged = 1\n" + upgrade("pass"), "privileged is 1; write True or False"),
    "overrides": ("lint_overrides = ['a']\n" + upgrade("pass"), "lint_overrides is not"),
}


@pytest.mark.parametrize(("body", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_code_is_named(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(SchemaMismatch, match=f"^template {tmp_path.name}: .*{message}"):
        compile_path(template(tmp_path, body))


SHAPES = {
    "two heads": ("'1'", "found 2 head revisions"),
    "a merge": ("('1', '2')", "revision 3 joins branches"),
    "a gap": ("'9'", "Revision 9 referenced from"),
    "one id twice": ("'1'\nrevision = '2'", "Revision 2 is present more than once"),
}


@pytest.mark.parametrize(("down", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_revisions_that_are_no_line_are_refused(tmp_path: Path, down: str, message: str) -> None:
    place = template(tmp_path, upgrade("pass"), upgrade("pass"))
    body = f"revision = '3'\ndown_revision = {down}\n{upgrade('pass')}"
    (place / "versions" / "3.py").write_text(body)
    with pytest.raises(SchemaMismatch, match=message):
        compile_path(place)


ENVIRONMENTS = {
    "another version table": (
        "version_table_schema='meta', version_table='v'",
        r"must be public\.alembic_version, not meta\.v; leave version_table",
    ),
    "online only": (None, "no migrations when"),
    "an exit": ("url=exit('not offline')", "SystemExit: not offline"),
}


@pytest.mark.parametrize(("options", "message"), ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_an_environment_that_cannot_be_used_is_explained(
    tmp_path: Path, options: str | None, message: str
) -> None:
    place = template(tmp_path, upgrade("pass"))
    run = f"context.configure(dialect_name='postgresql', {options})\ncontext.run_migrations()\n"
    (place / "env.py").write_text("from alembic import context\n" + (run if options else ""))
    with pytest.raises(SchemaMismatch, match=message):
        compile_path(place)


def test_a_directory_without_an_environment_or_a_revision(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="name a directory that alembic init made"):
        compile_path(tmp_path)
    with pytest.raises(SchemaMismatch, match="exactly one head revision is wanted, found none"):
        compile_path(template(tmp_path))


@pytest.mark.parametrize("owner", [(), ("-x", "owner=my_owner")], ids=["nobody", "an owner"])
def test_the_clinics_sql_is_printed_by_hand_for_a_named_owner(owner: tuple[str, ...]) -> None:
    command = (sys.executable, "-B", "-m", "alembic", *owner, "upgrade", "head", "--sql")
    done = subprocess.run(command, cwd=CLINIC, capture_output=True, text=True, check=False)
    assert ("GRANT USAGE ON SCHEMA patients TO my_owner" in done.stdout) == bool(owner)
    assert ("name the owner: alembic -x owner=ROLE" in done.stderr) == (not owner)
    assert "statement_timeout" not in done.stdout


def test_ten_revisions_are_compiled_in_half_a_second(tmp_path: Path) -> None:
    body = upgrade(*(f"op.execute('CREATE TABLE public.t{n} (id int)')" for n in range(20)))
    place = template(tmp_path, *[body] * 10)
    began = time.perf_counter()
    assert len(compile_path(place)) == 10
    assert time.perf_counter() - began < 0.5
