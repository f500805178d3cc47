"""A clinic that was there before the audit log gets it from its compiled revisions."""

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.revisions import compile_path
from control_plane.adapters.tenant_migration import Patience, Sessions, apply, remaining
from control_plane.adapters.tenant_schema import adopt_template
from tests.integration.tenant_server.clinic import DENIED, TEMPLATE, Place, leased, sqlstate
from tests.integration.tenant_server.test_clinic_upgrade import alembic, old_clinic

WRITE = "INSERT INTO public.specialty (name) VALUES (gen_random_uuid())"
ACTING = "SELECT set_config('app.user_id', 'alice', true);"
FOREIGN = """
SELECT o.name, o.owner FROM (
    SELECT oid::regclass::text AS name, pg_get_userbyid(relowner) AS owner FROM pg_class
     WHERE relnamespace = 'audit'::regnamespace
    UNION ALL
    SELECT oid::regprocedure::text, pg_get_userbyid(proowner) FROM pg_proc
     WHERE pronamespace = 'audit'::regnamespace
    UNION ALL
    SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'audit') AS o
 WHERE o.owner <> $1
"""


async def test_the_log_belongs_to_the_auditor_however_it_came(
    place: Place, administrator: Connection
) -> None:
    path = compile_path(TEMPLATE)
    by_id = {revision.id: revision for revision in path}
    before = by_id["0010"].down
    assert before is not None
    assert [r.id for r in path if r.privileged] == ["0010"]
    async with old_clinic(place, administrator) as clinic:
        await alembic(clinic, before)
        async with clinic.inside() as inside:
            await adopt_template(inside, clinic.roles)  # the backup reads what is made later
            app = await clinic.app()
            assert await sqlstate(app, WRITE) is None
            migrator = clinic.roles.migrator
            async with leased(administrator, clinic, migrator) as owner:
                await owner.execute(f"SET ROLE {clinic.roles.owner}")

                async def as_administrator() -> Connection:
                    return inside

                sessions = Sessions(owner, as_administrator, clinic.roles)
                for revision in remaining(path, before):
                    for _ in range(2):  # the second time finds it applied
                        await apply(sessions, revision, Patience())
            assert await sqlstate(app, WRITE) == DENIED
            await app.execute(ACTING + WRITE)
            await app.close()
            assert await inside.fetch(FOREIGN, clinic.roles.auditor) == []
            assert await inside.fetchval("SELECT count(*) FROM audit.seal()") == 1
            async with leased(administrator, clinic, clinic.roles.backup) as backup:
                actors = await backup.fetch("SELECT actor FROM audit.audit_log")
                assert [row["actor"] for row in actors] == ["alice"]
                assert await sqlstate(backup, "SELECT * FROM audit.seal_block") is None
