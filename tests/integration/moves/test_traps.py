"""A tenant that lies in wait for the administrator who checks and moves its database (S-08)."""

from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.moves.faults import SECONDS, administrator
from tests.integration.moves.test_move import begin, look, make  # noqa: F401 - a fixture

MARK = "taken_by_a_live_trap"
# As the tenant's own revisions could, or, as the auditor, what they hide in a table that is copied.
# What an index calls is called while a statement is planned.
TRAPS = """
SET ROLE "{owner}";
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE FUNCTION trap.take() RETURNS boolean LANGUAGE plpgsql AS $body$
BEGIN
    IF (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE 'CREATE ROLE {mark}';
    END IF;
    RETURN true;
END
$body$;
CREATE FUNCTION trap.fire(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN RETURN trap.take(); END
$body$;
CREATE INDEX trap_of_revisions ON public.alembic_version (version_num) WHERE trap.fire(1);
CREATE TABLE trap.counted (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
CREATE INDEX ON trap.counted (id) WHERE trap.fire(2);
GRANT SELECT ON trap.counted TO "{backup}";
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA trap TO PUBLIC;
SET ROLE "{auditor}";
CREATE OR REPLACE FUNCTION audit.seal() RETURNS SETOF audit.seal_block
    LANGUAGE plpgsql SECURITY INVOKER AS $body$
BEGIN PERFORM trap.take(); RETURN; END
$body$;
RESET ROLE;
"""
HANG = """
SET ROLE "{owner}";
CREATE FUNCTION trap.hang() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN PERFORM trap.take(); RETURN NEW; END
$body$;
CREATE TRIGGER hung BEFORE INSERT ON cp_meta.move_marker
    FOR EACH ROW EXECUTE FUNCTION trap.hang();
"""
# While it is copied its loader owns the database that it comes to.
GREED = """
SET ROLE "{owner}";
CREATE SCHEMA trap;
CREATE FUNCTION trap.grab() RETURNS boolean LANGUAGE plpgsql AS $body$
DECLARE here text := quote_ident(current_database());
BEGIN
    IF session_user ~ '_load$' THEN
        EXECUTE 'ALTER DATABASE ' || here || ' SET work_mem = ''1MB''';
        EXECUTE 'GRANT CONNECT ON DATABASE ' || here || ' TO "{other}"';
    END IF;
    RETURN true;
END
$body$;
CREATE FUNCTION trap.allowed(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN RETURN trap.grab(); END
$body$;
CREATE TABLE trap.late (id int PRIMARY KEY CHECK (trap.allowed(id)));
INSERT INTO trap.late VALUES (1);
GRANT USAGE ON SCHEMA trap TO "{backup}";
GRANT SELECT ON trap.late TO "{backup}";
RESET ROLE;
"""
LEFT = """
SELECT (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = d.oid) AS settings,
       EXISTS (SELECT FROM aclexplode(datacl) WHERE grantee = to_regrole(quote_ident($1))) AS given
  FROM pg_database d WHERE datname = current_database()
"""


async def names_in(inside: "asyncpg.Connection[asyncpg.Record]") -> dict[str, str]:
    owner = await inside.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'acked'")
    prefix = owner.removesuffix("_owner")
    return {"owner": owner, "backup": f"{prefix}_bak", "auditor": f"{prefix}_audit"}


async def test_nobody_walks_into_a_trap_that_lies_in_wait(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "lies-in-wait")
    async with look(slug) as inside:
        names = await names_in(inside)
        seal = await inside.fetchval("SELECT pg_get_functiondef('audit.seal()'::regprocedure)")
        await inside.execute(TRAPS.format(**names, mark=MARK))
    await driver.findings()
    await driver.finish(await begin(driver, slug), SECONDS)
    await driver.findings()
    async with look(slug) as inside:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="move_marker"):
            await inside.execute(HANG.format(**names))
    back = await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse")
    await driver.finish(back, SECONDS)
    for server in ("pg-a", "pg-b"):
        async with administrator(stack, server) as admin:
            assert await admin.fetchval("SELECT to_regrole($1)", MARK) is None
    async with look(slug) as inside:
        await inside.execute(f'SET ROLE "{names["auditor"]}"; {seal}')
        await inside.execute("RESET ROLE; DROP SCHEMA trap CASCADE")
    await driver.assert_clean()


async def test_what_the_loader_set_and_gave_away_is_taken_back(
    driver: Driver,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "greedy")
    other = await driver.create(fresh_slug("neighbour"), server="pg-b")
    stranger = f"t_{other['id'].removeprefix('tn_')}_app_a"
    async with look(slug) as inside:
        await inside.execute(GREED.format(**await names_in(inside), other=stranger))
    await driver.finish(await begin(driver, slug), SECONDS)
    async with look(slug) as inside:
        assert tuple(await inside.fetchrow(LEFT, stranger)) == (0, False)
        await inside.execute("DROP SCHEMA trap CASCADE")
    async with look(slug, "moved_from") as inside:
        await inside.execute("DROP SCHEMA trap CASCADE")
    await driver.assert_clean()
