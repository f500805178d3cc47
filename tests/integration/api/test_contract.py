"""The API does what its OpenAPI document says, for every role, whatever is sent."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from control_plane.domain.keys import ROLES
from tests.integration.api.world import World
from tests.unit.api_app import offline_app

EXAMPLES = 8
# A stream ends with its operation, a check takes seconds, and enrolling a server that somebody
# made up would knock on addresses that are not ours; each has tests of its own.
NOT_HERE = ["watchOperation", "runCheck", "examineDeployment", "repairFindings", "addServer"]

# Refusals that depend on what there is and who asks; no schema can tell them beforehand.
NOT_IN_A_SCHEMA = (
    '"code":"idempotency_key_reused"',
    "there is no server",
    "is not set up here",
    "new_server goes with the server",
    "this word is reserved",
    "there is no template",
    "has no revision",
    "use rising shares that end with 100%",
    '"code":"revision_refused"',
    "name the new tenant's server in target",
    "only a restore in place has a source that can be lost",
    "to say that it is meant",
    "this is no age recipient",
    "use five fields",
    "there is no time zone",
    "min apart",
    "pass between two backups",
    "a break-glass key says why it looks",
    "with more than spaces",
    "a key that is bound to a tenant has the role app and no other",
    "a key with these roles lives at most 8 hours",
)

with tempfile.TemporaryDirectory() as home:
    DOCUMENT = offline_app(Path(home)).openapi_schema.to_schema()
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(operation_id=NOT_HERE)


@pytest.mark.parametrize("role", [*ROLES, "own app"])
@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_document_is_true(case: schemathesis.Case[Any], role: str, world: World) -> None:
    headers = {"Authorization": f"Bearer {world.tokens[role]}"}
    response = case.call(base_url=world.url, headers=headers)
    refused_by_facts = response.status_code == 422 and any(
        words in response.text for words in NOT_IN_A_SCHEMA
    )
    case.validate_response(
        response, excluded_checks=[positive_data_acceptance] if refused_by_facts else []
    )
