"""Surveys of a fleet on two servers: what differs is found, named, and told over the API."""

import ipaddress
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from litestar.testing import AsyncTestClient

from control_plane.adapters import clock
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.template_database import BuiltSchema, build_template
from control_plane.adapters.tenant_roles import bootstrap_server
from control_plane.api.app import build_app
from control_plane.bootstrap import make_ports
from control_plane.catalog import operations, routes, schemas, servers
from control_plane.catalog.audit import Caller
from control_plane.catalog.migrate import migrate
from control_plane.catalog.schemas import DriftGroup
from control_plane.catalog.servers import Server
from control_plane.config import DEFAULT_TEMPLATE, Secret, Settings
from control_plane.domain.keys import Principal
from control_plane.domain.names import template_name
from control_plane.domain.operations import Operation
from control_plane.services.addresses import seal_admin_password
from control_plane.services.drift import start_survey, tenant_drift
from control_plane.services.keys import NewKey, create_key
from control_plane.services.ports import Ports
from tests.integration.tenant_server.clinic import (
    REVISION,
    TEMPLATE,
    TEMPLATES,
    Clinic,
    Place,
    provision,
    system_identifier_of,
)
from tests.integration.tenant_server.postgres_fixture import ADMIN, TenantServer, running_server
from workers import survey
from workers.engine.runner import Runner

CALLER = Caller(Principal(clock.new_id(), "test", frozenset({"operator"})))
MAJORS = (15, 18)
PER_SERVER = 3
NOBODY_LISTENS = 1


@dataclass(frozen=True)
class Fleet:
    """Tenants by slug, on a server of each version, recorded in the catalog of ``ports``."""

    ports: Ports
    clinics: dict[str, Clinic]

    async def survey(self, *slugs: str) -> Operation:
        """A survey of these tenants, or of all, carried out to its end."""
        async with self.ports.catalog.transaction() as db:
            operation = await start_survey(db, CALLER, slugs or None)
        runner = Runner(self.ports, {"survey": survey.VERB})
        await runner.advance(operation.id)
        async with self.ports.catalog.connection() as db:
            return await operations.get(db, operation.id)

    async def groups(self) -> list[DriftGroup]:
        async with self.ports.catalog.connection() as db:
            return await schemas.groups(db, None)

    async def spoil(self, slug: str, statement: str) -> None:
        async with self.clinics[slug].inside() as inside:
            await inside.execute(statement)


Ground = list[tuple[Place, Sequence[BuiltSchema]]]


@pytest.fixture(scope="module")
async def ground() -> AsyncIterator[Ground]:
    """A server of each version with the template, and the golden schemas of every revision."""
    with running_server(MAJORS[0]) as oldest, running_server(MAJORS[1]) as newest:
        yield [await make_place(oldest), await make_place(newest)]


@pytest.fixture
async def fleet(ground: Ground, tmp_path: Path) -> AsyncIterator[Fleet]:
    ports = make_ports(await make_settings(ground[0][0].server, tmp_path))
    await ports.catalog.open()
    clinics: dict[str, Clinic] = {}
    async with ports.catalog.connection() as db:
        cell = await routes.ensure_cell(db, clock.new_id(), "cell-1")
    for place, golden in ground:
        major = place.server.version
        server_id = await add_server(ports, f"pg-{major}", place.server.port, place)
        await record_golden(ports, major, golden)
        for number in range(PER_SERVER):
            slug = f"clinic-{major}-{number}"
            clinics[slug] = await provision(place)
            await add_tenant(ports, slug, clinics[slug], server_id, cell.id)
    yield Fleet(ports, clinics)
    await ports.catalog.close()


async def record_golden(ports: Ports, major: int, golden: Sequence[BuiltSchema]) -> None:
    content = TEMPLATES.current(DEFAULT_TEMPLATE).fingerprint
    async with ports.catalog.transaction() as db:
        for built in golden:
            await schemas.record_golden(
                db,
                DEFAULT_TEMPLATE,
                content,
                built.revision,
                major,
                schemas.Golden(built.reading, built.mark),
            )


async def make_settings(server: TenantServer, home: Path) -> Settings:
    admin = await server.admin()
    name = f"catalog_{clock.new_id().hex}"
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    Keyring.create(home / "root.keys")
    settings = Settings(
        home=home,
        catalog_dsn=f"postgresql://{ADMIN}@127.0.0.1:{server.port}/{name}?sslmode=disable",
        catalog_password=Secret(server.password.reveal()),
        redis_url=f"redis://127.0.0.1:{NOBODY_LISTENS}/0",
        redis_password=None,
        keyring_file=home / "root.keys",
        server_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        templates={DEFAULT_TEMPLATE: TEMPLATE},
    )
    migrate(settings)
    return settings


async def make_place(server: TenantServer) -> tuple[Place, Sequence[BuiltSchema]]:
    admin = await server.admin()
    await bootstrap_server(admin)
    system_identifier = await system_identifier_of(admin)
    await admin.close()
    template, golden = TEMPLATES.current(DEFAULT_TEMPLATE), list[BuiltSchema]()

    async def keep(built: Sequence[BuiltSchema]) -> None:
        golden.extend(built)

    name = template_name(template.fingerprint)
    assert await build_template(server.address(), name, template, system_identifier, keep)
    return Place(server, name, system_identifier), golden


async def add_server(ports: Ports, name: str, port: int, place: Place) -> UUID:
    server_id = clock.new_id()
    password = place.server.password.reveal()
    row = Server(
        id=server_id,
        name=name,
        host="127.0.0.1",
        hostaddr="127.0.0.1",
        port=port,
        admin_login=ADMIN,
        sealed_password=seal_admin_password(ports.keyring, server_id, password),
        tls="disable",
        ca_pem=None,
        system_identifier=place.system_identifier + (port == NOBODY_LISTENS),
        version_num=place.server.version * 10_000,
        region=None,
        tier=None,
        labels={},
        capacity=100,
        placed=0,
        state="enrolling",
        preflight=[],
        reachable=True,
        checked_at=clock.now(),
        problem=None,
        created_at=clock.now(),
    )
    async with ports.catalog.transaction() as db:
        await servers.insert(db, row)
        await servers.change_state(db, server_id, expected=("enrolling",), wanted="active")
    return server_id


async def add_tenant(
    ports: Ports, slug: str, clinic: Clinic, server_id: UUID, cell_id: UUID
) -> None:
    key = clinic.roles.key
    async with ports.catalog.transaction() as db:
        await db.execute("INSERT INTO role_sets (id) VALUES ($1)", key)
        await db.execute(
            """INSERT INTO tenants (id, slug, name, tier, state, cell_id, placement_reason,
                                    activated_at)
               VALUES ($1, $2, $2, 'standard', 'active', $3, 'test', clock_timestamp())""",
            key,
            slug,
            cell_id,
        )
        await db.execute(
            """INSERT INTO databases (id, role_set_id, tenant_id, server_id, name,
                                      template_fingerprint, schema_revision, purpose)
               VALUES ($1, $1, $1, $2, $3, $4, $5, 'primary')""",
            key,
            server_id,
            clinic.database,
            TEMPLATES.current(DEFAULT_TEMPLATE).fingerprint,
            REVISION,
        )


def told(operation: Operation) -> list[str | None]:
    assert operation.state == "succeeded", operation
    return [step.detail for step in operation.steps]


async def test_a_fleet_of_clones_is_clean_and_what_is_changed_by_hand_shows(fleet: Fleet) -> None:
    assert {group.matches for group in await fleet.groups()} == {None}
    assert told(await fleet.survey()) == [
        "6 of 6 databases read",
        "6 databases, 0 not as their golden schema",
    ]
    groups = await fleet.groups()
    assert [(group.major, group.tenants, group.matches) for group in groups] == [
        (15, PER_SERVER, True),
        (18, PER_SERVER, True),
    ]
    await fleet.spoil("clinic-18-1", "DROP INDEX bookings.appointment_upcoming")
    await fleet.spoil("clinic-15-0", "ALTER TABLE patients.patient DISABLE TRIGGER refuse_delete")
    # Only one tenant is read again: of the other nothing is known yet.
    assert told(await fleet.survey("clinic-18-1"))[0] == "1 of 1 databases read"
    spoilt = [group for group in await fleet.groups() if not group.matches]
    assert [(group.slugs, group.tenants) for group in spoilt] == [(["clinic-18-1"], 1)]
    assert told(await fleet.survey())[1] == "6 databases, 2 not as their golden schema"
    async with fleet.ports.catalog.connection() as db:
        index = await tenant_drift(db, CALLER, "clinic-18-1")
        trigger = await tenant_drift(db, CALLER, "clinic-15-0")
        clean = await tenant_drift(db, CALLER, "clinic-15-1")
    assert [(c.action, c.kind, c.name) for c in index.changes] == [
        ("missing", "index", "bookings.appointment_upcoming")
    ]
    assert [(c.action, c.kind, c.name) for c in trigger.changes] == [
        ("different", "trigger", "patients.patient.refuse_delete")
    ]
    assert (index.matches, clean.matches, clean.changes) == (False, True, [])


async def test_what_cannot_be_read_keeps_nobody_else_from_being_read(fleet: Fleet) -> None:
    place = fleet.clinics["clinic-15-0"].place
    dead = await add_server(fleet.ports, "pg-dead", NOBODY_LISTENS, place)
    async with fleet.ports.catalog.transaction() as db:
        await db.execute(
            "UPDATE databases SET server_id = $1 WHERE name = $2",
            dead,
            fleet.clinics["clinic-15-0"].database,
        )
        await db.execute(
            "UPDATE databases SET name = 't_' || repeat('0', 26) WHERE name = $1",
            fleet.clinics["clinic-18-0"].database,
        )
    assert told(await fleet.survey()) == [
        "6 of 6 databases read",
        "6 databases, 0 not as their golden schema, 2 could not be read",
    ]
    async with fleet.ports.catalog.transaction() as db:
        await servers.record_health(db, dead, reachable=False, problem="nobody answers")
    assert told(await fleet.survey()) == [
        "5 of 6 databases read, 1 on servers that do not answer",
        (
            "6 databases, 0 not as their golden schema, 1 could not be read, "
            "1 on servers that do not answer"
        ),
    ]
    known = sum(group.tenants for group in await fleet.groups() if group.matches)
    assert known == 2 * PER_SERVER - 2


async def test_a_reading_yields_to_one_that_is_newer(fleet: Fleet) -> None:
    await fleet.survey("clinic-15-0")
    key = fleet.clinics["clinic-15-0"].roles.key
    async with fleet.ports.catalog.connection() as db:
        before = await db.fetchval("SELECT clock_timestamp() - interval '1 hour'")
        await schemas.record_reading(db, key, None, before)
        found = await schemas.of_tenant(db, key)
    assert found is not None
    assert found.fingerprint == found.golden


async def test_golden_schemas_are_found_by_content_and_else_by_the_newest(fleet: Fleet) -> None:
    content = TEMPLATES.current(DEFAULT_TEMPLATE).fingerprint
    async with fleet.ports.catalog.connection() as db:
        exact = await schemas.golden(db, DEFAULT_TEMPLATE, content, REVISION, 15)
        newest = await schemas.golden(db, DEFAULT_TEMPLATE, "0" * 16, REVISION, 15)
        first = await schemas.golden(db, DEFAULT_TEMPLATE, content, "0001", 15)
        none = await schemas.golden(db, "dental", content, REVISION, 15)
    assert exact is not None
    assert exact == newest
    assert first is not None
    assert first.fingerprint != exact.fingerprint
    assert none is None


async def test_the_api_tells_groups_and_differences_and_starts_surveys(fleet: Fleet) -> None:
    async with fleet.ports.catalog.transaction() as db:
        issued = await create_key(db, CALLER, NewKey("operator", ("operator",)))
    await fleet.survey()
    await fleet.spoil("clinic-15-2", "ALTER TABLE providers.service ALTER currency SET DEFAULT 'X'")
    await fleet.survey("clinic-15-2")
    async with AsyncTestClient(build_app(fleet.ports)) as client:
        client.headers["Authorization"] = f"Bearer {issued.plain_token}"
        fleetwide = (await client.get("/v1/drift")).json()
        other = (await client.get("/v1/drift", params={"template": "dental"})).json()
        one = (await client.get("/v1/tenants/clinic-15-2/drift")).json()
        nobody = await client.get("/v1/tenants/nobody/drift")
        begun = await client.post("/v1/drift/surveys", json={"tenants": ["clinic-15-2"]})
        unknown = await client.post("/v1/drift/surveys", json={"tenants": ["nobody"]})
    assert [(g["sample"], g["matches"]) for g in fleetwide["groups"] if not g["matches"]] == [
        (["clinic-15-2"], False)
    ]
    assert other == {"groups": []}
    assert one["ddl"] == [
        (
            "-- different column providers.service.currency: "
            "text NOT NULL -> text NOT NULL DEFAULT 'X'::text"
        )
    ]
    assert (one["changes"][0]["action"], one["matches"]) == ("different", False)
    assert (nobody.status_code, unknown.status_code, begun.status_code) == (404, 404, 202)
    assert begun.json()["kind"] == "survey"
    assert begun.json()["subject"] == "clinic-15-2"
    assert begun.json()["id"].startswith("op_")
