"""Templates read from their directories, again whenever a file changes."""

import os
import shutil
import time
from pathlib import Path

import pytest

from control_plane.adapters.template_files import Templates, content_fingerprint, head_revision
from control_plane.config import REPOSITORY
from control_plane.domain.errors import Invalid, SchemaMismatch

LAB = REPOSITORY / "tests" / "templates" / "lab"
PLAIN = REPOSITORY / "tests" / "templates" / "plain"
STALE_SECONDS = 0.55


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LAB, tmp_path / "lab"))


def test_the_fingerprint_is_of_names_and_bytes_that_shape_the_schema(lab: Path) -> None:
    first = content_fingerprint(lab)
    assert len(first) == 16
    assert first == content_fingerprint(LAB)
    for aside in (
        "README.md",
        "client/x.py",
        "queries/x.sql",
        "versions/__pycache__/x.py",
        ".x.py",
    ):
        (lab / aside).parent.mkdir(exist_ok=True)
        (lab / aside).write_text("not part of it")
    assert content_fingerprint(lab) == first
    revision = lab / "versions" / "0002_taken_index.py"
    revision.write_text(revision.read_text() + "\n")
    second = content_fingerprint(lab)
    revision.rename(revision.with_name("0002_index.py"))
    assert len({first, second, content_fingerprint(lab)}) == 3


def test_two_classes_of_equal_files_stay_apart() -> None:
    found = {content_fingerprint(LAB, name) for name in ("clinic", "lab", "laboratory")}
    assert len(found) == 3
    assert content_fingerprint(LAB) == content_fingerprint(LAB, "clinic")


def test_the_head_is_that_of_the_environment(tmp_path: Path) -> None:
    assert (head_revision(LAB), head_revision(PLAIN)) == ("0003", "8ab2")
    with pytest.raises(SchemaMismatch, match="alembic init"):
        head_revision(tmp_path)


def test_a_class_is_known_by_name(lab: Path) -> None:
    templates = Templates({"lab": lab, "plain": PLAIN})
    assert templates.names == ("lab", "plain")
    found = templates.current("lab")
    assert (found.name, found.directory, found.revision) == ("lab", lab, "0003")
    assert found.fingerprint == content_fingerprint(lab, "lab")
    with pytest.raises(Invalid, match="no template 'dental'; the known ones are lab, plain"):
        templates.current("dental")


def test_a_revision_that_is_dropped_in_is_noticed(lab: Path) -> None:
    templates = Templates({"lab": lab})
    before = templates.current("lab")
    new = lab / "versions" / "0004_more.py"
    new.write_text("revision = '0004'\ndown_revision = '0003'\ndef upg")
    time.sleep(STALE_SECONDS)
    for _ in range(2):
        with pytest.raises(SchemaMismatch, match=r"lab: versions/0004_more\.py line 3: SyntaxE"):
            templates.current("lab")
    new.write_text("revision = '0004'\ndown_revision = '0003'\nupgrade = print\n")
    time.sleep(STALE_SECONDS)
    after = templates.current("lab")
    assert (after.revision, after.fingerprint == before.fingerprint) == ("0004", False)
    new.unlink()
    time.sleep(STALE_SECONDS)
    assert templates.current("lab") == before


def test_a_fresh_look_reads_the_files_whatever_their_times_say(lab: Path) -> None:
    templates = Templates({"lab": lab})
    before = templates.current("lab")
    revision = lab / "versions" / "0002_taken_index.py"
    facts, text = revision.stat(), revision.read_text()
    revision.write_text(text[:-1] + "#")
    os.utime(revision, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert templates.current("lab") == before
    after = templates.fresh("lab")
    assert after.fingerprint == content_fingerprint(lab, "lab") != before.fingerprint
    assert templates.current("lab") == after


def test_a_directory_that_goes_away_is_not_remembered(lab: Path) -> None:
    templates = Templates({"lab": lab})
    templates.current("lab")
    shutil.rmtree(lab)
    time.sleep(STALE_SECONDS)
    with pytest.raises(SchemaMismatch, match=r"no alembic\.ini"):
        templates.current("lab")
    with pytest.raises(SchemaMismatch, match=r"no alembic\.ini"):
        Templates({"lab": lab}).current("lab")


def test_looking_again_is_cheap() -> None:
    templates = Templates({"clinic": REPOSITORY / "tenant_template"})
    templates.current("clinic")
    began = time.perf_counter()
    for _ in range(1000):
        templates.current("clinic")
    assert time.perf_counter() - began < 0.2
