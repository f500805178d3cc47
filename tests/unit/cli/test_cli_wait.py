import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli import following
from control_plane.cli.sse import event_data
from tests.unit.cli.canned_api import (
    TOKEN,
    Answer,
    CannedApi,
    done,
    events,
    operation,
    problem,
    step,
)
from tests.unit.cli.conftest import Run

EVENTS = "/v1/operations/op_1/events"
PLAIN = "/v1/operations/op_1"
CREATED = Answer(202, operation("pending", step("create_roles"), step("activate")))
ROLES_DONE = operation(
    "running", done("create_roles", 12, "claimed from the pool"), step("activate")
)
SUCCEEDED = operation(
    "succeeded", done("create_roles", 12, "claimed from the pool"), done("activate", 3)
)


def test_without_wait_the_way_to_follow_is_told(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants", CREATED)

    result = run("tenants", "create", "acme")

    assert result.code == 0
    assert result.stdout == "op_1 provision acme pending\n"
    assert result.stderr == "follow it with: tenantry operations watch op_1\n"


def test_wait_prints_one_line_for_each_step_and_the_total(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, events(CREATED.body, ROLES_DONE, SUCCEEDED))

    result = run("tenants", "create", "acme", "--wait")

    assert result.code == 0
    assert result.stdout.splitlines() == [
        "provision acme",
        "  ✓ create_roles        12 ms  claimed from the pool",
        "  ✓ activate             3 ms",
        "provision acme: succeeded after 412 ms",
    ]


def test_a_stream_that_breaks_is_opened_again(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on(
        "GET",
        EVENTS,
        events(ROLES_DONE, ends=False),
        Answer(hang_up=True),
        events(ROLES_DONE, SUCCEEDED),
    )
    canned.on("GET", PLAIN, ROLES_DONE)

    result = run("tenants", "create", "acme", "--wait")

    assert result.code == 0
    assert result.stdout.count("create_roles") == 1
    assert len(canned.requests("GET", EVENTS)) == 3


@pytest.mark.parametrize(
    "refusal",
    [
        problem(404, "not_found", "no streams here"),
        problem(405, "method_not_allowed", "no streams here"),
        problem(500, "internal_error", "no streams here"),
    ],
)
def test_where_streams_are_refused_the_operation_is_asked_for(
    run: Run, canned: CannedApi, refusal: Answer
) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, refusal)
    canned.on("GET", PLAIN, CREATED.body, ROLES_DONE, SUCCEEDED)

    began = time.monotonic()
    result = run("tenants", "create", "acme", "--wait")

    assert result.code == 0
    assert "✓ activate" in result.stdout
    assert len(canned.requests("GET", EVENTS)) == 1
    assert len(canned.requests("GET", PLAIN)) == 3
    assert 0.4 <= time.monotonic() - began < 2


def test_an_api_that_is_away_for_a_moment_is_waited_for(run: Run, canned: CannedApi) -> None:
    away = problem(503, "catalog_unavailable", "the catalog is away")
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, away, away, events(SUCCEEDED))
    canned.on("GET", PLAIN, away, problem(429, "rate_limited", "too many requests"), ROLES_DONE)

    assert run("tenants", "create", "acme", "--wait").code == 0


def test_an_api_that_stays_away_ends_the_wait_and_says_that_the_work_goes_on(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.follow, "__defaults__", (0.3,))
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, Answer(hang_up=True))
    canned.on("GET", PLAIN, problem(503, "catalog_unavailable", "the catalog is away"))

    result = run("tenants", "create", "acme", "--wait")

    assert result.code == 5
    assert "watch it with: tenantry operations watch op_1" in result.stderr
    assert result.stderr.endswith("error: the catalog is away\n")


def test_an_operation_that_may_not_be_read_any_more_ends_the_wait(
    run: Run, canned: CannedApi
) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    revoked = problem(401, "unauthenticated", "this API key was revoked")
    canned.on("GET", EVENTS, revoked)
    canned.on("GET", PLAIN, revoked)

    assert run("tenants", "create", "acme", "--wait").code == 6


def test_a_failed_operation_exits_1_with_the_reason_and_the_remedy(
    run: Run, canned: CannedApi
) -> None:
    error = {"code": "disk_full", "message": "no space left on pg-a"}
    failed = operation(
        "failed",
        done("create_roles", 12),
        step("create_database", "failed", attempts=3, error=error),
        step("activate"),
        error=error,
    )
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, events(failed))

    result = run("tenants", "create", "acme", "--wait")

    assert result.code == 1
    assert "  ✗ create_database               no space left on pg-a (attempt 3)" in result.stdout
    assert "activate" not in result.stdout
    assert result.stderr.splitlines() == [
        "error: provision acme failed after 412 ms: no space left on pg-a (disk_full)",
        "  try it again with: tenantry operations retry op_1",
    ]


def test_a_step_that_is_tried_again_says_why_once(run: Run, canned: CannedApi) -> None:
    error = {"code": "pooler_unavailable", "message": "p2 does not acknowledge"}
    trying = operation("waiting", step("publish_route", "running", attempts=2, error=error))
    canned.on("POST", "/v1/tenants/acme/rotations", Answer(202, trying))
    canned.on(
        "GET", EVENTS, events(trying, trying, operation("succeeded", done("publish_route", 9)))
    )

    result = run("rotate", "acme", "--wait")

    assert result.code == 0
    assert result.stdout.count("p2 does not acknowledge (attempt 2)") == 1
    assert "↻ publish_route" in result.stdout
    assert "✓ publish_route" in result.stdout


def test_a_cancelled_operation_did_not_succeed(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, events(operation("cancelled", step("create_roles", "skipped"))))

    result = run("tenants", "create", "acme", "--wait")

    assert result.code == 1
    assert "cancelled" in result.stderr
    assert "– create_roles" in result.stdout  # noqa: RUF001 - the mark of a skipped step


def test_cancel_with_wait_wants_it_cancelled(run: Run, canned: CannedApi) -> None:
    canned.on("POST", f"{PLAIN}/cancel", Answer(202, operation("cancelling", step("activate"))))
    canned.on("GET", EVENTS, events(operation("cancelled", step("activate"))), events(SUCCEEDED))

    cancelled, too_late = (run("operations", "cancel", "op_1", "--wait") for _ in range(2))

    assert (cancelled.code, cancelled.stderr) == (0, "")
    assert cancelled.stdout.splitlines()[-1] == "provision acme: cancelled after 412 ms"
    assert too_late.code == 1
    assert too_late.stderr == "error: provision acme succeeded after 412 ms\n"


def test_with_json_the_finished_operation_is_all_that_is_printed(
    run: Run, canned: CannedApi
) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, events(CREATED.body, ROLES_DONE, SUCCEEDED))

    result = run("tenants", "create", "acme", "--wait", "--json")

    assert (result.code, result.stderr) == (0, "")
    assert result.json == SUCCEEDED


def test_an_operation_that_is_over_already_is_told_at_once(run: Run, canned: CannedApi) -> None:
    canned.on("GET", PLAIN, SUCCEEDED)
    canned.on("GET", EVENTS, events(SUCCEEDED))

    result = run("operations", "watch", "op_1")

    assert result.code == 0
    assert result.stdout.splitlines()[-1] == "provision acme: succeeded after 412 ms"


def test_retry_continues_at_the_step_that_failed(run: Run, canned: CannedApi) -> None:
    canned.on("POST", f"{PLAIN}/retry", Answer(202, ROLES_DONE))
    canned.on("GET", EVENTS, events(ROLES_DONE, SUCCEEDED))

    assert run("operations", "retry", "op_1", "--wait").code == 0


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    stream = (
        b": ping\r\n\r\nevent: a\r\nid: 1\r\ndata: one\r\n\r\n"
        b"data:two\ndata: lines\n\n\n"
        b"data: \xe2\x80\xa8 kept \xe2\x80\xa8\n\ndata: cut off\n"
    )
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]

    assert list(event_data(chunks)) == ["one", "two\nlines", "\u2028 kept \u2028"]


def _tenantry(canned: CannedApi, home: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
    ours = {"TENANTRY_URL": canned.url, "TENANTRY_TOKEN": TOKEN, "TENANTRY_HOME": str(home)}
    command = [str(Path(sys.executable).with_name("tenantry")), *arguments]
    return command, {**kept, **ours, "PYTHONUTF8": "1", "TERM": "xterm"}


def test_an_interrupted_wait_says_that_the_work_goes_on(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, Answer(media_type="text/event-stream", chunks=(b": ping\n\n",) * 1000))
    command, environment = _tenantry(canned, tmp_path, "tenants", "create", "acme", "--wait")
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not canned.requests("GET", EVENTS):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)

    assert process.returncode == 130
    assert stderr.splitlines() == [
        "provision acme goes on without us as op_1;",
        "watch it with: tenantry operations watch op_1",
    ]


def _on_a_terminal(
    canned: CannedApi, home: Path, *arguments: str, columns: int = 100, **more: str
) -> tuple[int, str]:
    command, environment = _tenantry(canned, home, *arguments)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        env={**environment, "COLUMNS": str(columns), **more},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:
            break
        if not read:
            break
        shown += read
    os.close(ours)
    return process.wait(timeout=10), shown.decode()


def test_a_terminal_gets_colours_and_a_live_line(canned: CannedApi, tmp_path: Path) -> None:
    slow = Answer(
        media_type="text/event-stream",
        chunks=(*events(ROLES_DONE).chunks, *(b": ping\n\n",) * 30, *events(SUCCEEDED).chunks),
    )
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, slow)

    code, shown = _on_a_terminal(canned, tmp_path, "tenants", "create", "acme", "--wait")

    assert code == 0
    assert "\x1b[32m✓\x1b[0m create_roles" in shown
    assert re.search(r"activate  \d+ ms", shown)
    assert "provision acme: succeeded after 412 ms" in shown


def told(detail: str, **more: Any) -> dict[str, Any]:
    return operation("running", step("upload_dump", "running", detail=detail, **more))


def test_a_terminal_shows_how_far_a_long_step_has_come_in_one_line(
    canned: CannedApi, tmp_path: Path
) -> None:
    again = {"attempts": 2, "error": {"code": "store_unavailable", "message": "cut short"}}
    pause = (b": ping\n\n",) * 60
    moving = Answer(
        media_type="text/event-stream",
        chunks=(
            *events(told("12.0 MB of 90.1 MB")).chunks,
            *pause,
            *events(told("64.0 MB of 90.1 MB", **again)).chunks,
            *pause,
            *events(operation("succeeded", done("upload_dump", 9, "90.1 MB"))).chunks,
        ),
    )
    canned.on("POST", "/v1/tenants/acme/backups", Answer(202, told("begins")))
    canned.on("GET", EVENTS, moving)

    code, shown = _on_a_terminal(canned, tmp_path, "backup", "acme", "--wait")

    assert code == 0
    assert re.search(r"upload_dump  \d+ ms  12.0 MB of 90.1 MB", shown)
    assert re.search(r"upload_dump  \d+ ms  64.0 MB of 90.1 MB \(attempt 2\)", shown)
    stays = [line.rpartition("\x1b[2K")[2] for line in shown.split("\n")]
    assert [line.split()[-1] for line in stays if "upload_dump" in line] == ["2)", "MB"]
    assert not [line for line in stays if "of 90.1 MB" in line]


def test_a_pipe_hears_of_a_long_step_once_it_has_ended(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants/acme/backups", Answer(202, told("begins")))
    over = operation("succeeded", done("upload_dump", 9, "90.1 MB"), kind="backup")
    canned.on("GET", EVENTS, events(told("12.0 MB"), told("64.0 MB"), over))

    result = run("backup", "acme", "--wait")

    assert result.stdout.splitlines()[1:] == [
        "  ✓ upload_dump         9 ms  90.1 MB",
        "backup acme: succeeded after 412 ms",
    ]


def test_no_color_means_none(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, events(ROLES_DONE, SUCCEEDED))

    code, shown = _on_a_terminal(
        canned, tmp_path, "tenants", "create", "acme", "--wait", NO_COLOR="1"
    )

    assert code == 0
    assert "✓ create_roles" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)


def test_an_ascii_terminal_gets_ascii_marks(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("POST", "/v1/tenants", CREATED)
    canned.on("GET", EVENTS, events(SUCCEEDED))
    command, environment = _tenantry(canned, tmp_path, "tenants", "create", "acme", "--wait")
    ended = subprocess.run(
        command,
        env=environment | {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )

    assert b"  ok create_roles        12 ms  claimed from the pool" in ended.stdout.splitlines()
