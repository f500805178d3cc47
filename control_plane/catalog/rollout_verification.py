"""Whether the tenants of a rollout have the schema that the template makes, as a survey read it."""

import datetime as dt
from uuid import UUID

from control_plane.catalog.operations import get
from control_plane.catalog.pool import Connection
from control_plane.domain.operations import Operation
from control_plane.domain.rollouts import Rollout

_DONE = """
    FROM rollout_targets r
    JOIN databases d ON d.tenant_id = r.tenant_id AND d.purpose = 'primary'
    JOIN servers s ON s.id = d.server_id
    LEFT JOIN golden_schemas g ON g.template = $2 AND g.content = $3 AND g.revision = $4
         AND g.major = s.version_num / 10000
    WHERE r.rollout_id = $1 AND r.state = 'done' AND d.schema_revision = $4
      AND (d.schema_fingerprint = g.fingerprint) IS NOT TRUE
"""


async def unverified(db: Connection, rollout: Rollout) -> list[UUID]:
    """Tenants that are done and whose schema was not found to be the golden one."""
    rows = await db.fetch("SELECT r.tenant_id" + _DONE, *_which(rollout))
    return [row["tenant_id"] for row in rows]


async def survey_since(db: Connection, rollout_id: UUID, since: dt.datetime) -> Operation | None:
    """The newest survey that this rollout has asked for since then."""
    found = await db.fetchval(
        """SELECT id FROM operations WHERE kind = 'survey' AND input ->> 'rollout' = $1
             AND created_at >= $2 ORDER BY created_at DESC LIMIT 1""",
        str(rollout_id),
        since,
    )
    return await get(db, found) if found is not None else None


_REFUSE = f"""
    WITH other AS (SELECT r.tenant_id, d.schema_fingerprint {_DONE}), refused AS (
        UPDATE rollout_targets r
        SET state = 'failed', error_code = 'schema_mismatch', error_message =
            CASE WHEN o.schema_fingerprint IS NULL THEN 'its schema could not be read'
                 ELSE 'its schema is not what the template makes; see: tenantry drift ' || t.slug
            END
        FROM other o JOIN tenants t ON t.id = o.tenant_id
        WHERE r.rollout_id = $1 AND r.tenant_id = o.tenant_id RETURNING 1)
    SELECT count(*) FROM refused
"""  # noqa: S608 - constants of this module


async def refuse_unverified(db: Connection, rollout: Rollout) -> int:
    """Tenants with another schema than the golden one have failed; how many there are."""
    refused: int = await db.fetchval(_REFUSE, *_which(rollout))
    return refused


def _which(rollout: Rollout) -> tuple[UUID, str, str, str]:
    return rollout.id, rollout.template, rollout.content, rollout.to_revision
