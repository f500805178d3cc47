import errno
import stat
from pathlib import Path

import pytest

from deploy.local.account import service_account
from deploy.local.files import secret_once, write_whole
from deploy.local.layout import LONGEST_SOCKET_DIRECTORY, MARKER, Layout, forget
from deploy.local.logs import log_since, open_log, trim
from deploy.local.problem import StackError, one_line


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_whole(path, "old", 0o644)
    write_whole(path, "new", 0o600)
    assert path.read_text() == "new"
    assert _mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["facts.json"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_whole(path, "old", 0o644)
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800", 0o644)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["facts.json"]


def test_a_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "x.password"
    first = secret_once(path)
    assert len(first) >= 43
    assert secret_once(path) == first
    assert secret_once(tmp_path / "y.password") != first
    assert _mode(path) == 0o600


def test_a_directory_with_somebody_elses_files_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(StackError, match="TENANTRY_HOME"):
        Layout(tmp_path).prepare(None, 0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_home_that_no_configuration_file_could_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="use letters, digits"):
        Layout(tmp_path / "my stacks").claim(None)
    assert list(tmp_path.iterdir()) == []


def test_only_a_marked_directory_is_forgotten(tmp_path: Path) -> None:
    home = tmp_path / "home"
    layout = Layout(home)
    layout.prepare(None, 0)
    assert _mode(home / "secrets") == 0o700
    (home / MARKER).unlink()
    with pytest.raises(StackError, match="nothing was deleted"):
        forget(layout)
    assert home.exists()
    (home / MARKER).touch()
    forget(layout)
    assert not home.exists()


def test_a_nearly_full_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"is full; free some space .*MiB needed"):
        Layout(tmp_path / "home").prepare(None, 1 << 60)


def test_a_long_home_still_gets_short_socket_paths(tmp_path: Path) -> None:
    long = Layout(tmp_path / ("x" * 120))
    assert len(str(long.pooler_socket("p1"))) <= LONGEST_SOCKET_DIRECTORY
    assert long.run != Layout(tmp_path / ("y" * 120)).run
    short = Layout(Path("/var/lib/tenantry"))
    assert short.run == short.home / "run"


def test_a_home_below_a_closed_directory_is_refused_when_root(tmp_path: Path) -> None:
    account = service_account()
    if account is None:
        Layout(tmp_path / "home").prepare(None, 0)
        return
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(StackError, match=f"cannot enter {closed}|cannot enter /"):
        Layout(closed / "home").prepare(account, 0)


def test_every_problem_becomes_one_line() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/x/y")
    assert one_line(full).startswith("the disk of /x/y is full; free some space")
    group = ExceptionGroup("all", [StackError("first\nproblem"), ValueError("second")])
    assert one_line(group) == "first problem"
    assert one_line(ValueError("odd\nthing")) == "ValueError: odd thing"


def test_an_overgrown_log_is_kept_once_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with open_log(log) as writer:
        writer.write(b"old " * 100)
        writer.flush()
        trim(log, 1000)
        assert log.stat().st_size == 400
        trim(log, 399)
        writer.write(b"new")
        writer.flush()
    assert log.read_text() == "new"
    assert (tmp_path / "api.log.1").read_text() == "old " * 100
    assert {_mode(path) for path in tmp_path.iterdir()} == {0o600}
    assert log_since(log, 1) == "ew"
    assert log_since(log, 100) == ""
