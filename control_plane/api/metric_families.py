"""The catalog's figures as Prometheus families: bounded labels, and no tenant's name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from prometheus_client.core import GaugeMetricFamily

from control_plane.catalog.backup_watch import Figures, TierFigures
from control_plane.catalog.fleet_figures import FleetFigures, ServerFigures
from control_plane.domain.backups import BackupState
from control_plane.domain.names import show
from control_plane.domain.noise import Level
from control_plane.domain.plans import KINDS

_LIVE = ("pending", "running", "waiting", "cancelling")
_POOLER_STATES = ("serving", "behind", "away")
# By the fields of TierFigures.
_OF_TIERS = {
    "tenants": ("backup_tenants", "Tenants that are backed up by schedule"),
    "breached": ("backup_rpo_breached_tenants", "Tenants whose newest backup is too old"),
    "waiting": ("backup_waiting_tenants", "Tenants whose backup is due and has not begun"),
    "undrilled": ("drill_undrilled_tenants", "Tenants of which no backup was ever proven"),
    "oldest_backup": ("backup_oldest_seconds", "Greatest age of a tenant's newest backup"),
    "oldest_drill": ("drill_oldest_seconds", "Greatest age of a tenant's newest proof"),
}
# By the fields of ServerFigures.
_OF_SERVERS = {
    "reachable": ("server_reachable", "Whether the server answered when it was last looked at"),
    "sampled": ("server_sampled_seconds", "Seconds since its usage was sampled"),
    "busy": ("server_busy_sessions", "Sessions that executed statements at any time"),
    "connections": ("server_connections", "Most connections that were open at once"),
    "waiting": ("server_pool_waiting_clients", "Most clients that waited for a pool at once"),
    "wait_seconds": ("server_pool_wait_seconds", "Wait for the pool per transaction"),
    "deadlocks": ("server_deadlocks", "Deadlocks in the last two minutes"),
}


def backup_families(figures: Figures) -> Iterator[GaugeMetricFamily]:
    """How well the fleet is backed up and proven."""
    yield _labelled(
        "backups", "Backups on record", "state", _filled(get_args(BackupState), figures.backups)
    )
    for field, (name, words) in _OF_TIERS.items():
        yield _of_tiers(f"tenantry_{name}", words, field, figures.tiers)
    yield GaugeMetricFamily(
        "tenantry_backup_planning_seconds",
        "Seconds since the queue of backups was looked at",
        value=figures.planned,
    )
    yield GaugeMetricFamily(
        "tenantry_catalog_backup_seconds",
        "Age of the newest backup of the catalog itself; since its acceptance without one",
        value=figures.catalog,
    )


def fleet_families(figures: FleetFigures) -> Iterator[GaugeMetricFamily]:
    """Work, poolers, servers and the tenants that use most."""
    yield _labelled("operations", "Live operations", "state", _filled(_LIVE, figures.operations))
    yield _labelled(
        "operations_failed",
        "Operations begun in the last hour that failed",
        "verb",
        _filled(KINDS, figures.failed),
    )
    yield _single("operations_overdue", "Live operations past their deadline", figures.overdue)
    yield _single("operation_due_seconds", "How long the oldest due one waits", figures.oldest_due)
    yield _single(
        "lease_losses", "Leases lost by operations begun in the last hour", figures.takeovers
    )
    yield from _of_steps(figures)
    yield _labelled(
        "poolers", "PgBouncer processes", "state", _filled(_POOLER_STATES, figures.poolers)
    )
    yield _labelled(
        "disturbances",
        "Tenants that use more than their share",
        "level",
        _filled(get_args(Level), figures.disturbances),
    )
    for field, (name, words) in _OF_SERVERS.items():
        yield _of_servers(f"tenantry_{name}", words, field, figures.servers)
    yield from _of_top(figures)


def _of_steps(figures: FleetFigures) -> Iterator[GaugeMetricFamily]:
    labels = ["verb", "step"]
    done = GaugeMetricFamily(
        "tenantry_steps_done", "Steps done by operations begun in the last hour", labels=labels
    )
    median = GaugeMetricFamily("tenantry_step_median_seconds", "Their median time", labels=labels)
    longest = GaugeMetricFamily("tenantry_step_longest_seconds", "Their longest", labels=labels)
    for one in figures.steps:
        done.add_metric([one.verb, one.step], one.done)
        median.add_metric([one.verb, one.step], one.median)
        longest.add_metric([one.verb, one.step], one.longest)
    return iter((done, median, longest))


def _of_top(figures: FleetFigures) -> Iterator[GaugeMetricFamily]:
    labels = ["tenant", "server"]
    busy = GaugeMetricFamily(
        "tenantry_top_tenant_busy_sessions", "Busy sessions of who uses most", labels=labels
    )
    part = GaugeMetricFamily(
        "tenantry_top_tenant_share", "Their share of the server's time", labels=labels
    )
    wait = GaugeMetricFamily(
        "tenantry_top_tenant_pool_wait_seconds", "Their wait per transaction", labels=labels
    )
    for one in figures.top:
        named = [show("tn", one.tenant_id), one.server]
        busy.add_metric(named, one.busy)
        part.add_metric(named, one.share)
        wait.add_metric(named, one.wait_seconds)
    return iter((busy, part, wait))


def _of_tiers(name: str, words: str, field: str, tiers: Iterable[TierFigures]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=["tier"])
    for one in tiers:
        value = getattr(one, field)
        if value is not None:
            family.add_metric([one.tier], value)
    return family


def _of_servers(
    name: str, words: str, field: str, servers: Iterable[ServerFigures]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=["server"])
    for one in servers:
        value = getattr(one, field)
        if value is not None:
            family.add_metric([one.server], float(value))
    return family


def _single(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tenantry_{name}", words, value=value)


def _labelled(name: str, words: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"tenantry_{name}", words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _filled(keys: Iterable[str], counts: Mapping[Any, int]) -> dict[str, int]:
    """Zero is a number too: a gauge that disappears cannot be alerted on."""
    return {key: counts.get(key, 0) for key in keys}
