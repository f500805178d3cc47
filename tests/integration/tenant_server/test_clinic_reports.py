"""Reports: right numbers without PHI, read by the dashboards, refreshed while they read (§2.8)."""

# ruff: noqa: S608 - the names in the SQL are constants of these tests

import datetime as dt
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from control_plane.adapters.postgres_server import Connection
from tests.integration.tenant_server.clinic import DENIED, Clinic, Place, provision, sqlstate
from tests.integration.tenant_server.clinic_rows import acting, add, soft_delete

REPORTS = ("provider_revenue", "booking_trends", "marketplace_health")
PAST, FUTURE = (dt.datetime(year, 3, 31, 23, 30, tzinfo=dt.UTC) for year in (2024, 2035))


@pytest.fixture(scope="module")
async def clinic(place: Place) -> Clinic:
    """One of its own: the numbers are those of everything in it."""
    return await provision(place)


@pytest.fixture
async def app(clinic: Clinic) -> AsyncIterator[Connection]:
    connection = await clinic.app()
    yield connection
    await connection.close()


@pytest.fixture
async def owner(clinic: Clinic) -> AsyncIterator[Connection]:
    """As the workers refresh: the administrator who became the owner."""
    async with clinic.inside() as connection:
        await connection.execute(f"SET ROLE {clinic.roles.owner}; SET search_path = pg_catalog")
        yield connection


async def refresh(owner: Connection) -> None:
    for report in REPORTS:
        await owner.execute(f"REFRESH MATERIALIZED VIEW CONCURRENTLY reports.{report}")


async def rows(app: Connection, report: str, only: str, key: UUID) -> list[dict[str, object]]:
    found = await app.fetch(
        f"SELECT * FROM reports.{report} WHERE {only} = $1 ORDER BY 1, 2, 3", key
    )
    return [
        {name: value for name, value in row.items() if name not in {only, "refreshed_at"}}
        for row in found
    ]


async def test_revenue_is_by_the_month_of_the_appointment(
    app: Connection, owner: Connection
) -> None:
    async with acting(app):
        provider = await add(app, "providers.provider")
        booked = {"provider_id": provider, "status": "completed", "appointment_at": PAST}
        visit = await add(app, "bookings.appointment", **booked)
        for amount, currency, status in (
            (100, "CHF", "paid"),
            (20, "CHF", "paid"),
            (7, "CHF", "refunded"),
            (5, "CHF", "pending"),
            (3, "EUR", "failed"),
        ):
            money = {"amount": amount, "currency": currency, "status": status}
            await add(app, "bookings.payment", appointment_id=visit, **money)
        gone = await add(app, "bookings.payment", appointment_id=visit, amount=999, status="paid")
        await soft_delete(app, "bookings.payment", gone)
    await refresh(owner)
    march, zero = {"month": dt.date(2024, 3, 1)}, Decimal(0)
    assert await rows(app, "provider_revenue", "provider_id", provider) == [
        march | {"currency": "CHF", "paid_payments": 2, "paid": 120, "pending": 5, "refunded": 7},
        march
        | {"currency": "EUR", "paid_payments": 0, "paid": zero, "pending": zero, "refunded": zero},
    ]


async def test_trends_and_health_count_the_living(app: Connection, owner: Connection) -> None:
    async with acting(app):
        specialty = await add(app, "public.specialty")
        further = await add(app, "public.specialty")
        city = await add(app, "public.city")
        here = {"specialty_id": specialty, "city_id": city}
        busy = await add(app, "providers.provider", **here)
        await add(app, "providers.provider", is_available=False, **here)
        await soft_delete(app, "providers.provider", await add(app, "providers.provider", **here))
        await add(app, "providers.provider_specialty", provider_id=busy, specialty_id=further)
        for status, when, rating in (
            ("completed", PAST, 5),
            ("completed", PAST, 4),
            ("confirmed", FUTURE, None),
            ("confirmed", PAST, None),
            ("cancelled", FUTURE, None),
        ):
            visit = await add(
                app, "bookings.appointment", provider_id=busy, status=status, appointment_at=when
            )
            if rating:
                await add(app, "bookings.review", appointment_id=visit, rating=rating)
        gone = await add(app, "bookings.appointment", provider_id=busy, appointment_at=PAST)
        await soft_delete(app, "bookings.appointment", gone)
    await refresh(owner)
    past, future = PAST.date(), FUTURE.date()
    assert await rows(app, "booking_trends", "specialty_id", specialty) == [
        {"day": past, "status": "completed", "appointments": 2, "providers": 1},
        {"day": past, "status": "confirmed", "appointments": 1, "providers": 1},
        {"day": future, "status": "cancelled", "appointments": 1, "providers": 1},
        {"day": future, "status": "confirmed", "appointments": 1, "providers": 1},
    ]
    numbers = {"city_id": city, "upcoming": 1, "completed": 2, "average_rating": Decimal("4.50")}
    assert await rows(app, "marketplace_health", "specialty_id", specialty) == [
        numbers | {"providers": 2, "available_providers": 1}
    ]
    assert await rows(app, "marketplace_health", "specialty_id", further) == [
        numbers | {"providers": 1, "available_providers": 1}
    ]


@pytest.mark.parametrize("report", REPORTS)
async def test_a_report_can_always_be_refreshed_beside_its_readers(
    app: Connection, owner: Connection, report: str
) -> None:
    """Populated (else 0A000), with a unique index over plain columns and all rows (else 55000)."""
    facts = await owner.fetchrow(
        """SELECT c.relispopulated AS populated, count(i.indexrelid) AS complete
             FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique
                  AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
            WHERE c.oid = $1::text::regclass GROUP BY c.oid""",
        f"reports.{report}",
    )
    assert dict(facts or {}) == {"populated": True, "complete": 1}
    async with acting(app):
        await add(app, "bookings.payment")
    read = f"SELECT max(refreshed_at) FROM reports.{report}"
    await refresh(owner)
    before = await app.fetchval(read)
    reading = app.transaction()
    await reading.start()
    await app.fetchval(read)
    await refresh(owner)
    await reading.rollback()
    assert await app.fetchval(read) > before


async def test_only_the_owner_refreshes(app: Connection) -> None:
    for report in REPORTS:
        statement = f"REFRESH MATERIALIZED VIEW reports.{report}"
        assert await sqlstate(app, statement) == DENIED


async def test_no_report_reads_a_column_that_may_hold_phi(owner: Connection) -> None:
    """By what Postgres recorded of each view's definition, not by the names in its output."""
    used = await owner.fetch(
        """SELECT DISTINCT v.relname || ' uses ' || d.refobjid::regclass || '.' || a.attname
             FROM pg_depend d
             JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
             JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'm'
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             JOIN pg_class c ON c.oid = d.refobjid
             JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE d.refobjsubid > 0 AND (n.nspname = 'patients' OR a.attname = 'patient_id'
                  OR a.attname ~ 'ciphertext|blind_index|reason')"""
    )
    assert [row[0] for row in used] == []
    with pytest.raises(asyncpg.UndefinedColumnError):
        await owner.execute("SELECT patient_id FROM reports.booking_trends")
