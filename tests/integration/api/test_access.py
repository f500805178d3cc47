"""S-24: the whole matrix of operations and callers over HTTP, and what refusals leave behind."""

from typing import Any

import httpx
import pytest

from control_plane.domain.keys import PERMISSIONS, ROLES
from tests.integration.api.conftest import OTHER, OWN
from tests.integration.api.world import World

UNKNOWN_OPERATION = "op_" + "0" * 26
UNKNOWN_KEY = "ky_" + "0" * 26
UNKNOWN_PERSON = "pe_" + "0" * 26
UNKNOWN_ROLLOUT = "ro_" + "0" * 26
UNKNOWN_BACKUP = "bk_" + "0" * 26
UNKNOWN_EXPORT = "ex_" + "0" * 26
AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudrk4e4qkzh9m0"
CALLERS = [*ROLES, "own app", "other app"]

# One harmless request per operation; ``{tenant}`` is filled in. Where an operation would change
# something, the request is one that a permitted caller is told off for (404, 409, 422).
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "createTenant": ("POST", "/v1/tenants", {"json": {}}),
    "listTenants": ("GET", "/v1/tenants", {}),
    "getTenant": ("GET", "/v1/tenants/{tenant}", {}),
    "revealDsn": ("POST", "/v1/tenants/{tenant}/dsn", {"json": {"reason": "matrix"}}),
    "revealFieldKeys": ("POST", "/v1/tenants/{tenant}/field-keys", {"json": {"reason": "matrix"}}),
    "suspendTenant": ("POST", "/v1/tenants/{tenant}/suspensions?dry_run=true", {}),
    "resumeTenant": ("DELETE", "/v1/tenants/{tenant}/suspensions?dry_run=true", {}),
    "rotateCredentials": ("POST", "/v1/tenants/{tenant}/rotations?dry_run=true", {}),
    "rotateTenantKey": (
        "POST",
        "/v1/tenants/{tenant}/key-rotations",
        {"json": {"replaces": 999}},
    ),
    "requestBackup": ("POST", "/v1/tenants/{tenant}/backups", {}),
    "listBackups": ("GET", "/v1/tenants/{tenant}/backups", {}),
    "getBackup": ("GET", f"/v1/backups/{UNKNOWN_BACKUP}", {}),
    "verifyBackup": ("POST", f"/v1/backups/{UNKNOWN_BACKUP}/verifications", {}),
    "listDrills": ("GET", "/v1/drills", {}),
    "getBackupStatus": ("GET", "/v1/backup-status", {}),
    "getBackupSchedule": ("GET", "/v1/tenants/{tenant}/backup-schedule", {}),
    "setBackupSchedule": (
        "PUT",
        "/v1/tenants/{tenant}/backup-schedule?dry_run=true",
        {"json": {"cron": "0 2 * * *"}},
    ),
    "clearBackupSchedule": ("DELETE", "/v1/tenants/{tenant}/backup-schedule?dry_run=true", {}),
    "listBackupPolicies": ("GET", "/v1/backup-policies", {}),
    "setBackupPolicy": ("PUT", "/v1/backup-policies/nowhere", {"json": {"cron": "0 2 * * *"}}),
    "restoreTenant": ("POST", f"/v1/tenants/{OWN}/restores", {"json": {"target": "in_place"}}),
    "undoRestore": ("POST", "/v1/tenants/{tenant}/restores/undo", {}),
    "archiveTenant": ("POST", "/v1/tenants/{tenant}/archives?dry_run=true", {}),
    "unarchiveTenant": ("DELETE", "/v1/tenants/{tenant}/archives?dry_run=true", {}),
    "deleteTenant": ("DELETE", "/v1/tenants/{tenant}?confirm=another&dry_run=true", {}),
    "undeleteTenant": ("POST", "/v1/tenants/{tenant}/undelete?dry_run=true", {}),
    "holdTenant": ("PUT", "/v1/tenants/{tenant}/legal-hold", {"json": {"reason": "matrix"}}),
    "releaseTenant": ("DELETE", "/v1/tenants/{tenant}/legal-hold", {}),
    "getLegalHold": ("GET", "/v1/tenants/{tenant}/legal-hold", {}),
    "getCertificate": ("GET", "/v1/tenants/{tenant}/certificate", {}),
    "createExport": ("POST", "/v1/tenants/{tenant}/exports", {"json": {"recipient": AGE}}),
    "listExports": ("GET", "/v1/tenants/{tenant}/exports", {}),
    "createExportLink": ("POST", f"/v1/exports/{UNKNOWN_EXPORT}/links", {}),
    "addServer": ("POST", "/v1/servers", {"json": {}}),
    "listServers": ("GET", "/v1/servers", {}),
    "getServer": ("GET", "/v1/servers/pg-a", {}),
    "drainServer": ("POST", "/v1/servers/pg-nowhere/drain", {}),
    "undrainServer": ("DELETE", "/v1/servers/pg-nowhere/drain", {}),
    "removeServer": ("DELETE", "/v1/servers/pg-nowhere", {}),
    "createServer": ("POST", "/v1/provided-servers", {"json": {}}),
    "listProvidedServers": ("GET", "/v1/provided-servers", {}),
    "deleteServer": ("DELETE", "/v1/provided-servers/pg-nowhere", {}),
    "listPoolers": ("GET", "/v1/poolers", {}),
    "removePooler": ("DELETE", "/v1/poolers/p-nowhere", {}),
    "listOperations": ("GET", "/v1/operations", {}),
    "getOperation": ("GET", "/v1/operations/{operation}", {}),
    "watchOperation": ("GET", "/v1/operations/{operation}/events", {}),
    "cancelOperation": ("POST", "/v1/operations/{operation}/cancel", {}),
    "retryOperation": ("POST", "/v1/operations/{operation}/retry", {}),
    "listAudit": ("GET", "/v1/audit", {}),
    "verifyAuditSeals": ("GET", "/v1/tenants/{tenant}/audit-seals/verification", {}),
    "createKey": ("POST", "/v1/keys", {"json": {}}),
    "listKeys": ("GET", "/v1/keys", {}),
    "revokeKey": ("DELETE", f"/v1/keys/{UNKNOWN_KEY}", {}),
    "addPerson": ("POST", "/v1/people", {"json": {}}),
    "listPeople": ("GET", "/v1/people", {}),
    "disablePerson": ("DELETE", f"/v1/people/{UNKNOWN_PERSON}", {}),
    "createSignInLink": ("POST", f"/v1/people/{UNKNOWN_PERSON}/links", {}),
    "startRekey": ("POST", "/v1/keys/rekeys?dry_run=true", {}),
    "runCheck": ("GET", "/v1/check?nonsense=1", {}),
    "examineDeployment": ("GET", "/v1/doctor?nonsense=1", {}),
    "repairFindings": ("POST", "/v1/check/repairs?nonsense=1", {}),
    "getDrift": ("GET", "/v1/drift", {}),
    "getTenantDrift": ("GET", "/v1/tenants/{tenant}/drift", {}),
    "surveyDrift": ("POST", "/v1/drift/surveys", {"json": {"tenants": []}}),
    "listPlans": ("GET", "/v1/plans", {}),
    "migrateTenant": ("POST", "/v1/tenants/{tenant}/migrations?dry_run=true", {}),
    "moveTenant": (
        "POST",
        "/v1/tenants/{tenant}/moves?dry_run=true",
        {"json": {"server": "nowhere"}},
    ),
    "listMoves": ("GET", "/v1/tenants/{tenant}/moves", {}),
    "reverseMove": ("POST", "/v1/tenants/{tenant}/moves/reverse?dry_run=true", {}),
    "finishMove": ("POST", "/v1/tenants/{tenant}/moves/finish?dry_run=true", {}),
    "getUsage": ("GET", "/v1/tenants/{tenant}/usage", {}),
    "lookInside": ("GET", "/v1/tenants/{tenant}/tables", {}),
    "getNoisy": ("GET", "/v1/noisy", {}),
    "proposeMove": ("GET", "/v1/tenants/{tenant}/moves/proposal", {}),
    "getLimits": ("GET", "/v1/tenants/{tenant}/limits", {}),
    "setLimits": ("PUT", "/v1/tenants/{tenant}/limits?dry_run=true", {"json": {"pool_size": 999}}),
    "resetLimits": ("DELETE", "/v1/tenants/{tenant}/limits?dry_run=true", {}),
    "startRollout": ("POST", "/v1/rollouts", {"json": {"template": "nowhere"}}),
    "listRollouts": ("GET", "/v1/rollouts", {}),
    "getRollout": ("GET", f"/v1/rollouts/{UNKNOWN_ROLLOUT}", {}),
    "listRolloutTargets": ("GET", f"/v1/rollouts/{UNKNOWN_ROLLOUT}/targets", {}),
    "pauseRollout": ("POST", f"/v1/rollouts/{UNKNOWN_ROLLOUT}/pause", {}),
    "resumeRollout": ("POST", f"/v1/rollouts/{UNKNOWN_ROLLOUT}/resume", {}),
    "abortRollout": ("POST", f"/v1/rollouts/{UNKNOWN_ROLLOUT}/abort", {}),
}


async def ask(
    world: World, caller: str | None, operation: str, tenant: str, its_operation: str
) -> httpx.Response:
    method, path, extra = REQUESTS[operation]
    token = world.tokens[caller] if caller is not None else ""
    path = path.replace("{tenant}", tenant).replace("{operation}", its_operation)
    async with world.client(token) as client:
        return await client.request(method, path, **extra)


@pytest.fixture(scope="module")
async def operations(world: World) -> dict[str, str]:
    """The (finished) provisioning of each tenant, and an operation that is not."""
    async with world.client() as client:
        found = {}
        for slug in (OWN, OTHER):
            listed = await client.get("/v1/operations", params={"tenant": slug, "limit": 200})
            found[slug] = listed.json()["items"][-1]["id"]
    return found | {"nobodys-clinic": UNKNOWN_OPERATION}


def test_the_matrix_is_complete() -> None:
    assert set(REQUESTS) == set(PERMISSIONS)


def test_sales_and_operators_never_see_a_secret() -> None:
    assert PERMISSIONS["revealDsn"] == {"app", "breakglass"}
    assert PERMISSIONS["revealFieldKeys"] == {"app", "breakglass"}


def roles_of(caller: str) -> set[str]:
    return {"app"} if caller.endswith(" app") else {caller}


def may_know(caller: str, target: str) -> bool:
    """Whether the target exists as far as this caller is told."""
    if target == "nobodys-clinic":
        return False
    return {"own app": OWN, "other app": OTHER}.get(caller, target) == target


@pytest.mark.parametrize("operation", sorted(PERMISSIONS))
async def test_every_caller_on_every_target(
    world: World, operations: dict[str, str], operation: str
) -> None:
    about_tenant = "{" in REQUESTS[operation][1]
    for target in (OWN, OTHER, "nobodys-clinic") if about_tenant else (OWN,):
        refused = await ask(world, None, operation, target, operations[target])
        assert refused.status_code == 401, operation
        for caller in CALLERS:
            answer = await ask(world, caller, operation, target, operations[target])
            where = f"{caller} {operation} {target}: {answer.text}"
            if not roles_of(caller) & PERMISSIONS[operation]:
                assert answer.status_code == 403, where
            elif about_tenant and not may_know(caller, target):
                assert answer.status_code == 404, where
            else:
                assert answer.status_code in (200, 404, 409, 422), where
                assert not about_tenant or answer.status_code != 404, where


@pytest.mark.parametrize("operation", ["getTenant", "revealDsn", "getOperation", "watchOperation"])
async def test_the_unknown_and_the_foreign_are_the_same(
    world: World, operations: dict[str, str], operation: str
) -> None:
    bodies = []
    for target in (OTHER, "nobodys-clinic"):
        answer = await ask(world, "own app", operation, target, operations[target])
        body = answer.text.replace(operations[target], "IT").replace(target, "IT")
        bodies.append((answer.status_code, body.replace(answer.headers["x-request-id"], "ID")))
    assert bodies[0][0] == 404
    assert bodies[0] == bodies[1]


async def denials(world: World, request_id: str) -> list[dict[str, Any]]:
    async with world.ports.catalog.connection() as db:
        rows = await db.fetch(
            """SELECT actor, action, subject, outcome, host(address) AS address
               FROM audit_events WHERE correlation_id = $1""",
            request_id,
        )
    return [dict(row) for row in rows]


@pytest.mark.parametrize("operation", sorted(PERMISSIONS))
async def test_a_denial_is_one_row(
    world: World, operations: dict[str, str], operation: str
) -> None:
    caller = next(
        role for role in ("app", "auditor", "breakglass") if role not in PERMISSIONS[operation]
    )
    answer = await ask(world, caller, operation, OWN, operations[OWN])
    assert answer.status_code == 403
    (row,) = await denials(world, answer.headers["x-request-id"])
    assert (row["action"], row["outcome"]) == (operation, "denied")
    assert (row["actor"], row["address"]) == (caller, "127.0.0.1")


async def test_looking_for_somebody_elses_tenant_is_on_record(world: World) -> None:
    async with world.client(world.tokens["own app"]) as client:
        answer = await client.post(f"/v1/tenants/{OTHER}/dsn")
    assert answer.status_code == 404
    (row,) = await denials(world, answer.headers["x-request-id"])
    assert (row["action"], row["subject"], row["outcome"]) == ("revealDsn", OTHER, "denied")


async def test_an_ordinary_404_is_not_a_denial(world: World) -> None:
    async with world.client(world.tokens["auditor"]) as client:
        answer = await client.get("/v1/tenants/nobodys-clinic")
    assert answer.status_code == 404
    assert await denials(world, answer.headers["x-request-id"]) == []


async def test_options_tell_methods_and_nothing_else(world: World) -> None:
    async with world.client("") as client:
        answer = await client.options("/v1/tenants")
    assert answer.status_code == 204
    assert answer.headers["allow"] == "GET, OPTIONS, POST"
    assert answer.content == b""
