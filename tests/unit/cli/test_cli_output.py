import datetime as dt
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.cli.durations import brief, exact, seconds_of
from control_plane.cli.problems import one_line
from tests.unit.cli.canned_api import (
    TOKEN,
    CannedApi,
    done,
    operation,
    page,
    step,
    tenant,
)
from tests.unit.cli.conftest import Run


def ago(**distance: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(**distance)).isoformat()


def test_a_table_has_a_heading_and_a_row_for_each_item(run: Run, canned: CannedApi) -> None:
    busy = {"id": "op_2", "kind": "rotate"}
    canned.on(
        "GET",
        "/v1/tenants",
        page(
            tenant("acme", created_at=ago(minutes=3.1)),
            tenant("beta", operation=busy, region="eu", created_at=ago(days=2.1)),
        ),
    )

    lines = [line.split() for line in run("tenants", "list").stdout.splitlines()]

    assert lines == [
        ["SLUG", "NAME", "TIER", "STATE", "SERVER", "TEMPLATE", "REGION", "CREATED"],
        ["acme", "Acme", "standard", "active", "pg-a", "clinic", "-", "3", "min", "ago"],
        [
            "beta",
            "Beta",
            "standard",
            "active",
            "·",
            "rotate",
            "pg-a",
            "clinic",
            "eu",
            "2",
            "d",
            "ago",
        ],
    ]


def test_a_pipe_gets_whole_plain_lines(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    name = "Acme Clinic of the Long Name " * 8
    canned.on("GET", "/v1/tenants", page(tenant("acme", name=name)))

    shown = run("tenants", "list").stdout

    assert name.strip() in shown
    assert "\x1b" not in shown
    assert all(line == line.rstrip() for line in shown.splitlines())


def test_an_empty_list_says_so_beside_stdout(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", page())

    plain, as_json = run("tenants", "list"), run("tenants", "list", "--json")

    assert (plain.code, plain.stdout) == (0, "")
    assert "tenantry tenants create" in plain.stderr
    assert as_json.json == []


def test_utc_prints_the_time_itself(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme", created_at="2026-01-31T09:00:00+01:00")))

    assert "2026-01-31 08:00:00Z" in run("tenants", "list", "--utc").stdout
    assert "2026-01-31 08:00:00Z" in run("--utc", "tenants", "list").stdout


def test_show_leaves_out_what_is_empty(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants/acme", tenant("acme", labels={"team": "north"}))

    facts = dict(
        line.split(maxsplit=1) for line in run("tenants", "show", "acme").stdout.splitlines()
    )

    assert facts["labels"] == "team=north"
    assert facts["placement"].startswith("pg-a: least loaded")
    assert "region" not in facts


def test_an_operation_is_shown_with_its_steps(run: Run, canned: CannedApi) -> None:
    error = {"code": "disk_full", "message": "no space left"}
    canned.on(
        "GET",
        "/v1/operations/op_1",
        operation(
            "failed",
            done("create_roles", 12, "claimed"),
            step("create_database", "failed", error=error),
            step("activate"),
            error=error,
        ),
    )

    shown = run("operations", "show", "op_1").stdout

    assert "no space left (disk_full)" in shown
    assert "✓ create_roles           12 ms  claimed" in shown
    assert "✗ create_database" in shown
    assert "    activate" in shown


def test_a_live_operation_tells_how_far_it_is(run: Run, canned: CannedApi) -> None:
    live = operation("running", progress={"done": 3, "total": 7, "detail": "publish_route"})
    canned.on("GET", "/v1/operations", page(live, operation("succeeded")))

    first, second = run("operations", "list").stdout.splitlines()[1:]

    assert "running 3/7 publish_route" in first
    assert "succeeded" in second
    assert "412 ms" in second


def test_plans_list_their_steps(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/plans", page({"kind": "enrol", "steps": ["bootstrap", "activate"]}))

    assert "enrol  bootstrap · activate" in run("plans").stdout


def test_names_stay_readable_in_json(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme", name="Clínica Ñandú")))

    shown = run("tenants", "list", "--json").stdout

    assert "Clínica Ñandú" in shown
    assert json.loads(shown)[0]["name"] == "Clínica Ñandú"


def on_a_terminal(canned: CannedApi, home: Path, columns: int, *arguments: str) -> list[str]:
    ours, theirs = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"}}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("tenantry")), *arguments],
        stdout=theirs,
        env={
            **kept,
            "TENANTRY_URL": canned.url,
            "TENANTRY_TOKEN": TOKEN,
            "TENANTRY_HOME": str(home),
            "COLUMNS": str(columns),
            "TERM": "xterm",
            "NO_COLOR": "1",
            "PYTHONUTF8": "1",
        },
    )
    assert process.wait(timeout=10) == 0
    os.close(theirs)
    lines = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    assert all(len(line) <= columns for line in lines)
    return lines


SLUG = "clinic-with-a-rather-long-slug"


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_a_terminal_shows_a_table_with_whole_slugs(
    canned: CannedApi, tmp_path: Path, columns: int
) -> None:
    canned.on("GET", "/v1/tenants", page(tenant(SLUG)))

    lines = on_a_terminal(canned, tmp_path, columns, "tenants", "list")

    assert lines[0].startswith("SLUG")
    assert lines[1].startswith(SLUG)


@pytest.mark.parametrize("columns", range(62, 110, 6))
def test_no_word_of_a_table_is_broken(canned: CannedApi, tmp_path: Path, columns: int) -> None:
    words = {"provisioning", "enterprise", "some-template", "eu-central"}
    worded = {"state": "provisioning", "tier": "enterprise", "template": "some-template"}
    canned.on("GET", "/v1/tenants", page(tenant("acme", region="eu-central", **worded)))

    lines = on_a_terminal(canned, tmp_path, columns, "tenants", "list")
    left_out = lines[-1] if lines[-1].startswith("no room for: ") else ""
    kept = {word for line in lines for word in line.split()}

    assert lines[0].split()[0] == "SLUG"
    assert {"provisioning", "enterprise"} <= kept
    assert words - kept == {
        word
        for word, title in (("some-template", "TEMPLATE"), ("eu-central", "REGION"))
        if title in left_out
    }


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_a_narrow_terminal_shows_a_card_for_each_item(
    canned: CannedApi, tmp_path: Path, columns: int
) -> None:
    canned.on("GET", "/v1/tenants", page(tenant(SLUG), tenant("acme")))

    lines = on_a_terminal(canned, tmp_path, columns, "tenants", "list")
    values = "".join(line[9:].strip() for line in lines)

    assert lines[0].startswith("slug")
    assert SLUG in values
    assert "acme" in values
    assert "" in [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("15min", 900), ("1.5h", 5400), ("2d", 172800)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1h", "1w", "h", "1h30", "1,5h", "٣h"])
def test_other_words_are_no_durations(text: str) -> None:
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("seconds", "precise", "rough"),
    [
        (0.0, "0 ms", "0 s"),
        (0.0124, "12 ms", "0 s"),
        (0.9996, "1.00 s", "0 s"),
        (59.996, "1 min 00 s", "59 s"),
        (123.4, "2 min 03 s", "2 min"),
        (3720, "1 h 02 min", "1 h"),
        (200000, "55 h 33 min", "2 d"),
    ],
)
def test_durations_are_written_for_people(seconds: float, precise: str, rough: str) -> None:
    assert (exact(seconds), brief(seconds)) == (precise, rough)


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    shown = one_line(text)

    assert len(shown.splitlines()) <= 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
