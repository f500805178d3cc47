"""``tenantry revisions lint``: files in, findings and an exit code out."""

import json
from pathlib import Path

import pytest

from control_plane.cli.main import main
from control_plane.cli.problems import Exit

ENV = """
from alembic import context

context.configure(dialect_name="postgresql")
with context.begin_transaction():
    context.run_migrations()
"""
REVISIONS = {
    "1": 'op.execute("CREATE TABLE t (x int, y int)")',
    "2": 'op.create_index("t_x", "t", ["x"])',
    "3": 'op.drop_column("t", "y")',
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "versions").mkdir()
    (tmp_path / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s\npath_separator = os\n"
    )
    (tmp_path / "env.py").write_text(ENV)
    down = None
    for key, body in REVISIONS.items():
        text = f"from alembic import op\nrevision = {key!r}\ndown_revision = {down!r}\n"
        (tmp_path / "versions" / f"{key}.py").write_text(f"{text}\ndef upgrade():\n    {body}\n")
        down = key
    return tmp_path


def test_findings_are_printed_with_their_remedy_and_fail_the_command(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["revisions", "lint", str(directory)]) == Exit.FAILED
    shown = capsys.readouterr().out
    assert "2 statement 1: index-not-concurrent: " in shown
    assert "CREATE INDEX CONCURRENTLY in a revision of its own" in shown
    assert shown.splitlines()[-1] == "2 findings: 3 revisions read"


def test_only_later_revisions_are_reported_and_a_recorded_reason_passes(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (directory / "versions" / "3.py").open("a") as file:
        file.write('lint_overrides = {"drop-column": "nothing has read it since May"}\n')
    assert main(["revisions", "lint", str(directory), "--from", "2", "--json"]) == Exit.DONE
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["revision"], finding["rule"]) == ("3", "drop-column")
    assert finding["overridden"] == "nothing has read it since May"


def test_an_unknown_start_and_a_directory_without_a_template_are_named(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["revisions", "lint", str(directory), "--from", "9"]) == Exit.USAGE
    assert "--from 9: there is no such revision; there are 1, 2, 3" in capsys.readouterr().err
    assert main(["revisions", "lint", str(tmp_path / "nowhere")]) == Exit.FAILED
    assert "alembic.ini" in capsys.readouterr().err
