"""What must be true of catalog and reality together: a pure comparison, both directions.

Numbers in ``invariant`` are those of the reliability page (I-1 … I-15).
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.domain import move_invariants
from control_plane.domain.move_invariants import ExpectedMove, FoundLinks
from control_plane.domain.names import TEMPLATE_PREFIX, RoleSet, loader_name, show
from control_plane.domain.tenants import LoginLimits, TenantState

Repair = Literal["reset_login", "reclaim", "resume", "sweep_templates"]
Purpose = Literal[
    "preparing",
    "pooled",
    "primary",
    "scratch",
    "previous",
    "moving",
    "moved_from",
    "condemned",
]


_ROUTES: dict[TenantState, str] = {
    "active": "published",
    "suspended": "withdrawn",
    "archived": "withdrawn",
    "deleting": "withdrawn",
}


class Finding(msgspec.Struct, frozen=True):
    """One difference. ``repair`` names the provably safe mend, if there is one."""

    invariant: str
    subject: str
    message: str
    remedy: str
    repair: Repair | None = None
    key: UUID | None = None


class ExpectedDatabase(msgspec.Struct, frozen=True):
    """A database as the catalog knows it. ``busy``: an operation is working on it."""

    id: UUID
    name: str
    server: str
    purpose: Purpose
    role_set_id: UUID
    tenant_state: TenantState | None
    slug: str | None
    busy: bool
    limits: LoginLimits
    open_logins: dict[str, str]
    unfinished_revision: str | None = None

    @property
    def subject(self) -> str:
        return self.slug or self.name


class ExpectedRoute(msgspec.Struct, frozen=True):
    """A tenant and its route, as the catalog knows them.

    ``archive_state`` is that of the backup it consists of; ``overdue``: the next part of its
    deletion should have begun an hour ago, and no legal hold forbids it.
    """

    tenant_id: UUID
    slug: str
    tenant_state: TenantState
    route_state: str | None
    pause_is_stale: bool
    busy: bool
    operation_failed: str | None
    has_database: bool = True
    archive_state: str | None = None
    overdue: bool = False


class FoundLogin(msgspec.Struct, frozen=True):
    """A login as its server has it; ``as_wanted`` covers limits, settings and attributes.

    ``verifier_shown``: only a superuser sees verifiers; to others passwords cannot be compared.
    """

    can_login: bool
    verifier: str | None
    as_wanted: bool
    verifier_shown: bool = True


class FoundServer(msgspec.Struct, frozen=True):
    """What is on one server. ``problem`` is set when it could not be looked at."""

    name: str
    problem: str | None = None
    databases: dict[str, bool] = {}
    roles: frozenset[str] = frozenset()
    logins: dict[str, FoundLogin] = {}
    session_operations: frozenset[str] = frozenset()
    links: FoundLinks = FoundLinks()
    schema_problems: dict[str, str] = {}
    audit_problems: dict[str, str] = {}
    sequence_problems: dict[str, str] = {}


class FoundPooler(msgspec.Struct, frozen=True):
    """What a pooler serves, against what it should."""

    name: str
    alive: bool
    behind: int
    problem: str | None
    digest_matches: bool


class Counter(msgspec.Struct, frozen=True):
    """A stored number and the rows it stands for."""

    subject: str
    stored: int
    counted: int


class LiveOperation(msgspec.Struct, frozen=True):
    """An operation that is not over, as far as its health goes."""

    id: UUID
    kind: str
    subject: str
    deadline: dt.datetime
    overdue: bool
    steps_in_order: bool


class World(msgspec.Struct, frozen=True):
    """Catalog and reality, gathered; ``now`` is the catalog's."""

    databases: list[ExpectedDatabase]
    routes: list[ExpectedRoute]
    servers: list[FoundServer]
    poolers: list[FoundPooler]
    counters: list[Counter]
    operations: list[LiveOperation]
    templates: frozenset[tuple[str, str]]
    live_operation_ids: frozenset[str]
    moves: tuple[ExpectedMove, ...] = ()


def findings(world: World) -> list[Finding]:
    """Every difference between what is and what must be, in a stable order."""
    found: list[Finding] = []
    for server in world.servers:
        expected = [d for d in world.databases if d.server == server.name]
        found += _server(server, expected, world)
    found += [f for route in world.routes for f in _route(route)]
    found += [f for pooler in world.poolers for f in _pooler(pooler)]
    found += [f for operation in world.operations for f in _operation(operation)]
    found += _counters(world.counters)
    return sorted(found, key=lambda f: (f.invariant, f.subject, f.message))


def _server(
    server: FoundServer, expected: list[ExpectedDatabase], world: World
) -> Iterator[Finding]:
    if server.problem is not None:
        remedy = "start the server or mend the network; tenantry servers list shows its health"
        yield Finding("I-1", server.name, f"cannot be looked at: {server.problem}", remedy)
        return
    yield from _missing(server, expected)
    yield from _unknown(server, expected, world)
    yield from (f for database in expected for f in _logins(server, database))
    for database in expected:
        if database.name in server.schema_problems and not database.busy:
            message = server.schema_problems[database.name]
            remedy = "compare with tenantry tenants show; do not route to it until it is explained"
            yield Finding("I-1", database.subject, message, remedy)
        if database.name in server.audit_problems and not database.busy:
            message = server.audit_problems[database.name]
            yield Finding(
                "I-9", database.subject, message, f"tenantry audit verify {database.subject}"
            )
        if database.name in server.sequence_problems and not database.busy:
            message = server.sequence_problems[database.name]
            yield Finding("I-7", database.subject, message, "SELECT setval(…) in its database")


def _missing(server: FoundServer, expected: Iterable[ExpectedDatabase]) -> Iterator[Finding]:
    for database in expected:
        if database.busy:
            continue
        if database.purpose in ("preparing", "scratch", "condemned"):
            message = f"database {database.name} is {database.purpose} and nobody works on it"
            yield Finding(
                "I-3", database.subject, message, "tenantry check --repair", "reclaim", database.id
            )
            continue
        if database.name not in server.databases:
            message = f"database {database.name} is not on {server.name}"
            remedy = "restore the tenant from its newest backup"
            yield Finding("I-3", database.subject, message, remedy)
        lost = sorted(set(RoleSet(database.role_set_id).every) - server.roles)
        if lost:
            message = f"roles are missing on {server.name}: {', '.join(lost)}"
            yield Finding(
                "I-3",
                database.subject,
                message,
                "tenantry check --repair",
                "reset_login",
                database.id,
            )
        if database.unfinished_revision is not None:
            message = (
                f"revision {database.unfinished_revision} has begun and is not known to be done"
            )
            remedy = f"tenantry migrate {database.subject}"
            yield Finding("I-12", database.subject, message, remedy)


def _unknown(
    server: FoundServer, expected: list[ExpectedDatabase], world: World
) -> Iterator[Finding]:
    known = {database.name for database in expected}
    templates = {name for on, name in world.templates if on == server.name}
    for name, valid in server.databases.items():
        if not valid:
            message = f"database {name} on {server.name} was left invalid by an interrupted DROP"
            yield Finding("I-13", server.name, message, f'DROP DATABASE "{name}"')
        elif name not in known and name not in templates:
            message = f"database {name} on {server.name} belongs to nobody in the catalog"
            if name.startswith(TEMPLATE_PREFIX):
                yield Finding(
                    "I-3", server.name, message, "tenantry check --repair", "sweep_templates"
                )
                continue
            remedy = "find out whose it is; drop it by hand when it is nobody's"
            yield Finding("I-3", server.name, message, remedy)
    roles = {role for database in expected for role in RoleSet(database.role_set_id).every}
    roles |= {loader_name(d.name) for d in expected if d.purpose in ("scratch", "condemned")}
    for role in sorted(server.roles - roles):
        message = f"role {role} on {server.name} belongs to nobody in the catalog"
        yield Finding("I-3", server.name, message, "drop the role by hand when nothing needs it")
    for one in move_invariants.differences(server.name, server.links, world.moves):
        yield Finding(one.invariant, one.subject, one.message, one.remedy)
    for operation in sorted(server.session_operations - world.live_operation_ids):
        message = f"a session of operation op_{operation} outlives it on {server.name}"
        yield Finding("I-3", server.name, message, "end it with pg_terminate_backend")


def _logins(server: FoundServer, database: ExpectedDatabase) -> Iterator[Finding]:
    if database.busy or database.purpose not in ("primary", "pooled", "moved_from"):
        return
    closed = database.purpose != "primary" or database.tenant_state != "active"
    roles = RoleSet(database.role_set_id)
    # The migrator's login is open only while an operation migrates the tenant.
    for login in (*roles.logins, roles.migrator):
        found = server.logins.get(login)
        wanted = None if closed else database.open_logins.get(login)
        if found is None:
            continue
        drift = _drift(found, wanted)
        if drift:
            yield Finding(
                "I-8",
                database.subject,
                f"login {login} on {server.name} {drift}",
                "tenantry check --repair",
                "reset_login",
                database.id,
            )


def _drift(found: FoundLogin, wanted_verifier: str | None) -> str | None:
    if wanted_verifier is None:
        return "is open and should be closed" if found.can_login else None
    if not found.can_login:
        return "is closed and should be open"
    if found.verifier_shown and found.verifier != wanted_verifier:
        return "has another password than the catalog's"
    return None if found.as_wanted else "has other limits or settings than its tier's"


def _route(route: ExpectedRoute) -> Iterator[Finding]:
    if route.pause_is_stale:
        message = "is paused by an operation that is over"
        yield Finding(
            "I-2", route.slug, message, "tenantry check --repair", "resume", route.tenant_id
        )
    if route.busy:
        return
    wanted = _ROUTES.get(route.tenant_state)
    if wanted is not None and route.route_state != wanted:
        message = f"is {route.tenant_state} but its route is {route.route_state or 'missing'}"
        yield Finding("I-2", route.slug, message, _retry(route))
    if route.tenant_state == "provisioning":
        message = f"is {route.tenant_state} and no operation works on it"
        yield Finding("I-10", route.slug, message, "tenantry operations list --tenant")
    yield from _ending(route)


def _ending(route: ExpectedRoute) -> Iterator[Finding]:
    """A tenant has a database unless it is archived, or its deletion has come that far."""
    if route.tenant_state in ("active", "suspended") and not route.has_database:
        message = f"is {route.tenant_state} and has no database"
        yield Finding("I-1", route.slug, message, f"tenantry backups list {route.slug}")
    if route.tenant_state == "archived" and route.has_database:
        yield Finding("I-1", route.slug, "is archived and has a database", _retry(route))
    if route.tenant_state == "archived" and route.archive_state != "complete":
        message = f"consists of a backup that is {route.archive_state or 'not on record'}"
        yield Finding("I-5", route.slug, message, f"tenantry backups list {route.slug}")
    if route.overdue:
        message = "should have been destroyed further, and no operation works on it"
        remedy = f"tenantry operations list --tenant {route.slug} --state failed"
        yield Finding("I-10", route.slug, message, remedy)


def _retry(route: ExpectedRoute) -> str:
    return f"tenantry operations retry {route.operation_failed or 'the failed operation'}"


def _pooler(pooler: FoundPooler) -> Iterator[Finding]:
    if not pooler.alive:
        remedy = f"start its agent; if it is gone: tenantry poolers remove {pooler.name}"
        yield Finding("I-2", pooler.name, "its agent does not report", remedy)
    elif pooler.problem is not None:
        yield Finding("I-2", pooler.name, pooler.problem, "read the agent's log")
    elif pooler.behind:
        message = f"serves a configuration {pooler.behind} changes old"
        yield Finding("I-2", pooler.name, message, "read the agent's log")
    elif not pooler.digest_matches:
        yield Finding(
            "I-2",
            pooler.name,
            "serves other routes than the catalog's",
            "restart its agent: it writes everything anew",
        )


def _operation(operation: LiveOperation) -> Iterator[Finding]:
    shown = show("op", operation.id)
    if operation.overdue:
        message = f"{operation.kind} {shown} is past its deadline"
        yield Finding("I-10", operation.subject, message, f"tenantry operations show {shown}")
    if not operation.steps_in_order:
        message = f"{operation.kind} {shown} finished a step before an earlier one"
        yield Finding("I-10", operation.subject, message, "report this: it cannot happen")


def _counters(counters: Iterable[Counter]) -> Iterator[Finding]:
    for counter in counters:
        if counter.stored != counter.counted:
            message = f"counts {counter.stored} tenants, but there are {counter.counted}"
            yield Finding("I-1", counter.subject, message, "report this: it cannot happen")
