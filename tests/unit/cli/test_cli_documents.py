"""How servers, poolers, keys, findings and audit events are shown."""

import datetime as dt
from typing import Any

import pytest

from tests.unit.cli.canned_api import NOW, Answer, CannedApi, events, operation, page
from tests.unit.cli.conftest import Run


def server(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"sv_{name}",
        "name": name,
        "host": "127.0.0.1",
        "port": 5432,
        "state": "active",
        "reachable": True,
        "problem": None,
        "placed": 3,
        "capacity": 500,
        "tier": None,
        "region": None,
        "version": "15.13",
        "tls": "disable",
        "labels": {},
        "checked_at": NOW,
        "created_at": NOW,
        "preflight": [],
        **more,
    }


def test_a_server_tells_its_health_and_load(run: Run, canned: CannedApi) -> None:
    lost = server("pg-b", reachable=False, problem="connection refused")
    canned.on("GET", "/v1/servers", page(server("pg-a"), lost))

    first, second = run("servers", "list").stdout.splitlines()[1:]

    assert "3/500" in first
    assert " ok " in first
    assert " unreachable " in second
    canned.on("GET", "/v1/servers/pg-b", lost)
    assert "problem  connection refused\n" in run("servers", "show", "pg-b").stdout


def test_a_server_shows_only_the_answers_that_need_attention(run: Run, canned: CannedApi) -> None:
    answers = [
        {"name": "version", "level": "ok", "found": "15.13", "wanted": ">= 15", "remedy": None},
        {
            "name": "autovacuum_naptime",
            "level": "advice",
            "found": "60",
            "wanted": "600",
            "remedy": "ALTER SYSTEM SET autovacuum_naptime = '10min'",
        },
    ]
    canned.on("GET", "/v1/servers/pg-a", server("pg-a", preflight=answers))

    shown = run("servers", "show", "pg-a").stdout

    assert "advice: autovacuum_naptime: 60" in shown
    assert "  ALTER SYSTEM SET autovacuum_naptime = '10min'" in shown
    assert "15.13, wanted" not in shown


def test_draining_is_confirmed(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/servers/pg-a/drain", server("pg-a", state="draining"))
    canned.on("DELETE", "/v1/servers/pg-a/drain", server("pg-a"))

    assert run("servers", "drain", "pg-a").stdout == "pg-a is draining\n"
    assert run("servers", "undrain", "pg-a").stdout == "pg-a takes tenants again\n"
    assert run("servers", "drain", "pg-a", "--json").json["state"] == "draining"


EMPTYING = Answer(
    202,
    {
        "server": "pg-a",
        "removed": False,
        "waits_for": "2 databases made ahead are being dropped",
        "operations": ["op_1"],
    },
)


def test_a_server_that_has_to_be_emptied_says_so(run: Run, canned: CannedApi) -> None:
    canned.on("DELETE", "/v1/servers/pg-a", EMPTYING, Answer(status=204))

    first, second = run("servers", "remove", "pg-a"), run("servers", "remove", "pg-a")

    assert first.code == second.code == 0
    assert first.stdout == "pg-a is being emptied: 2 databases made ahead are being dropped\n"
    assert first.stderr == "ask again later: tenantry servers remove pg-a\n"
    assert second.stdout == "pg-a is removed\n"


def test_a_server_that_is_removed_late_is_removed(run: Run, canned: CannedApi) -> None:
    over = {"server": "pg-a", "removed": True, "waits_for": None, "operations": []}
    canned.on("DELETE", "/v1/servers/pg-a", Answer(202, over))

    result = run("servers", "remove", "pg-a")

    assert (result.stdout, result.stderr) == ("pg-a is removed\n", "")


def test_a_removal_can_be_waited_for(run: Run, canned: CannedApi) -> None:
    canned.on("DELETE", "/v1/servers/pg-a", EMPTYING, Answer(status=204))
    canned.on("GET", "/v1/operations/op_1/events", events(operation("succeeded")))

    result = run("servers", "remove", "pg-a", "--wait", "--json")

    assert result.json == {"server": "pg-a", "removed": True}
    assert len({one.headers["idempotency-key"] for one in canned.asked if one.method != "GET"}) == 2


def test_a_removal_that_cannot_empty_the_server_fails(run: Run, canned: CannedApi) -> None:
    canned.on("DELETE", "/v1/servers/pg-a", EMPTYING)
    canned.on("GET", "/v1/operations/op_1/events", events(operation("failed")))

    result = run("servers", "remove", "pg-a", "--wait")

    assert result.code == 1
    assert "pg-a could not be emptied: provision op_1 failed" in result.stderr


def finding(**more: Any) -> dict[str, Any]:
    return {
        "code": "I-3",
        "subject": "pg-a",
        "message": "database t_1 has no row",
        "remedy": "look at it, then drop it",
        "repair": None,
        **more,
    }


def test_a_clean_check_exits_0(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/check", {"findings": [], "repaired": []})

    result = run("check")

    assert (result.code, result.stdout) == (0, "clean: the catalog matches reality\n")


def test_findings_exit_1_with_their_remedies(run: Run, canned: CannedApi) -> None:
    report = {"findings": [finding(), finding(repair="reclaim")], "repaired": []}
    canned.on("GET", "/v1/check", report)

    plain, as_json = run("check"), run("check", "--json")

    assert plain.code == as_json.code == 1
    assert plain.stdout.splitlines() == [
        "I-3 pg-a: database t_1 has no row",
        "  look at it, then drop it",
        "I-3 pg-a: database t_1 has no row",
        "  look at it, then drop it",
        "  safe to mend with: tenantry check --repair",
        "2 findings",
    ]
    assert as_json.json == report


def test_repair_tells_what_it_mended(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/check/repairs", {"findings": [], "repaired": [finding()]})

    result = run("check", "--repair")

    assert result.code == 0
    assert result.stdout.splitlines()[0] == "mended I-3 pg-a: database t_1 has no row"
    assert canned.asked[0].headers["idempotency-key"]


def pooler(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cell": "cell-1",
        "host": "127.0.0.1",
        "port": 6432,
        "version": "1.18.0",
        "alive": True,
        "problem": None,
        "served_version": 4,
        "wanted_version": 4,
        "served_entries": 6,
        "last_seen_at": NOW,
        **more,
    }


@pytest.mark.parametrize(
    ("facts", "health"),
    [
        ({}, "ok"),
        ({"served_version": 3}, "behind"),
        ({"problem": "reload refused"}, "failed reload refused"),
        ({"alive": False, "problem": "reload refused"}, "down"),
    ],
)
def test_a_pooler_tells_its_health(
    run: Run, canned: CannedApi, facts: dict[str, Any], health: str
) -> None:
    canned.on("GET", "/v1/poolers", page(pooler("p1", **facts)))

    assert f"p1    {health}  " in run("poolers", "list").stdout


def key(**more: Any) -> dict[str, Any]:
    return {
        "id": "ky_1",
        "name": "night",
        "roles": ["auditor"],
        "tenant": None,
        "created_at": NOW,
        "expires_at": "2999-01-01T00:00:00Z",
        "revoked_at": None,
        "last_used_at": None,
        "expired": False,
        **more,
    }


def test_a_new_key_is_all_there_is_on_stdout(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/keys", Answer(201, key(token="tnk_new")))

    result = run("keys", "create", "--role", "auditor", "--name", "night")

    assert result.stdout == "tnk_new\n"
    assert "it is not shown again" in result.stderr


def test_a_key_whose_answer_was_lost_is_to_be_revoked(run: Run, canned: CannedApi) -> None:
    lost = key(token=None, note="already shown once; revoke it and make another")
    canned.on("POST", "/v1/keys", Answer(201, lost))

    result = run("keys", "create", "--role", "auditor")

    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == "error: ky_1: already shown once; revoke it and make another\n"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "active"),
        ({"expired": True}, "expired"),
        ({"expired": True, "revoked_at": NOW}, "revoked"),
    ],
)
def test_a_key_tells_whether_it_works(
    run: Run, canned: CannedApi, facts: dict[str, Any], state: str
) -> None:
    canned.on("GET", "/v1/keys", page(key(**facts)))

    assert state in run("keys", "list").stdout.splitlines()[1]


def test_the_audit_log_tells_who_what_and_why(run: Run, canned: CannedApi) -> None:
    event = {
        "seq": 7,
        "at": (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5.2)).isoformat(),
        "actor": "on-call",
        "action": "dsn.reveal",
        "outcome": "denied",
        "subject": "acme",
        "address": "10.0.0.7",
        "reason": "ticket 42",
        "facts": {"pool": "session", "tier": None, "advice": ["tls", "fsync"]},
    }
    canned.on("GET", "/v1/audit", page(event))

    line = run("audit").stdout.splitlines()[1]

    assert line.split() == [
        *("5", "s", "ago", "on-call", "dsn.reveal", "denied", "acme", "10.0.0.7"),
        *("ticket", "42", "pool=session", "advice=tls,fsync"),
    ]


VERIFIED = {
    "tenant": "acme",
    "verified": True,
    "blocks": 2,
    "rows": 1200,
    "anchored": 2,
    "waiting": 3,
    "differences": [],
}


def test_a_whole_chain_of_seals_is_told_in_one_line(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants/acme/audit-seals/verification", VERIFIED)
    result = run("audit", "verify", "acme")
    assert result.code == 0
    assert result.stdout == "verified: 1200 rows in 2 blocks, 2 anchored; 3 not sealed yet\n"


def test_a_broken_chain_names_the_block_and_fails(run: Run, canned: CannedApi) -> None:
    broken = {**VERIFIED, "verified": False, "differences": ["block 2: row 7 was deleted"]}
    canned.on("GET", "/v1/tenants/acme/audit-seals/verification", broken)
    result = run("audit", "verify", "acme")
    assert result.code == 1
    assert result.stdout.splitlines() == [
        "acme: block 2: row 7 was deleted",
        "NOT as sealed: 1200 rows in 2 blocks, 2 anchored; 3 not sealed yet",
    ]


def person(**more: Any) -> dict[str, Any]:
    return {
        "id": "pe_1",
        "email": "ada@example.com",
        "name": "Ada",
        "roles": ["operator", "auditor"],
        "has_password": False,
        "created_by": "local-admin",
        "created_at": NOW,
        "disabled_at": None,
        **more,
    }


def test_people_are_listed_with_what_they_may(run: Run, canned: CannedApi) -> None:
    gone = person(id="pe_2", email="bob@example.com", disabled_at=NOW)
    canned.on("GET", "/v1/people", {"items": [person(), gone], "next_cursor": None})

    lines = run("people", "list").stdout.splitlines()

    assert lines[1].split()[:1] == ["ada@example.com"]
    assert "operator, auditor" in lines[1]
    assert "disabled" in lines[2]


def test_a_link_is_all_there_is_on_stdout(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/people", {"items": [person()], "next_cursor": None})
    made = {"person": "pe_1", "expires_at": NOW, "url": "/console/sign-in/link?token=t"}
    canned.on("POST", "/v1/people/pe_1/links", Answer(201, made))

    result = run("people", "link", "Ada@example.com")

    assert result.stdout == f"{canned.url}/console/sign-in/link?token=t\n"
    assert "once" in result.stderr


def test_a_public_name_is_kept_in_the_link(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/people", {"items": [person()], "next_cursor": None})
    url = "https://console.example.com/console/sign-in/link?token=t"
    made = {"person": "pe_1", "expires_at": NOW, "url": url}
    canned.on("POST", "/v1/people/pe_1/links", Answer(201, made))

    assert run("people", "link", "ada@example.com").stdout == f"{url}\n"


def test_a_person_who_is_not_there_is_told(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/people", {"items": [], "next_cursor": None})

    result = run("people", "disable", "ada@example.com")

    assert (result.code, result.stdout) == (3, "")
    assert "there is no person 'ada@example.com'" in result.stderr
