"""A broken audit log is a finding of ``tenantry check``, unless an operation is at work."""

from uuid import UUID

import msgspec
import pytest

from control_plane.domain.invariants import (
    ExpectedDatabase,
    Finding,
    FoundServer,
    World,
    findings,
)
from control_plane.domain.names import RoleSet, database_name
from control_plane.domain.tenants import TIER_LIMITS

KEY = UUID(int=7)
BROKEN = "audit block 2 is not the one that was anchored"


@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_the_chain_is_looked_at(*, busy: bool) -> None:
    database = ExpectedDatabase(
        id=KEY,
        name=database_name(KEY),
        server="pg-a",
        purpose="primary",
        role_set_id=KEY,
        tenant_state="active",
        slug="acme",
        busy=busy,
        limits=TIER_LIMITS["standard"].login,
        open_logins={},
    )
    server = FoundServer(
        "pg-a", databases={database.name: True}, roles=frozenset(RoleSet(KEY).every)
    )
    whole = World([database], [], [server], [], [], [], frozenset(), frozenset())
    assert findings(whole) == []
    server = msgspec.structs.replace(server, audit_problems={database.name: BROKEN})
    broken = msgspec.structs.replace(whole, servers=[server])
    told = Finding("I-9", "acme", BROKEN, "tenantry audit verify acme")
    assert findings(broken) == ([] if busy else [told])
