"""Every registered query, in both kinds of plan, within what its header allows.

Nothing here looks at a clock: machines are shared. ``./dev bench queries`` prints the times.
"""

import pytest
from sqlalchemy import text

from tests.integration.query_budget.loading import LoadedClinic
from tests.integration.query_budget.measure import PLANS, draw, prepared, table_rows
from tests.integration.query_budget.plans import excesses
from tests.integration.query_budget.registry import NamedQuery, registered

# The first test of each clinic waits until it is filled.
pytestmark = pytest.mark.timeout(900)
QUERIES = registered()
each_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)


@each_query
async def test_every_run_is_within_its_budget(loaded: LoadedClinic, query: NamedQuery) -> None:
    runs = await draw(loaded.admin, query)
    rows = await table_rows(loaded.admin)
    found = {}
    for kind in PLANS:
        async with prepared(loaded.app, query, runs, kind) as statement:
            found[kind] = excesses(query, await statement.worst(), rows)
    assert found == {kind: [] for kind in PLANS}


@each_query
async def test_the_worst_case_finds_something(loaded: LoadedClinic, query: NamedQuery) -> None:
    """A draw that misses the data would be within every budget."""
    runs = await draw(loaded.admin, query)
    async with prepared(loaded.app, query, runs, "custom") as statement:
        assert (await statement.worst()).rows > 0


@each_query
async def test_the_types_in_the_header_are_those_the_server_infers(
    loaded: LoadedClinic, query: NamedQuery
) -> None:
    """Drivers that declare no types, such as asyncpg, can run the text as it is."""
    statement = await loaded.app.prepare(query.numbered)
    inferred = [parameter.name for parameter in statement.get_parameters()]
    assert inferred == list(query.parameters.values())


@each_query
def test_sqlalchemy_sees_the_same_parameters(query: NamedQuery) -> None:
    assert set(text(query.text).compile().params) == set(query.parameters)


def test_the_clinic_has_its_queries() -> None:
    """A glob that finds nothing would pass every test above."""
    assert len(QUERIES) >= 12
