"""Files are replaced whole, privately, and so that PgBouncer notices; the agent's command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.config import child_environment
from control_plane.domain.errors import PoolerUnavailable
from control_plane.router.pgbouncer_files import PoolerFiles


def test_a_file_is_private_and_written_only_when_it_differs(tmp_path: Path) -> None:
    files = PoolerFiles(tmp_path)
    assert files.read("users.txt") is None
    assert files.write("users.txt", "one\n")
    first = (tmp_path / "users.txt").stat()
    assert not files.write("users.txt", "one\n")
    assert (tmp_path / "users.txt").stat() == first
    assert first.st_mode & 0o777 == 0o600
    assert files.write_all({"users.txt": "two\n", "other": "x"}) == ["users.txt", "other"]
    assert files.differing({"users.txt": "two\n", "other": "y", "none": ""}) == ["other", "none"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "users.txt"]


def test_pgbouncer_can_tell_every_version_of_a_file_from_the_others(tmp_path: Path) -> None:
    """It compares inode, size and the date in whole seconds, and inodes come back."""
    files = PoolerFiles(tmp_path)
    dates = []
    for number in range(10):
        files.write("users.txt", f"{number}\n")
        dates.append(int((tmp_path / "users.txt").stat().st_mtime))
    assert len(set(dates)) == 10
    assert dates == sorted(dates)


def test_a_write_that_fails_changes_nothing_and_says_why(tmp_path: Path) -> None:
    files = PoolerFiles(tmp_path)
    (tmp_path / "databases.ini").mkdir()
    with pytest.raises(PoolerUnavailable, match=r"cannot write .*databases\.ini: Is a directory"):
        files.write("databases.ini", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["databases.ini"]
    with pytest.raises(PoolerUnavailable, match="No such file or directory"):
        PoolerFiles(tmp_path / "missing").write("databases.ini", "text")


def agent(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "control_plane.router.agent", *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=child_environment(**environment)
    )


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    misused = agent("--unknown")
    assert (misused.returncode, misused.stderr.count("\n")) == (2, 1)
    assert "--init" in misused.stderr
    unset = agent("--init")
    assert (unset.returncode, unset.stderr.count("\n")) == (2, 1)
    assert "TENANTRY_POOLER_CONSOLE_PASSWORD_FILE" in unset.stderr
    password = tmp_path / "password"
    password.write_text("secret")
    nowhere = agent(
        "--init",
        TENANTRY_POOLER_CONSOLE_PASSWORD_FILE=str(password),
        TENANTRY_POOLER_NAME="p1",
        TENANTRY_POOLER_HOST="127.0.0.1",
        TENANTRY_POOLER_PORT="6432",
        TENANTRY_POOLER_DIR=str(tmp_path / "missing"),
        TENANTRY_POOLER_SOCKET_DIR=str(tmp_path),
    )
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    assert "cannot write" in nowhere.stderr
