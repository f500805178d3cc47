"""``tenantry rollout`` and ``migrate``: what they ask, what they print, how they exit."""

from typing import Any

import pytest

from control_plane.cli import rollout_watch
from tests.unit.cli.canned_api import NOW, Answer, CannedApi, operation, page, problem, step
from tests.unit.cli.conftest import Run

ROLLOUTS = "/v1/rollouts"
ONE = f"{ROLLOUTS}/ro_1"
ACCEPTED = Answer(
    202, operation("pending", step("build_templates"), kind="rollout", tenant=None, subject="ro_1")
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_watch, "POLL_SECONDS", 0.01)


def wave(number: int, **counts: int) -> dict[str, Any]:
    parts = dict.fromkeys(("waiting", "running", "done", "failed", "skipped", "locked"), 0) | counts
    name = f"wave {number}" if number else "the canary"
    size = sum(parts.values()) - parts["locked"]
    return {"wave": number, "name": name, "tenants": size, **parts}


def rollout(state: str, *waves: dict[str, Any], **more: Any) -> dict[str, Any]:
    over = state in {"succeeded", "incomplete", "aborted"}
    return {
        "id": "ro_1",
        "operation": "op_1",
        "template": "clinic",
        "to_revision": "0007",
        "state": state,
        "reason": None,
        "done": sum(w["done"] for w in waves),
        "failed": sum(w["failed"] for w in waves),
        "total": sum(w["tenants"] for w in waves),
        "created_by": "on-call",
        "created_at": NOW,
        "finished_at": NOW if over else None,
        "selector": {"tiers": [], "servers": [], "tenants": [], "labels": {}},
        "options": {},
        "wave": 0,
        "detail": None,
        "seconds_left": None,
        "waves": list(waves),
        "failures": [],
        **more,
    }


FAILURE = {
    "code": "revision_failed",
    "tenants": 7,
    "message": "0007 statement 2: column already exists",
    "sample": ["acme", "apex"],
}
HALTED = rollout(
    "halted",
    wave(0, done=1),
    wave(1, done=90, failed=7, waiting=2),
    wave=1,
    reason="7 of 99 tenants failed in wave 1; more than 2% halts",
    failures=[FAILURE],
)
SUCCEEDED = rollout("succeeded", wave(0, done=1), wave(1, done=99), wave=1)


def test_start_asks_for_what_was_typed(run: Run, canned: CannedApi) -> None:
    canned.on("POST", ROLLOUTS, ACCEPTED)

    result = run(
        *("rollout", "start", "--template", "lab", "--to", "0007", "--select", "tier=standard"),
        *("--select", "server=pg-a,pg-b", "--select", "label.team=north", "--canary", "0"),
        *("--waves", "5%, 25%,100%", "--max-parallel", "64", "--per-server", "16"),
        *("--halt-at", "0%", "--halt-at-lock-wait", "50%", "--lock-timeout", "0.5s"),
        *("--statement-timeout", "10m"),
    )

    assert canned.asked[0].body == {
        "template": "lab",
        "revision": "0007",
        "select": {
            "tiers": ["standard"],
            "servers": ["pg-a", "pg-b"],
            "labels": {"team": "north"},
        },
        "canary": 0,
        "waves": ["5%", "25%", "100%"],
        "max_parallel": 64,
        "per_server": 16,
        "halt_at": "0%",
        "halt_at_lock_wait": "50%",
        "lock_timeout": 0.5,
        "statement_timeout": 600.0,
    }
    assert len(canned.asked[0].headers["idempotency-key"]) == 36
    assert (result.code, result.stdout) == (0, "op_1 rollout ro_1 started\n")
    assert result.stderr == "look at it with: tenantry rollout show ro_1\n"


def test_defaults_are_left_to_the_api(run: Run, canned: CannedApi) -> None:
    canned.on("POST", ROLLOUTS, ACCEPTED)

    assert run("rollout", "start", "--json").json == ACCEPTED.body
    assert canned.asked[0].body == {}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--select", "teir=standard", "write tier=…, server=…, tenant=… or label.KEY=…"),
        ("--select", "tier=gold", "no tier gold; use standard, enterprise, dedicated"),
        ("--waves", "5%,all", "'all' is no share; write a percentage such as 25%"),
        ("--halt-at", "0.02", "'0.02' is no share"),
        ("--halt-at", "120%", "'120%' is no share"),
        ("--lock-timeout", "soon", "'soon' is not a duration"),
        ("--max-parallel", "0", "0 is not in the range 1<=x<=256"),
    ],
)
def test_what_cannot_be_meant_is_not_asked(
    run: Run, canned: CannedApi, option: str, value: str, words: str
) -> None:
    result = run("rollout", "start", option, value)

    assert (result.code, canned.asked) == (2, [])
    assert option in result.stderr
    assert words in result.stderr


def test_wait_prints_a_line_for_every_change(run: Run, canned: CannedApi) -> None:
    canned.on("POST", ROLLOUTS, ACCEPTED)
    building = rollout("running", wave(0, waiting=1), wave(1, waiting=99), detail="building on a")
    first = rollout("running", wave(0, done=1), wave(1, waiting=89, running=10), wave=1)
    later = rollout(
        "running", wave(0, done=1), wave(1, done=49, failed=1, running=49), wave=1, seconds_left=125
    )
    slower = later | {"seconds_left": 124.0}
    canned.on("GET", ONE, building, first, first, later, slower, SUCCEEDED)

    result = run("rollout", "start", "--wait")

    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "rollout ro_1 started",
        "building on a: 0 of 100 tenants",
        "wave 1: 1 of 100 tenants",
        "wave 1: 50 of 100 tenants, 1 failed, about 2 min left",
        "wave 1: 100 of 100 tenants",
        "rollout ro_1: 100 tenants at 0007",
    ]


@pytest.mark.parametrize(
    ("state", "reason", "goes_on"),
    [
        ("halted", "7 of 99 tenants failed in wave 1; more than 2% halts", True),
        ("paused", "paused by on-call", True),
        ("incomplete", "3 of 100 tenants could not be migrated", True),
        ("aborted", "aborted by on-call", False),
    ],
)
def test_a_wait_ends_when_it_stands_still(
    run: Run, canned: CannedApi, state: str, reason: str, *, goes_on: bool
) -> None:
    canned.on("POST", f"{ONE}/resume", ACCEPTED)
    canned.on("GET", ONE, HALTED | {"state": state, "reason": reason})

    result = run("rollout", "resume", "ro_1", "--wait")

    assert result.code == 1
    told = [f"error: rollout ro_1 is {state}: {reason}"]
    told += ["  see why with: tenantry rollout show ro_1 --failed"]
    told += ["  go on with: tenantry rollout resume ro_1"] if goes_on else []
    assert result.stderr.splitlines() == told


def test_with_json_a_wait_prints_the_rollout_alone(run: Run, canned: CannedApi) -> None:
    canned.on("POST", ROLLOUTS, ACCEPTED)
    canned.on("GET", ONE, rollout("running", wave(0, running=1)), SUCCEEDED)

    result = run("rollout", "start", "--wait", "--json")

    assert (result.code, result.json) == (0, SUCCEEDED)


def test_an_api_that_is_away_for_a_moment_is_waited_for(run: Run, canned: CannedApi) -> None:
    canned.on("POST", ROLLOUTS, ACCEPTED)
    canned.on("GET", ONE, problem(503, "catalog_unavailable", "away"), SUCCEEDED)

    assert run("rollout", "start", "--wait").code == 0


def test_an_api_that_stays_away_says_that_it_goes_on(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_watch.follow_rollout, "__defaults__", (0.1,))
    canned.on("POST", ROLLOUTS, ACCEPTED)
    canned.on("GET", ONE, problem(503, "catalog_unavailable", "away"))

    result = run("rollout", "start", "--wait")

    assert result.code == 5
    assert "look at it with: tenantry rollout show ro_1" in result.stderr


def test_show_prints_waves_and_failures_by_reason(run: Run, canned: CannedApi) -> None:
    canned.on("GET", ROLLOUTS, page(HALTED))
    canned.on("GET", ONE, HALTED)

    result = run("rollout", "show")

    assert result.code == 0
    assert canned.asked[0].query == {"limit": "1"}
    assert "tenants      91 of 100 done, 7 failed" in result.stdout
    assert "reason       7 of 99 tenants failed in wave 1; more than 2% halts" in result.stdout
    assert result.stdout.splitlines()[-6:] == [
        "WAVE        TENANTS  DONE  FAILED  RUNNING  WAITING  SKIPPED  LOCKED",
        "the canary        1     1       0        0        0        0       0",
        "wave 1           99    90       7        0        2        0       0",
        "",
        "7 failed with revision_failed: acme, apex, …",
        "  0007 statement 2: column already exists",
    ]
    assert result.stderr == "go on with: tenantry rollout resume ro_1\n"


def target(slug: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "tenant": slug,
        "server": "pg-a",
        "wave": 1,
        "state": state,
        "from_revision": "0006",
        "operation": "op_7",
        "attempts": 2,
        "started_at": NOW,
        "finished_at": NOW,
        "seconds": 0.25,
        "error": None,
        **more,
    }


def test_failed_tenants_are_listed_one_by_one(run: Run, canned: CannedApi) -> None:
    error = {"code": "revision_failed", "message": "column already exists"}
    failed = target("acme", "failed", error=error)
    canned.on("GET", ONE, HALTED)
    canned.on("GET", f"{ONE}/targets", page(failed))

    plain, as_json = (run("rollout", "show", "ro_1", "--failed", *m) for m in ((), ("--json",)))

    asked = canned.requests("GET", f"{ONE}/targets")
    assert {one.query["state"] for one in asked} == {"failed"}
    assert plain.stdout.splitlines()[-1] == (
        "acme    failed     1  pg-a    0006  250 ms      2  "
        "column already exists (revision_failed)  op_7"
    )
    assert as_json.json == {**HALTED, "targets": [failed]}


def test_every_tenant_of_a_rollout_can_be_listed(run: Run, canned: CannedApi) -> None:
    waiting = target("apex", "waiting", attempts=0, seconds=None, operation=None)
    canned.on("GET", ROLLOUTS, page(HALTED))
    canned.on("GET", f"{ONE}/targets", page(waiting, target("acme", "done")))

    shown = run("rollout", "targets").stdout.splitlines()

    assert [line.split()[:2] for line in shown[1:]] == [["apex", "waiting"], ["acme", "done"]]


def test_rollouts_are_listed(run: Run, canned: CannedApi) -> None:
    canned.on("GET", ROLLOUTS, page(HALTED, SUCCEEDED))

    first, second = run("rollout", "list").stdout.splitlines()[1:]

    assert first.split()[:6] == ["ro_1", "clinic", "0007", "halted", "91/100", "7"]
    assert second.split()[3] == "succeeded"


def test_pause_and_abort_find_the_one_that_is_alive(run: Run, canned: CannedApi) -> None:
    canned.on("GET", ROLLOUTS, page(SUCCEEDED | {"id": "ro_0"}, HALTED))
    canned.on("POST", f"{ONE}/pause", HALTED | {"state": "paused"})
    canned.on("POST", f"{ONE}/abort", ACCEPTED)

    paused, aborted = run("rollout", "pause"), run("rollout", "abort")

    assert (paused.code, paused.stdout) == (0, "rollout ro_1 is paused\n")
    assert paused.stderr == "go on with: tenantry rollout resume ro_1\n"
    assert (aborted.code, aborted.stdout) == (0, "rollout ro_1 is being aborted\n")


@pytest.mark.parametrize("word", ["pause", "abort", "resume"])
def test_nothing_alive_is_not_found(run: Run, canned: CannedApi, word: str) -> None:
    canned.on("GET", ROLLOUTS, page(SUCCEEDED))

    result = run("rollout", word)

    assert result.code == 3
    assert result.stderr == "error: no rollout is alive; see: tenantry rollout list\n"


def test_resume_falls_back_to_the_newest_incomplete_one(run: Run, canned: CannedApi) -> None:
    ended = [rollout("incomplete", id="ro_1"), rollout("incomplete", id="ro_0")]
    canned.on("GET", ROLLOUTS, page(SUCCEEDED | {"id": "ro_2"}, *ended))
    canned.on("POST", f"{ONE}/resume", ACCEPTED)

    assert run("rollout", "resume").stdout == "op_1 rollout ro_1 resumed\n"
    assert run("rollout", "pause").code == 3


def test_with_two_alive_one_has_to_be_named(run: Run, canned: CannedApi) -> None:
    other = rollout("paused", id="ro_2", template="lab")
    canned.on("GET", ROLLOUTS, page(other, rollout("running")))

    result = run("rollout", "pause")

    assert result.code == 2
    assert "name one: ro_2 (lab), ro_1 (clinic)" in result.stderr


def test_every_refusal_of_the_lint_is_shown(run: Run, canned: CannedApi) -> None:
    fields = [
        {"field": "0006:drop-column", "message": "a is dropped; move the readers"},
        {"field": "0007:cascade", "message": "b goes too; RESTRICT"},
    ]
    refused = problem(422, "revision_refused", "0006: a is dropped (and 1 more)", errors=fields)
    canned.on("POST", ROLLOUTS, refused)

    result = run("rollout", "start")

    assert result.code == 2
    assert "  0007:cascade: b goes too; RESTRICT" in result.stderr


def test_the_template_of_a_new_tenant_is_asked_for(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants", ACCEPTED)

    run("tenants", "create", "acme", "--template", "lab")

    assert canned.asked[0].body == {"slug": "acme", "name": "acme", "template": "lab"}
