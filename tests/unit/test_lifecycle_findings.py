"""Tenants that are put away or being deleted: clean when all is well, found when it is not."""

from typing import Any
from uuid import UUID

import msgspec
import pytest

from control_plane.domain.invariants import ExpectedRoute, World, findings

KEY = UUID(int=7)
ARCHIVED: dict[str, Any] = {
    "tenant_state": "archived",
    "route_state": "withdrawn",
    "has_database": False,
    "archive_state": "complete",
}
DELETING: dict[str, Any] = {"tenant_state": "deleting", "route_state": "withdrawn"}
ACTIVE: dict[str, Any] = {"tenant_state": "active", "route_state": "published"}


def found(**facts: Any) -> list[tuple[str, str]]:
    """Which invariants a tenant breaks, and in which words."""
    known: dict[str, Any] = {
        "tenant_id": KEY,
        "slug": "acme",
        "pause_is_stale": False,
        "busy": False,
        "operation_failed": "op_9",
    }
    route = ExpectedRoute(**(known | facts))
    told = findings(World([], [route], [], [], [], [], frozenset(), frozenset()))
    busy = msgspec.structs.replace(route, busy=True)
    assert findings(World([], [busy], [], [], [], [], frozenset(), frozenset())) == []
    assert {finding.subject for finding in told} <= {"acme"}
    return [(finding.invariant, finding.message) for finding in told]


@pytest.mark.parametrize(
    "facts",
    [ARCHIVED, DELETING, DELETING | {"has_database": False}, ACTIVE],
    ids=["archived", "in its grace", "purged", "active"],
)
def test_what_is_as_it_should_be_is_no_finding(facts: dict[str, Any]) -> None:
    assert found(**facts) == []


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (
            ARCHIVED | {"route_state": "published"},
            [("I-2", "is archived but its route is published")],
        ),
        (ARCHIVED | {"has_database": True}, [("I-1", "is archived and has a database")]),
        (
            ARCHIVED | {"archive_state": "corrupt"},
            [("I-5", "consists of a backup that is corrupt")],
        ),
        (
            ARCHIVED | {"archive_state": None},
            [("I-5", "consists of a backup that is not on record")],
        ),
        (
            DELETING | {"route_state": "published"},
            [("I-2", "is deleting but its route is published")],
        ),
        (
            DELETING | {"overdue": True},
            [("I-10", "should have been destroyed further, and no operation works on it")],
        ),
        (ACTIVE | {"route_state": "withdrawn"}, [("I-2", "is active but its route is withdrawn")]),
        (ACTIVE | {"has_database": False}, [("I-1", "is active and has no database")]),
        (
            {"tenant_state": "provisioning", "route_state": None},
            [("I-10", "is provisioning and no operation works on it")],
        ),
    ],
)
def test_what_is_not_is_found(facts: dict[str, Any], told: list[tuple[str, str]]) -> None:
    assert found(**facts) == told
