import datetime as dt
from uuid import UUID

import msgspec

from control_plane.api.views import operation_view, rehearsal_view, tenant_view
from control_plane.domain.operations import Operation, Step
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import Tenant

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
KEY = UUID(int=1)


def operation(**changes: object) -> Operation:
    steps = (
        Step("create_roles", "done", 1, NOW, NOW),
        Step("create_database", "skipped", 1, NOW, NOW, "claimed from the pool"),
        Step("apply_template", "running", 2, NOW, None, None, "server_unavailable", "it is away"),
        Step("activate", "pending"),
    )
    whole = Operation(
        id=KEY,
        kind="provision",
        subject="acme",
        state="running",
        queue="control",
        tenant_id=KEY,
        server_id=None,
        database_id=None,
        input={"claimed": True},
        result=None,
        actor="sales",
        epoch=1,
        created_at=NOW,
        started_at=NOW,
        finished_at=None,
        deadline=NOW,
        error_code=None,
        error_message=None,
        steps=steps,
    )
    return msgspec.structs.replace(whole, **changes)


def tenant(**changes: object) -> Tenant:
    whole = Tenant(
        id=KEY,
        slug="acme",
        name="Acme",
        tier="standard",
        region=None,
        labels={},
        state="provisioning",
        server="pg-a",
        template="clinic",
        schema_revision=None,
        placement_reason="pg-a: least loaded",
        cell="cell-1",
        created_at=NOW,
        activated_at=None,
        operation_id=KEY,
        operation_kind="provision",
    )
    return msgspec.structs.replace(whole, **changes)


def test_progress_counts_what_is_behind_and_names_what_runs() -> None:
    seen = operation_view(operation())
    assert (seen.progress.done, seen.progress.total) == (2, 4)
    assert seen.progress.detail == "apply_template"
    assert seen.steps[2].error is not None
    assert seen.steps[2].error.code == "server_unavailable"
    assert seen.steps[0].error is None


def test_an_operation_of_a_tenant_carries_its_slug_and_another_does_not() -> None:
    assert operation_view(operation()).tenant == "acme"
    assert operation_view(operation(tenant_id=None, subject="pg-a")).tenant is None
    assert operation_view(operation(tenant_id=None, subject="pg-a")).subject == "pg-a"


def test_the_json_of_an_operation_has_exactly_the_promised_words() -> None:
    document = msgspec.to_builtins(operation_view(operation(error_code="x", error_message="y")))
    promised = {
        *("id", "kind", "tenant", "state", "created_at", "started_at", "finished_at", "deadline"),
        *("actor", "progress", "steps", "error", "result"),
    }
    assert promised <= set(document)
    assert set(document) - promised == {"subject"}
    assert document["id"] == "op_00000000000000000000000001"
    assert document["created_at"] == "2026-11-22T12:00:00Z"
    assert document["error"] == {"code": "x", "message": "y"}
    steps = {"name", "state", "attempts", "started_at", "finished_at", "detail", "error"}
    assert set(document["steps"][0]) == steps


def test_a_tenant_shows_what_is_in_flight() -> None:
    seen = tenant_view(tenant())
    assert seen.operation is not None
    assert (seen.operation.id[:3], seen.operation.kind) == ("op_", "provision")
    assert tenant_view(tenant(operation_id=None, operation_kind=None)).operation is None


def test_a_rehearsal_tells_steps_and_placement() -> None:
    seen = rehearsal_view(operation(), tenant())
    assert seen.steps == ["create_roles", "create_database", "apply_template", "activate"]
    assert seen.placement is not None
    assert (seen.placement.server, seen.placement.claimed) == ("pg-a", True)
    assert seen.deadline_seconds == PLANS["provision"].deadline.total_seconds()
    assert rehearsal_view(operation(kind="suspend")).placement is None
