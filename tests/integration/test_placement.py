"""Placement under competition: a place is never given twice."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.driver import Driver, fresh_slug

RIVALS = 12
FREE = 3


async def test_the_last_places_go_to_as_many_and_the_rest_are_told_why(
    driver: Driver, catalog: Any
) -> None:
    await driver.settle()
    before = await catalog.fetchval("SELECT capacity FROM servers WHERE name = 'pg-b'")
    await catalog.execute("UPDATE servers SET capacity = placed + $1 WHERE name = 'pg-b'", FREE)
    slugs = [fresh_slug("rival") for _ in range(RIVALS)]
    try:
        answers = await asyncio.gather(
            *(
                driver.api.post("/v1/tenants", json={"slug": slug, "name": slug, "server": "pg-b"})
                for slug in slugs
            )
        )
    finally:
        await catalog.execute("UPDATE servers SET capacity = $1 WHERE name = 'pg-b'", before)
    accepted = [answer.json() for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert len(accepted) == FREE
    assert {answer.status_code for answer in refused} == {409}
    assert {answer.json()["code"] for answer in refused} == {"no_capacity"}
    for operation in accepted:
        await driver.finish(operation)
    for slug, answer in zip(slugs, answers, strict=True):
        wanted = 200 if answer.status_code == 202 else 404
        assert (await driver.api.get(f"/v1/tenants/{slug}")).status_code == wanted
    await driver.assert_clean()


async def test_illegal_states_are_refused_by_the_catalog_itself(
    driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("legal")
    await driver.create(slug)
    tenant_id = await catalog.fetchval("SELECT id FROM tenants WHERE slug = $1", slug)
    refused = {
        "UPDATE tenants SET state = 'provisioning' WHERE id = $1": "23514",
        "UPDATE tenants SET slug = 'Bad Slug' WHERE id = $1": "23514",
        "UPDATE tenants SET tier = 'gold' WHERE id = $1": "23514",
        "DELETE FROM role_sets WHERE id = $1": "23503",
        """INSERT INTO databases (id, role_set_id, tenant_id, server_id, name,
               template_fingerprint, purpose)
           SELECT gen_random_uuid(), role_set_id, tenant_id, server_id,
                  't_' || repeat('0', 26), template_fingerprint, 'primary'
           FROM databases WHERE tenant_id = $1""": "23505",
        "UPDATE credentials SET verifier = 'plain' WHERE role_set_id = $1": "23514",
        "UPDATE routes SET paused_by = tenant_id WHERE tenant_id = $1": "23514",
        "UPDATE audit_events SET actor = 'nobody' WHERE tenant_id = $1": "42501",
        "DELETE FROM audit_events WHERE tenant_id = $1": "42501",
    }
    for statement, state in refused.items():
        with pytest.raises(asyncpg.PostgresError) as error:
            await catalog.execute(statement, tenant_id)
        assert error.value.sqlstate == state, statement
    with pytest.raises(asyncpg.PostgresError) as error:
        await catalog.execute("TRUNCATE audit_events")
    assert error.value.sqlstate == "42501"
    await driver.assert_clean()
