"""``tenantry usage`` and ``noisy``: what a tenant uses, and who disturbs whom."""

import click

from control_plane.cli.commands import Command
from control_plane.cli.complete import server_names, tenant_slugs
from control_plane.cli.durations import Duration, brief
from control_plane.cli.output import print_json, print_line, size, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table

_HOUR = 3600
_MS = 1000


@click.command(
    "usage",
    cls=Command,
    examples=(
        "tenantry usage acme",
        "tenantry usage acme --since 7d",
        "tenantry usage acme --tables",
    ),
)
@click.argument("slug", shell_complete=tenant_slugs)
@click.option(
    "--since", type=Duration(), default="24h", help="How far back, e.g. 6h or 30d. Default: 24h."
)
@click.option(
    "--tables",
    is_flag=True,
    help="Look into the database now: tables, indexes unused or missing, slow statements.",
)
@pass_session
def usage(session: Session, slug: str, *, since: int, tables: bool) -> None:
    """Show what a tenant uses, and its share of its server."""
    if tables:
        _print_inside(session, session.api.get(path("tenants", slug, "tables")))
        return
    hours = max(1, -(-since // _HOUR))
    found = session.api.get(path("tenants", slug, "usage"), {"hours": hours})
    print_facts(session, found, _facts(session, found, hours))
    if not session.json:
        _print_buckets(session, found)


@click.command(
    "noisy",
    cls=Command,
    examples=("tenantry noisy", "tenantry noisy --server pg-a"),
)
@click.option("--server", shell_complete=server_names, help="Only this server.")
@pass_session
def noisy(session: Session, server: str | None) -> None:
    """Show who uses most of each server, who disturbs whom, and what may be done about it."""
    found = session.api.get(path("noisy"), {"server": server})["items"]
    if session.json:
        print_json(found)
        return
    for number, one in enumerate(found):
        if number:
            click.echo()
        _print_server(session, one)


def _facts(session: Session, found: Json, hours: int) -> list[tuple[str, str | None]]:
    used, shares = found["total"], found["shares"]
    busy = used["busy_ms"] / (hours * _HOUR * _MS)
    disturbance = found["disturbance"]
    pooled = max(1, used["pooled_transactions"])
    return [
        ("tenant", found["tenant"]),
        ("server", found["server"]),
        ("since", when(session, found["since"])),
        ("busy", f"{busy:.3f} sessions on average, {shares['time']:.1%} of the server's time"),
        ("transactions", f"{used['commits']:,} committed, {used['rollbacks']:,} rolled back"),
        ("rows", f"{used['rows_read']:,} read, {used['rows_written']:,} written"),
        ("blocks", f"{used['blocks_read']:,} read, {used['blocks_hit']:,} found in memory"),
        ("temporary files", size(used["temp_bytes"])),
        ("deadlocks", str(used["deadlocks"]) if used["deadlocks"] else None),
        ("connections", f"{used['connections']} at most"),
        ("wait for the pool", f"{used['pool_wait_ms'] / pooled:.2f} ms per transaction"),
        ("size", _sized(session, found)),
        ("disturbs", disturbance["verdict"] if disturbance else None),
    ]


def _sized(session: Session, found: Json) -> str | None:
    if found["size_bytes"] is None:
        return None
    return f"{size(found['size_bytes'])}, counted {when(session, found['sized_at'])}"


def _print_buckets(session: Session, found: Json) -> None:
    columns = (
        Column("FROM", lambda b: when(session, b["at"])),
        Column("BUSY", lambda b: f"{b['busy']:.3f}", right=True),
        Column("TRANSACTIONS", lambda b: f"{_transactions(b):,}", right=True),
        Column("WRITTEN", lambda b: f"{b['usage']['rows_written']:,}", right=True),
        Column("READ", lambda b: f"{b['usage']['rows_read']:,}", right=True),
        Column("CONNECTIONS", lambda b: str(b["usage"]["connections"]), right=True),
        Column("POOL WAIT", lambda b: f"{b['usage']['pool_wait_ms']:,.0f} ms", right=True),
    )
    click.echo()
    span = brief(60 * found["grain_minutes"])
    empty = "it did nothing in this time, or nobody has looked yet"
    print_table(session, found["buckets"][-24:], columns, empty)
    if len(found["buckets"]) > 24:  # noqa: PLR2004 - as many as fit a screen
        print_line(f"the newest 24 of {len(found['buckets'])} buckets of {span}; --json has all")


def _transactions(bucket: Json) -> int:
    return int(bucket["usage"]["commits"] + bucket["usage"]["rollbacks"])


def _print_inside(session: Session, found: Json) -> None:
    if session.json:
        print_json(found)
        return
    tables = (
        Column("TABLE", lambda t: t["name"]),
        Column("SIZE", lambda t: size(t["bytes"]), right=True),
        Column("ROWS", lambda t: f"{t['rows']:,}", right=True),
        Column("DEAD", lambda t: f"{t['dead_rows']:,}", right=True),
        Column("FULL SCANS", lambda t: f"{t['full_scans']:,}", right=True),
        Column("INDEX SCANS", lambda t: f"{t['index_scans']:,}", right=True),
        Column("WRITTEN", lambda t: f"{t['rows_written']:,}", right=True),
    )
    print_table(session, found["tables"], tables, "it has no tables")
    for one in found["unindexed_keys"]:
        columns = ", ".join(one["columns"])
        print_line(
            f"no index for foreign key {one['name']} of {one['table']} ({columns}): deleting from "
            f"{one['references']} reads all of it"
        )
    for one in found["unused_indexes"]:
        print_line(f"never read: index {one['name']}, {size(one['bytes'])}, of {one['table']}")
    _print_statements(session, found["statements"])


def _print_statements(session: Session, found: list[Json] | None) -> None:
    if found is None:
        print_line(
            "statements are not counted here: add pg_stat_statements to "
            "shared_preload_libraries and CREATE EXTENSION it in the database postgres"
        )
        return
    columns = (
        Column("TOTAL", lambda s: f"{s['total_ms'] / _MS:,.1f} s", right=True),
        Column("CALLS", lambda s: f"{s['calls']:,}", right=True),
        Column("EACH", lambda s: f"{s['mean_ms']:,.2f} ms", right=True),
        Column("STATEMENT", lambda s: s["text"]),
    )
    click.echo()
    print_table(session, found, columns, "no statement was counted yet")


def _print_server(session: Session, found: Json) -> None:
    print_line(
        f"{found['server']}: {found['busy']:.2f} sessions busy in the last {found['seconds']:.0f} s"
    )
    if found["problem"]:
        print_line(f"- {found['problem']}")
    columns = (
        Column("TENANT", lambda t: t["tenant"]),
        Column("BUSY", lambda t: f"{t['rates']['time']:.2f}", right=True),
        Column("SHARE", lambda t: f"{t['shares']['time']:.0%}", right=True),
        Column("WRITTEN/S", lambda t: f"{t['rates']['rows_written']:,.0f}", right=True),
        Column("BLOCKS/S", lambda t: f"{t['rates']['blocks_read']:,.0f}", right=True),
        Column("TEMP MB/S", lambda t: f"{t['rates']['temp']:,.1f}", right=True),
        Column("CONNECTIONS", lambda t: str(t["connections"]), right=True),
        Column("POOL WAIT", lambda t: f"{t['pool_wait_ms']:,.1f} ms", right=True),
    )
    print_table(session, found["ranked"], columns, "no tenant did anything")
    if not found["noisy"]:
        print_line("nobody disturbs anybody")
    for one in found["noisy"]:
        print_line(f"{one['level']}: {one['verdict']}")
        for action in one["actions"]:
            against = f"; not now: {action['why_not']}" if action["why_not"] else ""
            print_line(f"- {action['rung']}: {action['words']} (cost: {action['cost']}{against})")
