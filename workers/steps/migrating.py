"""Bringing one tenant's database to a revision: shared by ``migrate`` and by rollouts."""

from uuid import UUID

import msgspec

from control_plane.adapters.revisions import Revision, compile_path
from control_plane.adapters.schema_fingerprint import SchemaReading
from control_plane.adapters.tenant_migration import Patience
from control_plane.catalog import rollouts, schemas
from control_plane.catalog.pool import Connection as CatalogConnection
from control_plane.catalog.servers import Server
from control_plane.domain.errors import SchemaMismatch
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.rollouts import Rollout
from control_plane.services.ports import Ports

_PER_MAJOR = 10_000


class Script(msgspec.Struct, frozen=True):
    """What is to be run: the compiled path to ``target``, of this template in this version."""

    template: str
    content: str
    target: str
    path: tuple[Revision, ...]
    patience: Patience


def script_of(rollout: Rollout) -> Script:
    """The script that a rollout was started with."""
    options = rollout.options
    return Script(
        template=rollout.template,
        content=rollout.content,
        target=rollout.to_revision,
        path=msgspec.convert(rollout.script, tuple[Revision, ...]),
        patience=Patience(lock=options.lock_timeout, statement=options.statement_timeout),
    )


async def script_for(db: CatalogConnection, ports: Ports, operation: Operation) -> Script:
    """What one migration runs: its rollout's script, or the template's files as they are now."""
    if (rollout_id := operation.input.get("rollout")) is not None:
        return script_of(await rollouts.get(db, UUID(rollout_id)))
    template = ports.templates.current(operation.input["template"])
    target = operation.input["revision"]
    return Script(
        template=template.name,
        content=template.fingerprint,
        target=target,
        path=compile_path(template.directory, target),
        patience=Patience(),
    )


async def golden(db: CatalogConnection, script: Script, server: Server) -> SchemaReading | None:
    """What the schema must be at the script's target, on a server of this major version."""
    return await schemas.golden(
        db, script.template, script.content, script.target, server.version_num // _PER_MAJOR
    )


async def marks(db: CatalogConnection, script: Script, server: Server) -> dict[str, str]:
    """The cheap mark of every revision of the script's template, by revision."""
    return await schemas.marks(
        db, script.template, script.content, server.version_num // _PER_MAJOR
    )


def require_equal(found: str, wanted: SchemaReading, slug: str) -> None:
    """Refuse a schema that is not the golden one.

    Raises:
        SchemaMismatch: it is another.
    """
    if found != wanted.fingerprint:
        raise SchemaMismatch(
            f"the schema of {slug} is not what the template makes at this revision; "
            f"see: tenantry drift {slug}"
        )


def restore_point_name(operation_id: UUID) -> str:
    """The name of the point in the WAL before an operation; a server keeps up to 63 bytes."""
    return f"tenantry:{show('op', operation_id)}"
