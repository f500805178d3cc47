"""Values for shell completion, asked of the API; silence when it does not answer."""

from collections.abc import Callable

import click

from control_plane.cli.client import Query
from control_plane.cli.paths import path
from control_plane.cli.problems import Problem
from control_plane.cli.session import Session

_MOST = 200
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _names(collection: str, field: str) -> Complete:
    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
        del parameter
        return _ask(context, field, typed, path(collection))

    return complete


def tenant_slugs(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """The slugs that begin as the line does: the API sorts them out, there may be thousands."""
    del parameter
    return _ask(context, "slug", typed, path("tenants"), {"slug_prefix": typed or None})


def _ask(
    context: click.Context, field: str, typed: str, target: str, query: Query | None = None
) -> list[str]:
    try:
        found = context.ensure_object(Session).api.items(target, query, most=_MOST)
    except Problem:
        return []
    return [name for item in found if (name := item[field]) and name.startswith(typed)]


def backups_of_tenant(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """The backups of the tenant that the line names so far."""
    del parameter
    # Before an option that still lacks its value, click has put no argument in its place yet.
    named = [context.params.get("slug"), *context.args]
    slug = next((one for one in named if one), None)
    return _ask(context, "id", typed, path("tenants", slug, "backups")) if slug else []


server_names = _names("servers", "name")
provided_names = _names("provided-servers", "name")
pooler_names = _names("poolers", "name")
operation_ids = _names("operations", "id")
rollout_ids = _names("rollouts", "id")
key_ids = _names("keys", "id")
# The newest of each tenant: nobody types an old one without a list before them.
backup_ids = _names("backup-status", "backup")
