"""Rows of a clinic: the smallest living row of every table, with the parents it needs."""

# ruff: noqa: S608 - the names in the SQL are constants of these tests
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from secrets import token_bytes, token_hex
from uuid import UUID

from control_plane.adapters.postgres_server import Connection

SOON = dt.datetime(2030, 1, 15, 9, tzinfo=dt.UTC)
LATER = SOON + dt.timedelta(hours=1)

# Text names a parent's table; a callable makes a value.
Value = str | Callable[[], object]
MINIMAL: Mapping[str, Mapping[str, Value]] = {
    "public.city": {"country_code": lambda: "CH", "region": token_hex, "name": token_hex},
    "public.specialty": {"name": token_hex},
    "providers.provider": {
        "display_name": token_hex,
        "specialty_id": "public.specialty",
        "city_id": "public.city",
    },
    "providers.provider_specialty": {
        "provider_id": "providers.provider",
        "specialty_id": "public.specialty",
    },
    "providers.service": {
        "provider_id": "providers.provider",
        "name": token_hex,
        "duration_minutes": lambda: 30,
        "price": lambda: 100,
        "currency": lambda: "CHF",
    },
    "providers.availability": {
        "provider_id": "providers.provider",
        "starts_at": lambda: SOON,
        "ends_at": lambda: LATER,
    },
    "patients.patient": {"name_ciphertext": lambda: token_bytes(40)},
    "patients.preference": {
        "patient_id": "patients.patient",
        "name": token_hex,
        "value": lambda: "{}",
    },
    "patients.health_condition": {
        "patient_id": "patients.patient",
        "condition_ciphertext": lambda: token_bytes(40),
    },
    "bookings.appointment": {
        "provider_id": "providers.provider",
        "patient_id": "patients.patient",
        "appointment_at": lambda: SOON,
    },
    "bookings.payment": {
        "appointment_id": "bookings.appointment",
        "amount": lambda: 100,
        "currency": lambda: "CHF",
    },
    "bookings.review": {"appointment_id": "bookings.appointment", "rating": lambda: 5},
}


@asynccontextmanager
async def acting(connection: Connection, user: str = "somebody") -> AsyncIterator[None]:
    """A transaction in which the application has named its user."""
    async with connection.transaction():
        await connection.execute("SELECT set_config('app.user_id', $1, true)", user)
        yield


async def add(connection: Connection, table: str, **given: object) -> UUID:
    """The id of a new row of ``table``; parents that are not ``given`` are made first."""
    values = dict(given)
    for column, source in MINIMAL[table].items():
        if column not in values:
            made = await add(connection, source) if isinstance(source, str) else source()
            values[column] = made
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    found = await connection.fetchval(
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places}) RETURNING id",
        *values.values(),
    )
    assert isinstance(found, UUID)
    return found


async def soft_delete(connection: Connection, table: str, key: UUID, reason: str = "test") -> bool:
    deleted = await connection.fetchval("SELECT public.soft_delete($1, $2, $3)", table, key, reason)
    assert isinstance(deleted, bool)
    return deleted
