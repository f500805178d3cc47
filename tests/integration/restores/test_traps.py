"""A backup that lies in wait for the administrator who looks where it was loaded (S-08)."""

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.moves.faults import administrator
from tests.integration.moves.test_move import inside

MARK = "taken_by_a_trap"
# While it is loaded its owner may do this; a function in a view runs as whoever reads the view.
TRAP = """
SET ROLE "{owner}";
CREATE SCHEMA trap;
CREATE FUNCTION trap.take() RETURNS uuid LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE 'CREATE ROLE {mark}';
    RETURN NULL;
END
$body$;
CREATE FUNCTION trap.lay() RETURNS boolean LANGUAGE plpgsql AS $body$
BEGIN
    IF session_user ~ '_load$' THEN
        EXECUTE 'CREATE SCHEMA cp_meta';
        EXECUTE 'CREATE VIEW cp_meta.identity AS SELECT trap.take() AS tenant_id,
                 1::bigint AS generation, ''scratch''::text AS state,
                 1::bigint AS system_identifier';
    END IF;
    RETURN true;
END
$body$;
CREATE FUNCTION trap.allowed(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN RETURN trap.lay(); END
$body$;
CREATE TABLE trap.late (id text CHECK (trap.allowed(id)));
INSERT INTO trap.late VALUES ('x');
GRANT USAGE ON SCHEMA trap TO "{backup}";
GRANT SELECT ON trap.late TO "{backup}";
RESET ROLE;
"""


async def test_nobody_walks_into_a_trap_that_was_loaded(driver: Driver, stack: Stack) -> None:
    slug = fresh_slug("trapped")
    await driver.create(slug, server="pg-a")
    async with inside(stack, driver, slug) as live:
        owner = await live.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'city'")
        backup = owner.removesuffix("_owner") + "_bak"
        await live.execute(TRAP.format(owner=owner, backup=backup, mark=MARK))
    drill = await driver.over(await driver.verify(await driver.back_up(slug)), 180)
    # What is ours could not be made where the trap is: it was laid.
    assert (drill["state"], drill["error"]["code"]) == ("failed", "database_error")
    assert "cp_meta" in drill["error"]["message"]
    await driver.settle()
    async with administrator(stack, "pg-a") as admin:
        assert await admin.fetchval("SELECT to_regrole($1)", MARK) is None
    async with inside(stack, driver, slug) as live:
        await live.execute("DROP SCHEMA trap CASCADE")
    await driver.assert_clean()
