"""The sample clinic application: what its web handlers would call, one session per request."""

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from tenant_template.client import find
from tests.integration.clinic_app.models import (
    Appointment,
    City,
    HealthCondition,
    Patient,
    Provider,
    Specialty,
)


class NotBookable(Exception):
    """The appointment cannot be changed in this way."""


async def open_practice(session: AsyncSession, name: str, *, city: str, specialty: str) -> Provider:
    """A provider, with its city and specialty."""
    place = City(country_code="DE", region="Berlin", name=city)
    field = Specialty(name=specialty)
    session.add_all([place, field])
    await session.flush()
    provider = Provider(display_name=name, specialty_id=field.id, city_id=place.id)
    session.add(provider)
    return provider


async def register_patient(
    session: AsyncSession,
    name: str,
    *,
    email: str | None = None,
    phone: str | None = None,
    birth_date: dt.date | None = None,
) -> Patient:
    """A new patient; the e-mail address is nobody else's, in any spelling."""
    patient = Patient(name=name, email=email, phone=phone, birth_date=birth_date)
    session.add(patient)
    await session.flush()
    return patient


async def find_patient_by_email(session: AsyncSession, email: str) -> Patient | None:
    living = find(Patient.email, email).where(Patient.deleted_at.is_(None))
    return (await session.scalars(living)).one_or_none()


async def record_condition(
    session: AsyncSession, patient: Patient, condition: dict[str, object]
) -> HealthCondition:
    recorded = HealthCondition(patient_id=patient.id, condition=condition)
    session.add(recorded)
    await session.flush()
    return recorded


async def book(
    session: AsyncSession, patient: Patient, provider_id: UUID, at: dt.datetime, notes: str | None
) -> Appointment:
    """A confirmed appointment."""
    appointment = Appointment(
        patient_id=patient.id,
        provider_id=provider_id,
        appointment_at=at,
        status="confirmed",
        notes=notes,
    )
    session.add(appointment)
    await session.flush()
    return appointment


async def cancel(session: AsyncSession, appointment_id: UUID) -> None:
    """Cancel an appointment that is still ahead.

    Raises:
        NotBookable: it is over, or cancelled already.
    """
    appointment = await session.get_one(Appointment, appointment_id, with_for_update=True)
    if appointment.status not in ("requested", "confirmed"):
        raise NotBookable(f"the appointment is {appointment.status}")
    appointment.status = "cancelled"


async def upcoming(session: AsyncSession, provider_id: UUID, limit: int) -> Sequence[Appointment]:
    """The provider's next confirmed appointments with their patients, by the partial index."""
    confirmed = Appointment.status == literal_column("'confirmed'")
    query = (
        select(Appointment)
        .options(joinedload(Appointment.patient))
        .where(Appointment.provider_id == provider_id, confirmed)
        .where(Appointment.deleted_at.is_(None), Appointment.appointment_at > func.now())
        .order_by(Appointment.appointment_at)
        .limit(limit)
    )
    return (await session.scalars(query)).all()
