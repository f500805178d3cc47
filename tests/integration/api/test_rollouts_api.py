"""Rollouts and migrations over HTTP, on a real catalog without workers: what is recorded stays."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from control_plane.catalog import databases, servers, tenants
from control_plane.config import REPOSITORY, Settings
from control_plane.domain.names import parse
from tests.integration.api.test_operations import walk
from tests.integration.api.test_problems import fields, problem
from tests.integration.api.world import (
    World,
    furnish,
    make_catalog,
    open_ports_for,
    running_api,
)
from tests.integration.tenant_server.postgres_fixture import TenantServer

# A template's fingerprint is remembered for half a second.
FRESH_SECONDS = 0.6
LAB = [f"lab-{number:02}" for number in range(20)]
ENVIRONMENT = REPOSITORY / "tests" / "templates" / "lab"
BASE = 'op.execute("CREATE TABLE lab.sample (id uuid PRIMARY KEY, kind text)")'
INDEX = """with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS kinds ON lab.sample (kind)")"""
COLUMN = """op.execute("ALTER TABLE lab.sample ADD COLUMN drawn_at timestamptz")
    op.execute("GRANT SELECT ON lab.sample TO cp_template_app")"""
RASH = """op.execute("ALTER TABLE lab.sample DROP COLUMN kind")
    op.execute("CREATE INDEX late ON lab.sample (id) WHERE now() > '2026-01-01'")"""
RESTLESS = """from pathlib import Path
    import time
    Path(__file__).with_suffix(".sql").write_text(str(time.time_ns()))"""
KEPT = 'lint_overrides = {"drop-column": "nobody has read it since May"}'


def write_revision(directory: Path, number: str, upgrade: str, more: str = "") -> None:
    down = f'"{int(number) - 1:04}"' if number != "0001" else "None"
    (directory / "versions" / f"{number}.py").write_text(
        f'"""Revision {number}."""\n\nfrom alembic import op\n\nrevision = "{number}"\n'
        f"down_revision = {down}\n{more}\n\n\ndef upgrade() -> None:\n    {upgrade}\n"
    )


def new_template(directory: Path, *upgrades: str) -> Path:
    (directory / "versions").mkdir(parents=True)
    for name in ("env.py", "alembic.ini"):
        shutil.copy(ENVIRONMENT / name, directory)
    for number, upgrade in enumerate(upgrades, start=1):
        write_revision(directory, f"{number:04}", upgrade)
    return directory


class Fleet(World):
    """A world whose tenants are of several classes."""

    template = "clinic"

    async def new_tenant(self, slug: str) -> dict[str, Any]:
        wanted = {"slug": slug, "name": slug, "template": self.template}
        async with self.client() as client:
            answer = await client.post("/v1/tenants", json=wanted)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def add(self, template: str, *slugs: str, revision: str = "0001") -> None:
        """Active tenants of a class, all at one revision."""
        self.template = template
        for slug in slugs:
            await self.active_tenant(slug)
            async with self.ports.catalog.transaction() as db:
                tenant = await tenants.find(db, slug)
                database = await databases.primary(db, tenant.id)
                await databases.record_schema(db, database.id, revision)

    async def change(self, sql: str, *arguments: object) -> None:
        """What a worker would have written."""
        async with self.ports.catalog.transaction() as db:
            await db.execute(sql, *arguments)

    async def forget(self) -> None:
        """No rollout and no operation is alive."""
        await self.change("DELETE FROM rollout_targets")
        await self.change("DELETE FROM rollouts")
        await self.change(
            """UPDATE operations SET state = 'cancelled', finished_at = clock_timestamp()
               WHERE state IN ('pending', 'running', 'waiting', 'cancelling')"""
        )


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tenantry-rollouts-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def settings(catalog_postgres: TenantServer, home: Path) -> Settings:
    made = make_catalog(catalog_postgres, "rollout_tests", home)
    classes = {
        "lab": new_template(home / "lab", BASE, INDEX, COLUMN),
        "rash": new_template(home / "rash", BASE, RASH),
        "broken": new_template(home / "broken", "raise RuntimeError('not finished')"),
        "restless": new_template(home / "restless", RESTLESS),
    }
    return msgspec.structs.replace(made, templates=made.templates | classes)


@pytest.fixture(scope="module")
async def fleet(catalog_postgres: TenantServer, settings: Settings) -> AsyncIterator[Fleet]:
    """20 tenants of class lab at 0001, one at a revision that is nowhere, one of class rash."""
    named = {name: at for name, at in settings.templates.items() if name != "clinic"}
    environment = {"TENANTRY_TEMPLATES": ",".join(f"{n}={at}" for n, at in named.items())}
    with running_api(settings, environment) as (url, log):
        ports = open_ports_for(settings)
        await ports.catalog.open(max_size=4)
        await furnish(ports, catalog_postgres)
        fleet = Fleet(url, ports, log)
        async with ports.catalog.transaction() as db:
            (server,) = await servers.every(db)
            for name in ("lab", "rash"):
                made = ports.templates.current(name)
                await servers.record_template(
                    db,
                    server.id,
                    template=name,
                    fingerprint=made.fingerprint,
                    revision=made.revision,
                )
        fleet.tokens["admin"] = await fleet.key("sales_ops", "operator", "auditor")
        fleet.tokens["sales_ops"] = await fleet.key("sales_ops")
        await fleet.add("lab", *LAB)
        await fleet.add("lab", "lab-odd", revision="9999")
        await fleet.add("rash", "rash-1")
        yield fleet
        await ports.catalog.close()


@pytest.fixture
async def operator(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with fleet.client() as client:
        yield client
    await fleet.forget()


async def start(operator: httpx.AsyncClient, **wanted: object) -> str:
    """The id of a new rollout of the labs."""
    answer = await operator.post("/v1/rollouts", json={"template": "lab", **wanted})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["subject"])


async def show(operator: httpx.AsyncClient, rollout: str) -> dict[str, Any]:
    answer = await operator.get(f"/v1/rollouts/{rollout}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_rollout_is_an_operation_with_a_place_to_look(
    operator: httpx.AsyncClient,
) -> None:
    answer = await operator.post(
        "/v1/rollouts",
        json={
            "template": "lab",
            "canary": 2,
            "waves": ["50%", "100%"],
            "halt_at": "2.5%",
            "max_parallel": 7,
            "lock_timeout": 0.5,
        },
    )
    operation = answer.json()
    assert (answer.status_code, operation["kind"]) == (202, "rollout")
    assert answer.headers["location"] == f"/v1/operations/{operation['id']}"
    found = await show(operator, operation["subject"])
    assert (found["operation"], found["state"]) == (operation["id"], "running")
    assert (found["to_revision"], found["total"], found["done"]) == ("0003", 20, 0)
    assert [(w["name"], w["tenants"], w["waiting"]) for w in found["waves"]] == [
        ("the canary", 2, 2),
        ("wave 1", 9, 9),
        ("wave 2", 9, 9),
    ]
    assert found["options"]["waves"] == ["50%", "100%"]
    assert (found["options"]["halt_at"], found["options"]["per_server"]) == ("2.5%", 8)
    listed = (await operator.get("/v1/rollouts")).json()["items"]
    assert [(one["id"], one["total"]) for one in listed] == [(found["id"], 20)]
    events = (await operator.get("/v1/audit")).json()["items"]
    assert (events[0]["action"], events[0]["subject"]) == ("rollout.start", found["id"])


async def test_the_selector_chooses(operator: httpx.AsyncClient) -> None:
    chosen = await start(operator, select={"tenants": ["lab-03", "lab-01"], "servers": ["pg-a"]})
    path = f"/v1/rollouts/{chosen}/targets"
    targets = (await operator.get(path)).json()["items"]
    assert [target["tenant"] for target in targets] == ["lab-01", "lab-03"]
    await operator.post(f"/v1/rollouts/{chosen}/abort")


async def test_an_empty_selection_is_a_rollout_of_nobody(operator: httpx.AsyncClient) -> None:
    found = await show(operator, await start(operator, select={"labels": {"team": "nobody"}}))
    assert (found["total"], found["waves"], found["seconds_left"]) == (0, [], None)


async def test_the_tenants_of_a_rollout_are_paged_in_their_order(
    fleet: Fleet, operator: httpx.AsyncClient
) -> None:
    rollout = await start(operator)
    path = f"/v1/rollouts/{rollout}/targets"
    targets = await walk(operator, path)
    assert [target["tenant"] for target in targets] == LAB
    assert [target["wave"] for target in targets] == sorted(t["wave"] for t in targets)
    assert targets[0]["from_revision"] == "0001"
    assert (targets[0]["state"], targets[0]["operation"]) == ("waiting", None)
    await _end_targets(fleet, rollout, "failed", "lock_timeout", ["lab-04"])
    assert [t["tenant"] for t in await walk(operator, path, state="failed")] == ["lab-04"]
    assert len(await walk(operator, path, state="waiting")) == 19


async def _end_targets(
    fleet: Fleet, rollout: str, state: str, code: str | None, slugs: list[str]
) -> None:
    await fleet.change(
        """UPDATE rollout_targets r
           SET state = $2, attempts = 1, started_at = clock_timestamp() - interval '10 s',
               finished_at = clock_timestamp(), error_code = $3,
               error_message = CASE WHEN $3::text IS NOT NULL THEN t.slug || ' is in the way' END
           FROM tenants t WHERE t.id = r.tenant_id AND r.rollout_id = $1 AND t.slug = ANY ($4)""",
        parse("ro", rollout),
        state,
        code,
        slugs,
    )


async def test_failures_are_grouped_by_their_code(
    fleet: Fleet, operator: httpx.AsyncClient
) -> None:
    rollout = await start(operator)
    await _end_targets(fleet, rollout, "failed", "revision_failed", LAB[3:10])
    await _end_targets(fleet, rollout, "failed", "disk_full", [LAB[0]])
    found = await show(operator, rollout)
    assert found["failures"] == [
        {
            "code": "revision_failed",
            "tenants": 7,
            "message": "lab-03 is in the way",
            "sample": LAB[3:8],
        },
        {
            "code": "disk_full",
            "tenants": 1,
            "message": "lab-00 is in the way",
            "sample": ["lab-00"],
        },
    ]
    listed = (await operator.get("/v1/rollouts")).json()["items"][0]
    assert (found["failed"], listed["failed"]) == (8, 8)


async def test_the_end_is_estimated_from_the_pace(
    fleet: Fleet, operator: httpx.AsyncClient
) -> None:
    rollout = await start(operator)
    assert (await show(operator, rollout))["seconds_left"] is None
    await _end_targets(fleet, rollout, "done", None, LAB[:5])
    found = await show(operator, rollout)
    # 5 in 10 seconds: the other 15 need 30.
    assert found["seconds_left"] == pytest.approx(30, rel=0.05)
    assert (found["done"], found["waves"][0]["done"]) == (5, 1)
    target = (await operator.get(f"/v1/rollouts/{rollout}/targets")).json()["items"][0]
    assert target["seconds"] == pytest.approx(10, rel=0.05)
    paused = (await operator.post(f"/v1/rollouts/{rollout}/pause")).json()
    assert paused["seconds_left"] is None


async def test_pause_and_resume(fleet: Fleet, operator: httpx.AsyncClient) -> None:
    rollout = await start(operator)
    path = f"/v1/rollouts/{rollout}"
    paused = await operator.post(f"{path}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert paused.json()["reason"].startswith("paused by ")
    assert (await operator.post(f"{path}/pause")).status_code == 200
    await _end_targets(fleet, rollout, "failed", "revision_failed", LAB[:3])
    resumed = await operator.post(f"{path}/resume")
    assert (resumed.status_code, resumed.json()["subject"]) == (202, rollout)
    assert resumed.headers["location"] == f"/v1/operations/{resumed.json()['id']}"
    found = await show(operator, rollout)
    assert (found["state"], found["reason"], found["failed"]) == ("running", None, 0)
    assert found["waves"][0]["waiting"] == 1
    refused = problem(await operator.post(f"{path}/resume"), 409, "wrong_state")
    assert "is running; there is nothing to resume" in refused["detail"]


async def test_a_halted_rollout_is_resumed_with_the_files_as_they_are_now(
    fleet: Fleet, settings: Settings, operator: httpx.AsyncClient
) -> None:
    rollout = await start(operator, revision="0002")
    await fleet.change("UPDATE rollouts SET state = 'halted', reason = '3 failed'")
    problem(await operator.post(f"/v1/rollouts/{rollout}/pause"), 409, "wrong_state")
    before = await _script(fleet)
    kept = (settings.templates["lab"] / "versions" / "0002.py").read_text()
    mended = INDEX.replace("IF NOT EXISTS kinds", "IF NOT EXISTS mended")
    try:
        write_revision(settings.templates["lab"], "0002", mended)
        answer = await operator.post(f"/v1/rollouts/{rollout}/resume")
    finally:
        (settings.templates["lab"] / "versions" / "0002.py").write_text(kept)
    assert answer.status_code == 202, answer.text
    after = await _script(fleet)
    assert ("mended" in str(before[1]), "mended" in str(after[1])) == (False, True)
    assert [revision["id"] for revision in after[1]] == ["0001", "0002"]
    assert before[0] != after[0]
    assert (await show(operator, rollout))["to_revision"] == "0002"


async def _script(fleet: Fleet) -> tuple[str, list[dict[str, Any]]]:
    async with fleet.ports.catalog.connection() as db:
        row = await db.fetchrow("SELECT content, script FROM rollouts")
    assert row is not None
    return row["content"], row["script"]


async def test_an_incomplete_rollout_is_opened_again(
    fleet: Fleet, operator: httpx.AsyncClient
) -> None:
    rollout = await start(operator)
    await fleet.change(
        """UPDATE operations SET state = 'failed', finished_at = clock_timestamp(),
               error_code = 'rollout_incomplete', error_message = '3 are left'
           WHERE subject = $1""",
        rollout,
    )
    await fleet.change("UPDATE rollouts SET state = 'incomplete', finished_at = clock_timestamp()")
    problem(await operator.post(f"/v1/rollouts/{rollout}/abort"), 409, "wrong_state")
    answer = await operator.post(f"/v1/rollouts/{rollout}/resume")
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    assert answer.json()["error"] is None
    found = await show(operator, rollout)
    assert (found["state"], found["finished_at"]) == ("running", None)


async def test_abort_asks_the_operation_to_stop(operator: httpx.AsyncClient) -> None:
    rollout = await start(operator)
    answer = await operator.post(f"/v1/rollouts/{rollout}/abort")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert (await show(operator, rollout))["reason"].startswith("aborted by ")
    events = (await operator.get("/v1/audit")).json()["items"]
    assert (events[0]["action"], events[0]["subject"]) == ("rollout.abort", rollout)


async def test_a_rollout_that_is_being_aborted_neither_pauses_nor_goes_on(
    operator: httpx.AsyncClient,
) -> None:
    rollout = await start(operator)
    path = f"/v1/rollouts/{rollout}"
    await operator.post(f"{path}/abort")
    for verb in ("pause", "resume"):
        refused = problem(await operator.post(f"{path}/{verb}"), 409, "wrong_state")
        assert f"rollout {rollout} is being aborted" in refused["detail"]
    found = await show(operator, rollout)
    assert (found["state"], found["reason"].startswith("aborted by ")) == ("paused", True)


async def test_a_broken_template_makes_no_tenant(
    settings: Settings, operator: httpx.AsyncClient
) -> None:
    half = settings.templates["rash"] / "versions" / "0003.py"
    half.write_text("revision = '0003'\ndown_revision =")
    try:
        await asyncio.sleep(FRESH_SECONDS)
        wanted = {"slug": "rash-2", "name": "Rash", "template": "rash"}
        answer = await operator.post("/v1/tenants", json=wanted)
    finally:
        half.unlink()
    # It names a file of the template's author, which ``problem`` would take for one of ours.
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "versions/0003.py line 2: SyntaxError" in answer.json()["detail"]


async def test_one_rollout_of_a_template_at_a_time(operator: httpx.AsyncClient) -> None:
    rollout = await start(operator)
    second = {"template": "lab", "revision": "0002"}
    refused = problem(await operator.post("/v1/rollouts", json=second), 409, "conflict")
    assert f"rollout {rollout} of template lab is running" in refused["detail"]
    preview = (await operator.post("/v1/rollouts?dry_run=true", json=second)).json()
    assert rollout in preview["refusal"]
    assert (await operator.post("/v1/rollouts", json={})).status_code == 202


async def test_a_repeat_gets_the_first_answer(operator: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "rollout-once"}
    answers = [
        await operator.post("/v1/rollouts", json={"template": "lab"}, headers=headers)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert len((await operator.get("/v1/rollouts")).json()["items"]) == 1
    rollout = answers[0].json()["subject"]
    await operator.post(f"/v1/rollouts/{rollout}/pause")
    again = [
        await operator.post(f"/v1/rollouts/{rollout}/resume", headers={"Idempotency-Key": "go-on"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in again] == [202, 202]


async def test_a_dry_run_shows_waves_and_sql_and_changes_nothing(
    operator: httpx.AsyncClient,
) -> None:
    answer = await operator.post("/v1/rollouts?dry_run=true", json={"template": "lab"})
    preview = answer.json()
    assert (answer.status_code, preview["refusal"], preview["tenants"]) == (200, None, 20)
    assert (preview["template"], preview["to_revision"]) == ("lab", "0003")
    assert [(w["name"], w["tenants"]) for w in preview["waves"]] == [
        ("the canary", 1),
        ("wave 2", 4),
        ("wave 3", 15),
    ]
    assert preview["waves"][1]["sample"] == LAB[1:5]
    assert preview["left_out"] == ["lab-odd"]
    index, column = preview["revisions"]
    assert (index["id"], index["transactional"]) == ("0002", False)
    assert index["sql"][0].startswith("CREATE INDEX CONCURRENTLY")
    assert column["sql"][:2] == [
        "ALTER TABLE lab.sample ADD COLUMN drawn_at timestamptz",
        "GRANT SELECT ON lab.sample TO app",
    ]
    assert (await operator.get("/v1/rollouts")).json()["items"] == []


async def test_the_lint_refuses_with_every_finding(
    settings: Settings, operator: httpx.AsyncClient
) -> None:
    wanted = {"template": "rash"}
    refused = problem(await operator.post("/v1/rollouts", json=wanted), 422, "revision_refused")
    rules = {"0002:drop-column", "0002:index-not-concurrent", "0002:unstable-index-predicate"}
    assert set(fields(refused)) == rules
    preview = (await operator.post("/v1/rollouts?dry_run=true", json=wanted)).json()
    assert {f"{one['revision']}:{one['rule']}" for one in preview["findings"]} == rules
    assert all(one["remedy"] and one["overridden"] is None for one in preview["findings"])
    assert preview["refusal"] == refused["detail"]
    migrate = await operator.post("/v1/tenants/rash-1/migrations")
    assert set(fields(problem(migrate, 422, "revision_refused"))) == rules
    try:
        write_revision(settings.templates["rash"], "0002", RASH.split("\n", maxsplit=1)[0], KEPT)
        preview = (await operator.post("/v1/rollouts?dry_run=true", json=wanted)).json()
        assert [one["overridden"] for one in preview["findings"]] == [
            "nobody has read it since May"
        ]
        assert preview["refusal"] is None
        assert (await operator.post("/v1/rollouts", json=wanted)).status_code == 202
        facts = (await operator.get("/v1/audit")).json()["items"][0]["facts"]
        assert facts["overrides"] == {"0002:drop-column": "nobody has read it since May"}
    finally:
        write_revision(settings.templates["rash"], "0002", RASH)


@pytest.mark.parametrize(
    ("wanted", "status", "code", "words"),
    [
        ({"template": "dental"}, 422, "invalid", "no template 'dental'"),
        ({"template": "lab", "revision": "0009"}, 422, "invalid", "no revision '0009'"),
        ({"template": "broken"}, 409, "conflict", "0001"),
        ({"template": "restless"}, 409, "conflict", "template restless are being changed"),
        (
            {"template": "lab", "select": {"servers": ["pg-a", "pg-z"]}},
            422,
            "invalid",
            "select: there is no server pg-z; see: tenantry servers list",
        ),
        ({"template": "lab", "select": {"tenants": ["nobody"]}}, 404, "not_found", "'nobody'"),
        (
            {"template": "lab", "select": {"tenants": ["rash-1"]}},
            409,
            "wrong_state",
            "rash-1 is made from template rash, not lab",
        ),
        ({"halt_at": "0.02"}, 422, "invalid", "use a percentage from 0% to 100%"),
        ({"waves": ["5%", "120%"]}, 422, "invalid", "use a percentage from 0% to 100%"),
        ({"waves": ["50%", "25%", "100%"]}, 422, "invalid", "waves: use rising shares"),
        ({"waves": ["5%", "25%"]}, 422, "invalid", "end with 100%"),
        ({"waves": []}, 422, "invalid", "waves: must not be empty"),
        ({"select": {"tiers": ["gold"]}}, 422, "invalid", "is none of: standard, enterprise"),
        ({"select": {"slugs": ["a"]}}, 422, "invalid", "slugs: there is no such field"),
        ({"canary": -1}, 422, "invalid", "at least 0"),
        ({"max_parallel": 1000}, 422, "invalid", "at most 256"),
        ({"lock_timeout": 0}, 422, "invalid", "lock_timeout: use 0.1 to 60 seconds"),
        ({"statement_timeout": 4000}, 422, "invalid", "statement_timeout: use 1 to 3600 seconds"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    operator: httpx.AsyncClient, wanted: dict[str, Any], status: int, code: str, words: str
) -> None:
    for path in ("/v1/rollouts", "/v1/rollouts?dry_run=true"):
        refused = await operator.post(path, json=wanted)
        document = refused.json()
        assert (refused.status_code, document["code"]) == (status, code), document
        assert words in document["detail"]
    assert (await operator.get("/v1/rollouts")).json()["items"] == []


@pytest.mark.parametrize("rollout", ["ro_" + "0" * 26, "op_" + "0" * 26, "nothing"])
async def test_what_is_not_there(operator: httpx.AsyncClient, rollout: str) -> None:
    path = f"/v1/rollouts/{rollout}"
    for answer in (
        await operator.get(path),
        await operator.get(f"{path}/targets"),
        await operator.post(f"{path}/pause"),
        await operator.post(f"{path}/resume"),
        await operator.post(f"{path}/abort"),
    ):
        problem(answer, 404, "not_found")


async def test_a_state_that_targets_do_not_have(operator: httpx.AsyncClient) -> None:
    rollout = await start(operator)
    refused = await operator.get(f"/v1/rollouts/{rollout}/targets?state=lost")
    document = problem(refused, 422, "invalid")
    assert fields(document) == ["state"]
    assert "waiting, running, done, failed, skipped" in document["detail"]


async def test_who_may_only_sell_starts_nothing(fleet: Fleet) -> None:
    async with fleet.client(fleet.tokens["sales_ops"]) as client:
        problem(await client.post("/v1/rollouts", json={}), 403, "denied")
        problem(await client.post("/v1/tenants/lab-00/migrations"), 403, "denied")
        assert (await client.get("/v1/rollouts")).status_code == 200


async def test_one_tenant_is_migrated(operator: httpx.AsyncClient) -> None:
    answer = await operator.post("/v1/tenants/lab-00/migrations", json={"revision": "0002"})
    operation = answer.json()
    assert (answer.status_code, operation["kind"], operation["tenant"]) == (
        *(202, "migrate"),
        "lab-00",
    )
    assert answer.headers["location"] == f"/v1/operations/{operation['id']}"
    busy = problem(
        await operator.post("/v1/tenants/lab-00/migrations"), 409, "operation_in_progress"
    )
    assert busy["operation"] == operation["id"]
    events = (await operator.get("/v1/audit", params={"tenant": "lab-00"})).json()["items"]
    assert events[0]["action"] == "tenant.migrate"
    assert events[0]["facts"] == {"from": "0001", "to": "0002"}


async def test_the_dry_run_of_a_migration_shows_what_the_tenant_lacks(
    operator: httpx.AsyncClient,
) -> None:
    answer = await operator.post("/v1/tenants/lab-00/migrations?dry_run=true")
    preview = answer.json()
    assert answer.status_code == 200, answer.text
    assert preview["steps"][1] == "apply_revision"
    assert (preview["from_revision"], preview["to_revision"]) == ("0001", "0003")
    assert [revision["id"] for revision in preview["revisions"]] == ["0002", "0003"]
    assert (preview["findings"], preview["refusal"]) == ([], None)
    rash = (await operator.post("/v1/tenants/rash-1/migrations?dry_run=true")).json()
    assert len(rash["findings"]) == 3
    assert "0002" in rash["refusal"]
    operations = (await operator.get("/v1/operations", params={"tenant": "lab-00"})).json()
    assert "pending" not in {one["state"] for one in operations["items"]}


async def test_a_migration_that_cannot_be_meant(operator: httpx.AsyncClient) -> None:
    for query in ("", "?dry_run=true"):
        away = await operator.post(f"/v1/tenants/nobody/migrations{query}")
        problem(away, 404, "not_found")
        odd = problem(
            await operator.post(f"/v1/tenants/lab-odd/migrations{query}"), 409, "wrong_state"
        )
        assert "lab-odd is at 9999, which is not on the path to 0003" in odd["detail"]
        unknown = await operator.post(
            f"/v1/tenants/lab-00/migrations{query}", json={"revision": "0009"}
        )
        problem(unknown, 422, "invalid")


async def test_the_template_of_a_tenant(operator: httpx.AsyncClient) -> None:
    assert (await operator.get("/v1/tenants/lab-00")).json()["template"] == "lab"
    refused = await operator.post(
        "/v1/tenants", json={"slug": "toothache", "name": "a", "template": "dental"}
    )
    document = problem(refused, 422, "invalid")
    assert fields(document) == ["template"]
    assert "there are clinic, lab, rash, broken" in document["detail"]
