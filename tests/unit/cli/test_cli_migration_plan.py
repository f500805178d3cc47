"""The plan, the SQL and the findings that a dry run prints; and ``tenantry migrate``."""

from typing import Any

from tests.unit.cli.canned_api import Answer, CannedApi, operation, step
from tests.unit.cli.conftest import Run

ROLLOUTS = "/v1/rollouts"


def revision(name: str, *sql: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "title": "Every sample has a kind.",
        "transactional": True,
        "privileged": False,
        "runs_python": False,
        "sql": list(sql),
        **more,
    }


def finding(overridden: str | None) -> dict[str, Any]:
    return {
        "revision": "0007",
        "statement": 2,
        "rule": "drop-column",
        "message": "lab.sample.kind is dropped",
        "remedy": "move the readers first",
        "overridden": overridden,
    }


def preview(**more: Any) -> dict[str, Any]:
    return {
        "dry_run": True,
        "template": "clinic",
        "to_revision": "0007",
        "tenants": 100,
        "waves": [
            {"wave": 0, "name": "the canary", "tenants": 1, "sample": ["acme"]},
            {"wave": 1, "name": "wave 1", "tenants": 99, "sample": ["apex", "beta"]},
        ],
        "left_out": ["old-one"],
        "options": {
            "max_parallel": 32,
            "per_server": 8,
            "halt_at": "2%",
            "halt_at_lock_wait": "10%",
        },
        "revisions": [
            revision("0006", "CREATE INDEX CONCURRENTLY a ON b (c)", transactional=False),
            revision("0007", "UPDATE t\n\tSET a = 'x  y\x1b[2J'"),
        ],
        "findings": [],
        "refusal": None,
        **more,
    }


def test_a_dry_run_prints_the_plan_then_the_sql(run: Run, canned: CannedApi) -> None:
    canned.on("POST", ROLLOUTS, preview())

    result = run("rollout", "start", "--dry-run", "--wait")

    assert result.code == 0
    assert canned.asked[0].query == {"dry_run": "true"}
    assert result.stdout.splitlines() == [
        "rollout of template clinic to revision 0007: 100 tenants; nothing was changed",
        "WAVE        TENANTS  SUCH AS",
        "the canary        1  acme",
        "wave 1           99  apex, beta",
        "left out, at a revision that the template does not have: old-one",
        (
            "at most 32 at one time, 8 on one server; halts when more than 2% of a wave fail "
            "or more than 10% wait for locks"
        ),
        "",
        "revision 0006 (outside of a transaction): Every sample has a kind.",
        "    CREATE INDEX CONCURRENTLY a ON b (c);",
        "",
        "revision 0007: Every sample has a kind.",
        "    UPDATE t",
        "        SET a = 'x  y?[2J';",
    ]


def test_findings_come_last_and_refuse(run: Run, canned: CannedApi) -> None:
    found = [finding(None), finding("nobody reads it since May")]
    refused = preview(findings=found, refusal="0007: lab.sample.kind is dropped; move the readers")
    canned.on("POST", ROLLOUTS, refused)

    plain, as_json = (run("rollout", "start", "--dry-run", *more) for more in ((), ("--json",)))

    assert plain.code == as_json.code == 1
    assert plain.stdout.splitlines()[-5:] == [
        "lint: 1 of 2 findings stand against it",
        "0007 statement 2: drop-column: lab.sample.kind is dropped",
        "  remedy: move the readers first",
        "0007 statement 2: drop-column: lab.sample.kind is dropped",
        "  overridden: nobody reads it since May",
    ]
    assert "error: it would be refused: 0007: lab.sample.kind is dropped" in plain.stderr
    assert as_json.json == refused


def test_a_revision_that_runs_python_says_so(run: Run, canned: CannedApi) -> None:
    canned.on("POST", ROLLOUTS, preview(revisions=[revision("0008", runs_python=True)]))

    shown = run("rollout", "start", "--dry-run").stdout

    assert shown.splitlines()[-1].strip().startswith("-- it runs Python against the database")


def test_one_tenant_is_migrated(run: Run, canned: CannedApi) -> None:
    migrating = operation("pending", step("apply_revision"), kind="migrate")
    canned.on("POST", "/v1/tenants/acme/migrations", Answer(202, migrating))

    newest, named = run("migrate", "acme"), run("migrate", "acme", "--to", "0005")

    assert newest.stdout == named.stdout == "op_1 migrate acme pending\n"
    assert [one.body for one in canned.asked] == [{}, {"revision": "0005"}]


def test_the_dry_run_of_a_migration_prints_steps_sql_and_findings(
    run: Run, canned: CannedApi
) -> None:
    planned = {
        "dry_run": True,
        "kind": "migrate",
        "tenant": "acme",
        "steps": ["record_restore_point", "apply_revision"],
        "deadline_seconds": 1800,
        "template": "clinic",
        "from_revision": "0006",
        "to_revision": "0007",
        "revisions": [revision("0007", "GRANT SELECT ON a.b TO app")],
        "findings": [finding("nobody reads it since May")],
        "refusal": None,
    }
    canned.on("POST", "/v1/tenants/acme/migrations", planned, planned | {"refusal": "0007: no"})

    allowed, refused = (run("migrate", "acme", "--dry-run") for _ in range(2))

    assert (allowed.code, refused.code) == (0, 1)
    assert allowed.stdout.splitlines()[:6] == [
        "migrate acme from 0006 to 0007 would run these steps; nothing was changed:",
        "   1  record_restore_point",
        "   2  apply_revision",
        "",
        "revision 0007: Every sample has a kind.",
        "    GRANT SELECT ON a.b TO app;",
    ]
    assert "overridden: nobody reads it since May" in allowed.stdout
