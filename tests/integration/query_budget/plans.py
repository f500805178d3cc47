"""What a plan cost, by ``EXPLAIN (ANALYZE, BUFFERS, VERBOSE, FORMAT JSON)``, and the verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.integration.query_budget.registry import NamedQuery

# Above this many rows a table is read through an index or not at all.
SMALL_TABLE_ROWS = 10_000
_REMOVED = (
    "Rows Removed by Filter",
    "Rows Removed by Index Recheck",
    "Rows Removed by Join Filter",
)


@dataclass(frozen=True)
class Cost:
    """One run, or the worst of several.

    ``buffers`` are 8 kB blocks; ``removed`` are rows thrown away by a filter for each returned;
    ``scanned`` are the tables that were read as a whole, ``indexes`` those that every run used.
    """

    buffers: int
    rows: int
    removed: float
    scanned: frozenset[str]
    indexes: frozenset[str]


def cost(plan: Mapping[str, Any]) -> Cost:
    """The cost of the plan whose root node is ``plan``. Needs VERBOSE, for the schemas' names."""
    nodes = list(_nodes(plan))
    rows = round(plan["Actual Rows"] * plan["Actual Loops"])
    removed = sum(node.get(kind, 0) * node["Actual Loops"] for node in nodes for kind in _REMOVED)
    return Cost(
        buffers=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        rows=rows,
        removed=removed / max(1, rows),
        scanned=frozenset(
            f"{node['Schema']}.{node['Relation Name']}"
            for node in nodes
            if node["Node Type"] == "Seq Scan"
        ),
        indexes=frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
    )


def worst_of(costs: Sequence[Cost]) -> Cost:
    """The worst of each figure."""
    return Cost(
        buffers=max(cost.buffers for cost in costs),
        rows=max(cost.rows for cost in costs),
        removed=max(cost.removed for cost in costs),
        scanned=frozenset.union(*(cost.scanned for cost in costs)),
        indexes=frozenset.intersection(*(cost.indexes for cost in costs)),
    )


def excesses(query: NamedQuery, worst: Cost, table_rows: Mapping[str, int]) -> list[str]:
    """Every promise of ``query`` that its worst run broke, in words.

    ``table_rows`` maps ``schema.table`` to its rows by the statistics.
    """
    return [*_over(query, worst), *_scans(worst, table_rows), *_unused(query, worst)]


def _over(query: NamedQuery, worst: Cost) -> Iterator[str]:
    for what, spent, limit in (
        ("buffers touched", worst.buffers, query.budget.buffers),
        ("rows returned", worst.rows, query.budget.rows),
        ("rows removed by filters for each returned", worst.removed, query.budget.removed),
    ):
        if spent > limit:
            yield f"{what}: {spent:.0f}, the budget is {limit}"


def _scans(worst: Cost, table_rows: Mapping[str, int]) -> Iterator[str]:
    for table in sorted(worst.scanned):
        if table_rows[table] > SMALL_TABLE_ROWS:
            yield (
                f"reads all of {table}, {table_rows[table]} rows: it needs an index; if there is "
                "a partial one, write its predicate in the query as a literal, not as a parameter"
            )


def _unused(query: NamedQuery, worst: Cost) -> Iterator[str]:
    for index in query.uses:
        if index not in worst.indexes:
            yield f"does not use the index {index}"


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
