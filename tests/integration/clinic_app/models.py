"""The sample clinic's classes over the tables of the clinic template: only what it uses."""

import datetime as dt
from decimal import Decimal
from uuid import UUID, uuid4

from sqlalchemy import FetchedValue, ForeignKey
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenant_template.client import BlindIndex, Ciphertext, Encrypted, Protected, normalise


class Base(DeclarativeBase):
    type_annotation_map = {dt.datetime: TIMESTAMP(timezone=True)}  # noqa: RUF012 - SQLAlchemy's way


class Kept:
    """The mark of deletion is the database's own: read here, set by ``public.soft_delete``."""

    deleted_at: Mapped[dt.datetime | None] = mapped_column(server_default=FetchedValue())


class Row(Kept):
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)


class City(Row, Base):
    __tablename__ = "city"
    __table_args__ = {"schema": "public"}  # noqa: RUF012 - SQLAlchemy's way

    country_code: Mapped[str]
    region: Mapped[str]
    name: Mapped[str]


class Specialty(Row, Base):
    __tablename__ = "specialty"
    __table_args__ = {"schema": "public"}  # noqa: RUF012 - SQLAlchemy's way

    name: Mapped[str]


class Provider(Row, Base):
    __tablename__ = "provider"
    __table_args__ = {"schema": "providers"}  # noqa: RUF012 - SQLAlchemy's way

    display_name: Mapped[str]
    specialty_id: Mapped[UUID] = mapped_column(ForeignKey(Specialty.id))
    city_id: Mapped[UUID] = mapped_column(ForeignKey(City.id))


class Service(Row, Base):
    __tablename__ = "service"
    __table_args__ = {"schema": "providers"}  # noqa: RUF012 - SQLAlchemy's way

    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id))
    name: Mapped[str]
    duration_minutes: Mapped[int]
    price: Mapped[Decimal]
    currency: Mapped[str]


class Patient(Protected, Kept, Base):
    __tablename__ = "patient"
    __table_args__ = {"schema": "patients"}  # noqa: RUF012 - SQLAlchemy's way

    name_ciphertext: Mapped[Ciphertext]
    name_blind_index: Mapped[BlindIndex | None]
    email_ciphertext: Mapped[Ciphertext | None]
    email_blind_index: Mapped[BlindIndex | None]
    phone_ciphertext: Mapped[Ciphertext | None]
    phone_blind_index: Mapped[BlindIndex | None]
    birth_date_ciphertext: Mapped[Ciphertext | None]

    name = Encrypted(str, "name_ciphertext", index="name_blind_index")
    email = Encrypted(str, "email_ciphertext", optional=True, index="email_blind_index")
    phone = Encrypted(
        str,
        "phone_ciphertext",
        optional=True,
        index="phone_blind_index",
        normal=normalise.phone,
    )
    birth_date = Encrypted(dt.date, "birth_date_ciphertext", optional=True)


class HealthCondition(Protected, Kept, Base):
    __tablename__ = "health_condition"
    __table_args__ = {"schema": "patients"}  # noqa: RUF012 - SQLAlchemy's way

    patient_id: Mapped[UUID] = mapped_column(ForeignKey(Patient.id))
    condition_ciphertext: Mapped[Ciphertext]

    condition = Encrypted(dict, "condition_ciphertext")


class Appointment(Protected, Kept, Base):
    __tablename__ = "appointment"
    __table_args__ = {"schema": "bookings"}  # noqa: RUF012 - SQLAlchemy's way

    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id))
    patient_id: Mapped[UUID] = mapped_column(ForeignKey(Patient.id))
    service_id: Mapped[UUID | None] = mapped_column(ForeignKey(Service.id))
    appointment_at: Mapped[dt.datetime]
    status: Mapped[str]
    notes_ciphertext: Mapped[Ciphertext | None]
    patient: Mapped[Patient] = relationship(lazy="raise")

    notes = Encrypted(str, "notes_ciphertext", optional=True)
