"""``tenantry drift``: what a person and a script are told, and the exit code."""

from typing import Any

from tests.unit.cli.canned_api import NOW, CannedApi
from tests.unit.cli.conftest import Run

GOLDEN, OTHER = "a" * 64, "b" * 64


def operation(state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "op_1",
        "kind": "survey",
        "subject": "fleet",
        "tenant": None,
        "state": state,
        "steps": [],
        "created_at": NOW,
        "finished_at": NOW,
        "error": None,
        **more,
    }


def group(*slugs: str, **more: Any) -> dict[str, Any]:
    return {
        "template": "clinic",
        "revision": "0011",
        "postgres_major": 15,
        "fingerprint": GOLDEN,
        "golden": GOLDEN,
        "matches": True,
        "tenants": len(slugs),
        "sample": list(slugs),
        "oldest_reading": NOW,
        **more,
    }


def drifted(**more: Any) -> dict[str, Any]:
    return {
        "tenant": "acme",
        "template": "clinic",
        "revision": "0011",
        "postgres_major": 15,
        "fingerprint": OTHER,
        "golden": GOLDEN,
        "matches": False,
        "read_at": NOW,
        "changes": [
            {
                "kind": "index",
                "name": "public.i",
                "action": "missing",
                "golden": "CREATE INDEX i ON public.t (x)",
                "found": None,
            }
        ],
        "ddl": ["-- missing index public.i\nCREATE INDEX i\n    ON public.t (x\x1b[2J);"],
        **more,
    }


def surveying(canned: CannedApi, state: str = "succeeded", **more: Any) -> None:
    canned.on("POST", "/v1/drift/surveys", operation("pending"))
    canned.on("GET", "/v1/operations/op_1", operation(state, **more))


def test_a_clean_fleet_exits_0_after_a_survey(run: Run, canned: CannedApi) -> None:
    surveying(canned)
    canned.on("GET", "/v1/drift", {"groups": [group("acme", "beta")]})

    result = run("drift")

    assert result.code == 0
    assert [one.body for one in canned.requests("POST", "/v1/drift/surveys")] == [{}]
    assert "survey fleet: succeeded" in result.stdout
    assert "acme, beta" in result.stdout


def test_a_fleet_that_differs_exits_1_and_says_where_to_look(run: Run, canned: CannedApi) -> None:
    groups = [group("acme"), group("beta", fingerprint=OTHER, matches=False)]
    groups.append(group("new", fingerprint=None, matches=None))
    canned.on("GET", "/v1/drift", {"groups": groups})

    plain, as_json = run("drift", "--cached"), run("drift", "--cached", "--json")

    assert (plain.code, as_json.code) == (1, 1)
    assert canned.requests("POST", "/v1/drift/surveys") == []
    assert "differs" in plain.stdout
    assert plain.stderr.splitlines() == [
        "1 tenants cannot be judged: never read, not reachable, or no golden schema",
        "see what differs with: tenantry drift beta --cached",
    ]
    assert as_json.json == {"groups": groups}


def test_the_difference_of_a_tenant_is_ddl_that_cannot_steer_the_terminal(
    run: Run, canned: CannedApi
) -> None:
    surveying(canned)
    canned.on("GET", "/v1/tenants/acme/drift", drifted())

    result = run("drift", "acme")

    assert result.code == 1
    assert [one.body for one in canned.requests("POST", "/v1/drift/surveys")] == [
        {"tenants": ["acme"]}
    ]
    assert result.stdout.splitlines()[-5:] == [
        "-- missing index public.i",
        "CREATE INDEX i",
        "    ON public.t (x?[2J);",
        "",
        "acme differs from revision 0011 in 1 object",
    ]


def test_with_json_a_survey_is_waited_for_without_a_word(run: Run, canned: CannedApi) -> None:
    surveying(canned)
    canned.on("GET", "/v1/tenants/acme/drift", drifted(matches=True, changes=[], ddl=[]))

    result = run("drift", "acme", "--json")

    assert (result.code, result.stderr) == (0, "")
    assert result.json["matches"] is True


def test_a_survey_that_fails_is_no_answer(run: Run, canned: CannedApi) -> None:
    surveying(canned, "failed", error={"code": "internal", "message": "a bug"})
    canned.on("GET", "/v1/drift", {"groups": [group("acme")]})

    plain, as_json = run("drift"), run("drift", "--json")

    assert (plain.code, as_json.code) == (1, 1)
    assert canned.requests("GET", "/v1/drift") == []
    assert as_json.json["detail"] == "survey op_1: a bug"
