"""API keys and what each role may do: default deny, one complete table (S-24)."""

import datetime as dt
from typing import Literal, get_args
from uuid import UUID

import msgspec

Role = Literal["sales_ops", "operator", "security_admin", "auditor", "app", "breakglass"]
ROLES: tuple[Role, ...] = get_args(Role)
BREAKGLASS_MAX = dt.timedelta(hours=8)


class Principal(msgspec.Struct, frozen=True):
    """Who is calling. ``tenant_id`` binds an ``app`` key to one tenant; ``None`` is every one."""

    key_id: UUID
    name: str
    roles: frozenset[Role]
    tenant_id: UUID | None = None


_READERS: frozenset[Role] = frozenset({"sales_ops", "operator", "security_admin", "auditor"})
_OWN: frozenset[Role] = _READERS | {"app"}

# Every operation of the OpenAPI document, by its operationId. An operation that is missing
# here is refused at start-up, so forgetting one cannot open a door.
PERMISSIONS: dict[str, frozenset[Role]] = {
    "createTenant": frozenset({"sales_ops"}),
    "listTenants": _READERS,
    "getTenant": _OWN,
    "revealDsn": frozenset({"app", "breakglass"}),
    "revealFieldKeys": frozenset({"app", "breakglass"}),
    "suspendTenant": frozenset({"operator", "security_admin"}),
    "resumeTenant": frozenset({"operator", "security_admin"}),
    "rotateCredentials": frozenset({"operator", "security_admin"}),
    "rotateTenantKey": frozenset({"security_admin"}),
    "requestBackup": frozenset({"operator"}),
    "listBackups": _READERS,
    "getBackup": _READERS,
    "verifyBackup": frozenset({"operator"}),
    "listDrills": _READERS,
    "getBackupStatus": _READERS,
    "getBackupSchedule": _READERS,
    "setBackupSchedule": frozenset({"operator"}),
    "clearBackupSchedule": frozenset({"operator"}),
    "listBackupPolicies": _READERS,
    "setBackupPolicy": frozenset({"operator"}),
    "restoreTenant": frozenset({"operator"}),
    "undoRestore": frozenset({"operator"}),
    "archiveTenant": frozenset({"operator"}),
    "unarchiveTenant": frozenset({"operator"}),
    "deleteTenant": frozenset({"security_admin"}),
    "undeleteTenant": frozenset({"security_admin"}),
    "holdTenant": frozenset({"security_admin"}),
    "releaseTenant": frozenset({"security_admin"}),
    "getLegalHold": frozenset({"operator", "security_admin", "auditor"}),
    "getCertificate": frozenset({"operator", "security_admin", "auditor"}),
    "createExport": frozenset({"security_admin"}),
    "listExports": frozenset({"operator", "security_admin", "auditor"}),
    "createExportLink": frozenset({"security_admin"}),
    "addServer": frozenset({"security_admin"}),
    "listServers": frozenset({"operator", "security_admin", "auditor"}),
    "getServer": frozenset({"operator", "security_admin", "auditor"}),
    "drainServer": frozenset({"security_admin"}),
    "undrainServer": frozenset({"security_admin"}),
    "removeServer": frozenset({"security_admin"}),
    "createServer": frozenset({"security_admin"}),
    "listProvidedServers": frozenset({"operator", "security_admin", "auditor"}),
    "deleteServer": frozenset({"security_admin"}),
    "listPoolers": frozenset({"operator", "security_admin", "auditor"}),
    "removePooler": frozenset({"security_admin"}),
    "listOperations": _READERS,
    "getOperation": _OWN,
    "watchOperation": _OWN,
    "cancelOperation": frozenset({"operator"}),
    "retryOperation": frozenset({"operator"}),
    "listAudit": frozenset({"auditor", "security_admin"}),
    "verifyAuditSeals": frozenset({"auditor", "security_admin"}),
    "createKey": frozenset({"security_admin"}),
    "listKeys": frozenset({"security_admin", "auditor"}),
    "revokeKey": frozenset({"security_admin"}),
    "addPerson": frozenset({"security_admin"}),
    "listPeople": frozenset({"security_admin", "auditor"}),
    "disablePerson": frozenset({"security_admin"}),
    "createSignInLink": frozenset({"security_admin"}),
    "startRekey": frozenset({"security_admin"}),
    "runCheck": frozenset({"operator", "security_admin", "auditor"}),
    "examineDeployment": frozenset({"operator", "security_admin", "auditor"}),
    "repairFindings": frozenset({"operator"}),
    "getDrift": frozenset({"operator", "security_admin", "auditor"}),
    "getTenantDrift": frozenset({"operator", "security_admin", "auditor"}),
    "surveyDrift": frozenset({"operator"}),
    "listPlans": _READERS,
    "migrateTenant": frozenset({"operator"}),
    "moveTenant": frozenset({"operator"}),
    "listMoves": frozenset({"operator", "security_admin", "auditor"}),
    "reverseMove": frozenset({"operator"}),
    "finishMove": frozenset({"operator"}),
    "getUsage": _OWN,
    "lookInside": frozenset({"operator", "security_admin", "auditor"}),
    "getNoisy": frozenset({"operator", "security_admin", "auditor"}),
    "proposeMove": frozenset({"operator", "security_admin", "auditor"}),
    "getLimits": _READERS,
    "setLimits": frozenset({"operator"}),
    "resetLimits": frozenset({"operator"}),
    "startRollout": frozenset({"operator"}),
    "listRollouts": _READERS,
    "getRollout": _READERS,
    "listRolloutTargets": _READERS,
    "pauseRollout": frozenset({"operator"}),
    "resumeRollout": frozenset({"operator"}),
    "abortRollout": frozenset({"operator"}),
}


def may(principal: Principal, operation_id: str) -> bool:
    """Whether any of the caller's roles allows this operation."""
    return bool(principal.roles & PERMISSIONS.get(operation_id, frozenset()))


def may_see(principal: Principal, tenant_id: UUID | None) -> bool:
    """Whether the caller may know that this tenant exists."""
    if principal.roles & _READERS:
        return True
    return principal.tenant_id is None or principal.tenant_id == tenant_id
