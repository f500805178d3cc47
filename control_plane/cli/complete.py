"""Values for shell completion, asked of the API; silence when it does not answer."""

from collections.abc import Callable

import click

from control_plane.cli.problems import Problem
from control_plane.cli.session import Session

_MOST = 200
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _names(path: str, field: str) -> Complete:
    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
        del parameter
        try:
            found = context.ensure_object(Session).api.items(path, most=_MOST)
        except Problem:
            return []
        return [name for item in found if (name := str(item[field])).startswith(typed)]

    return complete


tenant_slugs = _names("/v1/tenants", "slug")
server_names = _names("/v1/servers", "name")
pooler_names = _names("/v1/poolers", "name")
operation_ids = _names("/v1/operations", "id")
rollout_ids = _names("/v1/rollouts", "id")
key_ids = _names("/v1/keys", "id")
