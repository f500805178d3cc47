"""The gate refuses: each way for a query to be too dear, and the words it is told."""

from dataclasses import replace

import pytest

from tests.integration.query_budget.loading import LoadedClinic
from tests.integration.query_budget.measure import PlanKind, draw, prepared, table_rows
from tests.integration.query_budget.plans import excesses
from tests.integration.query_budget.registry import Budget, NamedQuery, parse, registered

pytestmark = pytest.mark.timeout(900)
QUERIES = {query.name: query for query in registered()}


async def verdict(loaded: LoadedClinic, query: NamedQuery, kind: PlanKind) -> list[str]:
    runs = await draw(loaded.admin, query)
    async with prepared(loaded.app, query, runs, kind) as statement:
        return excesses(query, await statement.worst(), await table_rows(loaded.admin))


async def test_a_parameter_hides_a_partial_index_from_a_generic_plan(loaded: LoadedClinic) -> None:
    """The trap of security.md 2.1: the same query passes with the values in sight."""
    good = QUERIES["unpaid_payments"]
    bad = replace(
        good,
        text=good.text.replace("m.status = 'pending'", "m.status = :status"),
        parameters={**good.parameters, "status": "text"},
        typical=good.typical.replace("SELECT", "SELECT 'pending' AS status,", 1),
        worst=good.worst.replace("SELECT", "SELECT 'pending' AS status,", 1),
    )
    assert await verdict(loaded, bad, "custom") == []
    refused = await verdict(loaded, bad, "generic")
    payments = (await table_rows(loaded.admin))["bookings.payment"]
    assert (
        f"reads all of bookings.payment, {payments} rows: it needs an index; if there is a partial "
        "one, write its predicate in the query as a literal, not as a parameter"
    ) in refused
    assert "does not use the index payment_pending" in refused


@pytest.mark.parametrize("kind", ["custom", "generic"])
async def test_a_filter_without_an_index_is_refused(loaded: LoadedClinic, kind: PlanKind) -> None:
    good = QUERIES["patient_by_email"]
    bad = replace(
        good,
        text="SELECT id FROM patients.patient WHERE email_ciphertext = ANY (:email_blind_indexes)",
    )
    refused = await verdict(loaded, bad, kind)
    assert any(reason.startswith("reads all of patients.patient, ") for reason in refused)
    assert any(reason.startswith("buffers touched: ") for reason in refused)
    assert any(reason.startswith("rows removed by filters ") for reason in refused)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(buffers=1, rows=1_000, removed=1_000), "buffers touched: "),
        (Budget(buffers=100_000, rows=19, removed=1_000), "rows returned: 20, the budget is 19"),
        (Budget(buffers=100_000, rows=1_000, removed=-1), "rows removed by filters for each "),
    ],
)
async def test_each_budget_is_held(loaded: LoadedClinic, budget: Budget, reason: str) -> None:
    query = replace(QUERIES["patient_appointments"], budget=budget)
    (refused,) = await verdict(loaded, query, "custom")
    assert refused.startswith(reason)


async def test_the_index_that_was_promised_is_used(loaded: LoadedClinic) -> None:
    query = replace(QUERIES["provider_services"], uses=("service_pkey",))
    refused = await verdict(loaded, query, "custom")
    assert refused == ["does not use the index service_pkey"]


HEADER = """\
-- name: one
-- shows: A number,
--   and nothing else.
-- parameters: number integer
-- budget: buffers 0, rows 1, removed 0
-- uses: none
-- typical:
--   SELECT 1 AS number
-- worst:
--   SELECT 2 AS number
SELECT CAST(:number AS integer);
"""


def test_a_header_is_read() -> None:
    query = parse("one", HEADER)
    assert query.shows == "A number, and nothing else."
    assert query.parameters == {"number": "integer"}
    assert query.budget == Budget(buffers=0, rows=1, removed=0)
    assert query.uses == ()
    assert query.numbered == "SELECT CAST($1 AS integer)"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("-- name: one", "-- name: two", r"one\.sql: the header calls it 'two'"),
        ("-- uses: none\n", "", r"one\.sql: the header lacks uses"),
        ("-- uses: none", "-- budget: rows 1", r"one\.sql: the header says budget twice"),
        (
            "-- uses: none",
            "-- indexes: none",
            r"one\.sql: not a line of a header: -- indexes: none",
        ),
        (":number", ":amount", r"one\.sql: header and text differ in amount, number"),
        ("rows 1,", "lines 1,", r"one\.sql: a budget is buffers, rows and removed"),
    ],
)
def test_a_wrong_header_is_refused(old: str, new: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse("one", HEADER.replace(old, new))
