"""Templates and their clones: built once, handed over completely, and every difference noticed."""

import asyncio
from uuid import UUID, uuid4

import pytest

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.tenant_database import (
    create_tenant_database,
    drop_tenant_database,
    open_to_roles,
    write_identity,
)
from control_plane.adapters.tenant_roles import drop_role_set, ensure_role_set
from control_plane.adapters.tenant_schema import adopt_template, verify_tenant_database
from control_plane.domain.errors import SchemaMismatch, TenantMismatch
from control_plane.domain.names import (
    TEMPLATE_APP,
    TEMPLATE_AUDITOR,
    TEMPLATE_OWNER,
    TEMPLATE_READER,
    RoleSet,
    database_name,
)
from tests.integration.tenant_server.clinic import (
    LIMITS,
    REVISION,
    Clinic,
    Place,
    provision,
)

# One of everything that can carry a privilege, beyond what the baseline has.
EVERYTHING = """
CREATE SCHEMA ledger AUTHORIZATION cp_template_audit;
GRANT USAGE ON SCHEMA ledger TO cp_template_owner;
SET ROLE cp_template_audit;
CREATE TABLE ledger.log (seq bigint GENERATED ALWAYS AS IDENTITY, entry text);
GRANT SELECT ON ledger.log TO cp_template_owner WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA ledger GRANT SELECT ON TABLES TO cp_template_owner;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
SET ROLE cp_template_owner;
CREATE TABLE providers."Odd ""Name" (id int, "Secret Column" text, open text);
GRANT SELECT (open), UPDATE (open, "Secret Column") ON providers."Odd ""Name" TO cp_template_app;
ALTER TABLE providers."Odd ""Name" ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON providers."Odd ""Name" FOR SELECT USING (true);
CREATE POLICY "the app" ON providers."Odd ""Name" TO cp_template_app, cp_template_audit
    USING (id > 0);
CREATE SEQUENCE public.ticket;
GRANT USAGE ON SEQUENCE public.ticket TO cp_template_app;
CREATE VIEW providers.open_names AS SELECT open FROM providers."Odd ""Name";
GRANT SELECT ON providers.open_names TO cp_template_app;
CREATE FUNCTION providers.add(a int, b int DEFAULT 0) RETURNS int LANGUAGE sql AS 'SELECT a + b';
GRANT EXECUTE ON FUNCTION providers.add(int, int) TO cp_template_app WITH GRANT OPTION;
CREATE PROCEDURE providers.act(INOUT a int) LANGUAGE sql AS 'SELECT a';
GRANT EXECUTE ON PROCEDURE providers.act(int) TO cp_template_app;
CREATE DOMAIN public.email AS text;
REVOKE ALL ON TYPE public.email FROM PUBLIC;
GRANT USAGE ON TYPE public.email TO cp_template_app;
CREATE TYPE public.mood AS ENUM ('fine');
ALTER DEFAULT PRIVILEGES GRANT INSERT, DELETE ON TABLES TO cp_template_audit WITH GRANT OPTION;
RESET ROLE;
SELECT lo_create(4711);
ALTER LARGE OBJECT 4711 OWNER TO cp_template_owner;
GRANT SELECT ON LARGE OBJECT 4711 TO cp_template_app;
"""
# Owners and privileges of everything, and what a new object of each owner would get.
SNAPSHOT = """
WITH owned (kind, object, owner, acl) AS (
    SELECT 'schema', nspname::text, nspowner, coalesce(nspacl, acldefault('n', nspowner))
      FROM pg_namespace
    UNION ALL SELECT 'relation', oid::regclass::text, relowner,
           coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                       relowner))
      FROM pg_class WHERE relkind IN ('r', 'v', 'S', 'm', 'p', 'f')
    UNION ALL SELECT 'column', attrelid::regclass || '.' || attname, relowner, attacl
      FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attacl IS NOT NULL
    UNION ALL SELECT 'routine', oid::regprocedure::text, proowner,
           coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
    UNION ALL SELECT 'type', oid::regtype::text, typowner,
           coalesce(typacl, acldefault('T', typowner)) FROM pg_type
    UNION ALL SELECT 'large object', oid::text, lomowner,
           coalesce(lomacl, acldefault('L', lomowner)) FROM pg_largeobject_metadata
    UNION ALL SELECT 'default ' || k.name, coalesce(n.nspname::text, 'anywhere'), r.oid,
           CASE WHEN n.oid IS NULL THEN coalesce(d.defaclacl, acldefault(k.built_in, r.oid))
                ELSE d.defaclacl END
      FROM pg_roles r
     CROSS JOIN (VALUES ('table', 'r'::"char", 'r'::"char"), ('sequence', 'S', 's'),
                        ('function', 'f', 'f'), ('type', 'T', 'T'),
                        ('schema', 'n', 'n')) AS k (name, code, built_in)
     CROSS JOIN (SELECT oid, nspname FROM pg_namespace UNION ALL SELECT NULL, NULL) AS n
      LEFT JOIN pg_default_acl d ON d.defaclrole = r.oid AND d.defaclobjtype = k.code
            AND d.defaclnamespace = coalesce(n.oid, 0)
     WHERE r.rolname = ANY ($1::text[])
)
SELECT concat_ws(' | ', kind, object, owner::regrole,
                 CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE e.grantee::regrole::text END,
                 e.grantor::regrole, e.privilege_type, e.is_grantable) AS line
  FROM owned LEFT JOIN LATERAL aclexplode(acl) AS e ON true
UNION ALL
SELECT concat_ws(' | ', 'policy', polname,
                 (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END,
                                    ',' ORDER BY role = 0) FROM unnest(polroles) AS role))
  FROM pg_policy
"""


async def clone(place: Place, administrator: Connection, roles: RoleSet) -> str:
    await ensure_role_set(administrator, roles, LIMITS)
    name = database_name(roles.key)
    await create_tenant_database(
        administrator, name, place.template, roles, place.system_identifier
    )
    return name


async def discard(place: Place, administrator: Connection, roles: RoleSet) -> None:
    name = database_name(roles.key)
    await drop_tenant_database(administrator, name, place.system_identifier)
    await drop_role_set(administrator, roles, place.system_identifier)


async def test_everything_in_the_template_changes_hands_and_nothing_else(
    place: Place, administrator: Connection
) -> None:
    roles = RoleSet(uuid4())
    heirs = {
        TEMPLATE_OWNER: roles.owner,
        TEMPLATE_APP: roles.app,
        TEMPLATE_AUDITOR: roles.auditor,
        TEMPLATE_READER: roles.reader,
    }
    inside = await place.server.admin(await clone(place, administrator, roles))
    await inside.execute(EVERYTHING)
    before = await snapshot(inside, list(heirs))
    after: set[str] = set()
    for _ in range(2):
        await adopt_template(inside, roles)
        after = await snapshot(inside, list(heirs.values()))
        assert {line for line in after if f"| {roles.backup} |" not in line} == {
            renamed(line, heirs) for line in before
        }
        assert not [line for line in after if "cp_template" in line]
    readable = {line.split(" | ")[1] for line in after if f"| {roles.backup} |" in line}
    assert {"ledger.log", "public.ticket", "cp_meta.identity", "anywhere"} <= readable
    await write_identity(inside, roles.key, 1, "primary")
    identity = Clinic(place, roles, place.server.password).identity
    await verify_tenant_database(inside, roles, identity, REVISION)
    await inside.close()
    await discard(place, administrator, roles)


async def snapshot(connection: Connection, makers: list[str]) -> set[str]:
    return {row["line"] for row in await connection.fetch(SNAPSHOT, makers)}


def renamed(line: str, heirs: dict[str, str]) -> str:
    for old, new in heirs.items():
        line = line.replace(old, new)
    return line


async def test_placeholders_own_and_hold_nothing_in_shared_catalogs(
    place: Place, administrator: Connection
) -> None:
    """A grant on a template database would be seen by every other adoption."""
    left = await administrator.fetchval(
        """SELECT count(*) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
            WHERE s.refclassid = 'pg_authid'::regclass AND s.dbid = 0 AND r.rolname = ANY ($1)""",
        [TEMPLATE_OWNER, TEMPLATE_APP, TEMPLATE_AUDITOR, TEMPLATE_READER],
    )
    assert left == 0
    closed = await administrator.fetchrow(
        "SELECT datistemplate, datallowconn FROM pg_database WHERE datname = $1", place.template
    )
    assert tuple(closed or ()) == (True, False)


async def test_databases_are_made_beside_each_other(
    place: Place, administrator: Connection
) -> None:
    made = await asyncio.gather(*(provision(place) for _ in range(6)))
    assert len({clinic.database for clinic in made}) == 6
    for clinic in made:
        await discard(place, administrator, clinic.roles)


HALF_MADE = {
    "the owner only": "CREATE ROLE {owner} LOGIN SUPERUSER",
    "a login that inherits nothing": "CREATE ROLE {login_a} NOINHERIT CREATEDB CONNECTION LIMIT 1",
    "an empty database, open to everybody": "CREATE DATABASE {name} TEMPLATE {template}",
    "a database that is still closed": (
        "CREATE DATABASE {name} TEMPLATE {template} ALLOW_CONNECTIONS false"
    ),
    "a database that was dropped half-way": (
        "CREATE DATABASE {name} TEMPLATE {template};"
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'"
    ),
}


@pytest.mark.parametrize("left_over", HALF_MADE.values(), ids=HALF_MADE.keys())
async def test_whatever_a_crash_left_is_brought_to_the_same_end(
    place: Place, administrator: Connection, left_over: str
) -> None:
    roles = RoleSet(uuid4())
    values = {"owner": roles.owner, "login_a": roles.login_a, "template": place.template}
    name = database_name(roles.key)
    for statement in left_over.split(";"):
        await administrator.execute(statement.format(name=name, **values))
    await ensure_role_set(administrator, roles, LIMITS)
    await create_tenant_database(
        administrator, name, place.template, roles, place.system_identifier
    )
    clinic = Clinic(place, roles, place.server.password)
    async with clinic.inside() as inside:
        await adopt_template(inside, roles)
        await write_identity(inside, roles.key, 1, "primary")
        await verify_tenant_database(inside, roles, clinic.identity, REVISION)
    await discard(place, administrator, roles)


SABOTAGE = {
    "GRANT CONNECT ON DATABASE {name} TO PUBLIC": "PUBLIC has CONNECT on the database",
    "GRANT CONNECT ON DATABASE {name} TO {stranger}": "{stranger} has CONNECT on the database",
    "REVOKE CONNECT ON DATABASE {name} FROM {app}": "{app} lacks CONNECT on the database",
    "REVOKE TEMPORARY ON DATABASE {name} FROM {owner}": "{owner} lacks TEMPORARY on the database",
    "GRANT TEMPORARY ON DATABASE {name} TO {app}": "{app} has TEMPORARY on the database",
    "ALTER DATABASE {name} OWNER TO {app}": "the database belongs to {app}",
    "ALTER DATABASE {name} IS_TEMPLATE true": "the database is a template",
    "ALTER TABLE patients.patient OWNER TO {app}": "{app} owns ",
    "ALTER TABLE patients.patient OWNER TO {login_a}": "patients.patient belongs to {login_a}",
    "CREATE TABLE public.mine ()": "public.mine belongs to tenantry_admin",
    "GRANT SELECT ON patients.patient TO cp_template_app": "cp_template_app is still named by 1",
    "GRANT SELECT ON patients.patient TO PUBLIC": "PUBLIC has SELECT on patients.patient",
    "GRANT USAGE ON SCHEMA bookings TO PUBLIC": "PUBLIC has USAGE on schema bookings",
    "GRANT EXECUTE ON FUNCTION public.refuse_delete() TO PUBLIC": "PUBLIC has EXECUTE on public.",
    "REVOKE SELECT ON bookings.review FROM {backup}": "{backup} cannot read bookings.review",
    "ALTER ROLE {login_a} CREATEROLE": "role {login_a} has a privileged attribute",
    "ALTER ROLE {app} LOGIN": "role {app} can log in",
    "ALTER ROLE {migrator} INHERIT": "role {migrator} inherits from the owner",
    "GRANT {owner} TO {login_a}": "{login_a} is a member of {owner}",
    "ALTER ROLE {reader} LOGIN": "role {reader} can log in",
    "REVOKE {reader} FROM {login_a}": "{login_a} is not a member of {reader}",
    "GRANT {reader} TO {stranger}": "{stranger} is a member of {reader}",
    "ALTER TABLE bookings.review OWNER TO {reader}": "{reader} owns ",
    "SELECT lo_create(4711)": "{backup} cannot read large object 4711",
    "GRANT {app} TO {stranger}": "{stranger} is a member of {app}",
    "GRANT pg_read_all_data TO {backup}": "{backup} is a member of pg_read_all_data",
    "REVOKE {app} FROM {login_b}": "{login_b} is not a member of {app}",
    "UPDATE public.alembic_version SET version_num = 'abc'": f"revision abc, not {REVISION}",
    "DROP TABLE public.alembic_version": f"revision none, not {REVISION}",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
    "'bookings.appointment_upcoming'::regclass": "index bookings.appointment_upcoming is invalid",
}


@pytest.mark.parametrize("sabotage", SABOTAGE.keys())
async def test_every_difference_is_named(clinics: list[Clinic], sabotage: str) -> None:
    clinic, stranger = clinics[0], clinics[1]
    words = {field: getattr(clinic.roles, field) for field in ("owner", "app", "migrator")}
    words |= {
        field: getattr(clinic.roles, field) for field in ("login_a", "login_b", "backup", "reader")
    }
    words |= {"name": clinic.database, "stranger": stranger.roles.login_a}
    async with clinic.inside() as inside:
        transaction = inside.transaction()
        await transaction.start()
        await inside.execute(sabotage.format(**words))
        with pytest.raises(SchemaMismatch) as found:
            await verify_tenant_database(inside, clinic.roles, clinic.identity, REVISION)
        assert SABOTAGE[sabotage].format(**words) in found.value.message
        await transaction.rollback()
        await verify_tenant_database(inside, clinic.roles, clinic.identity, REVISION)


async def test_what_an_older_version_did_not_make_is_made_later(
    place: Place, administrator: Connection
) -> None:
    clinic = await provision(place)
    async with clinic.inside() as inside:
        await inside.execute(f"DROP OWNED BY {clinic.roles.reader}")
        await inside.execute(f"DROP ROLE {clinic.roles.reader}")
        await inside.execute(
            f"REVOKE TEMPORARY ON DATABASE {clinic.database} FROM {clinic.roles.owner}"
        )
        with pytest.raises(SchemaMismatch, match=f"role {clinic.roles.reader} does not exist"):
            await verify_tenant_database(inside, clinic.roles, clinic.identity, REVISION)
        await ensure_role_set(administrator, clinic.roles, LIMITS)
        with pytest.raises(SchemaMismatch, match=f"^{clinic.roles.owner} lacks TEMPORARY on the"):
            await verify_tenant_database(inside, clinic.roles, clinic.identity, REVISION)
        await open_to_roles(administrator, clinic.database, clinic.roles)
        await verify_tenant_database(inside, clinic.roles, clinic.identity, REVISION)
    await (await clinic.app()).close()
    await discard(place, administrator, clinic.roles)


async def test_several_differences_are_named_at_once(clinics: list[Clinic]) -> None:
    """Two neighbours whose databases were swapped: whose it is comes first, then the rest."""
    clinic, other = clinics[0], clinics[1]
    async with other.inside() as inside:
        with pytest.raises(TenantMismatch) as found:
            await verify_tenant_database(inside, clinic.roles, clinic.identity, "0000")
    message = found.value.message
    assert message.startswith("expected Identity(")
    assert f"{other.roles.app} has CONNECT on the database" in message
    # What is a neighbour's is not read.
    assert "its revision cannot be read" in message


async def test_a_fresh_clone_is_not_yet_a_tenants_database(
    place: Place, administrator: Connection
) -> None:
    roles = RoleSet(uuid4())
    await clone(place, administrator, roles)
    clinic = Clinic(place, roles, place.server.password)
    async with clinic.inside() as inside:
        with pytest.raises(TenantMismatch, match=r"found None.*cp_template_owner is still named"):
            await verify_tenant_database(inside, roles, clinic.identity, REVISION)
    await discard(place, administrator, roles)


async def test_a_database_of_the_pool_is_claimed_by_its_tenant(
    place: Place, administrator: Connection
) -> None:
    roles, tenant = RoleSet(uuid4()), UUID(int=7)
    inside = await place.server.admin(await clone(place, administrator, roles))
    await adopt_template(inside, roles)
    await write_identity(inside, None, 0, "pooled")
    await write_identity(inside, tenant, 1, "primary")
    with pytest.raises(TenantMismatch):
        await write_identity(inside, None, 1, "pooled")
    await inside.close()
    await discard(place, administrator, roles)
