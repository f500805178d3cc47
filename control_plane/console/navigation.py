"""The places of the console; somebody sees those that a role of theirs opens."""

import msgspec


class Place(msgspec.Struct, frozen=True):
    """One entry of the navigation; ``permission`` is an operationId of ``PERMISSIONS``."""

    label: str
    path: str
    permission: str


PLACES = (
    Place("Overview", "/console/", "listTenants"),
    Place("Tenants", "/console/tenants", "listTenants"),
    Place("New tenant", "/console/provision", "createTenant"),
    Place("Operations", "/console/operations", "listOperations"),
    Place("Servers", "/console/servers", "listServers"),
    Place("Backups", "/console/backups", "getBackupStatus"),
    Place("Rollouts", "/console/rollouts", "listRollouts"),
    Place("Audit", "/console/audit", "listAudit"),
    Place("Keys", "/console/keys", "listKeys"),
    Place("People", "/console/people", "listPeople"),
)
