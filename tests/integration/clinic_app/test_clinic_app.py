"""The sample application at work, and what an outsider finds in its database."""

import asyncio
import base64
import datetime as dt
import subprocess
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from tenant_template.client import CannotDecrypt, Tenancy, acting_as, connect_sync, find
from tests.integration.clinic_app.clinic import (
    NotBookable,
    book,
    cancel,
    find_patient_by_email,
    open_practice,
    record_condition,
    register_patient,
    upcoming,
)
from tests.integration.clinic_app.conftest import Clinic, connected
from tests.integration.clinic_app.models import HealthCondition, Patient, Provider

RECEPTION = "reception-1"
SOON = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)


def fresh_email() -> str:
    return f"Ada.{uuid4().hex}@Example.org"


async def new_provider(tenancy: Tenancy) -> Provider:
    async with tenancy.acting_as(RECEPTION) as session:
        name = uuid4().hex
        return await open_practice(session, "Dr. Grace", city=name, specialty=name)


async def test_a_patients_way_through_the_clinic(tenancy: Tenancy) -> None:
    email, provider = fresh_email(), await new_provider(tenancy)
    async with tenancy.acting_as(RECEPTION) as session:
        patient = await register_patient(
            session, "Ada Lovelace", email=email, birth_date=dt.date(1815, 12, 10)
        )
        later = await book(session, patient, provider.id, SOON + dt.timedelta(hours=1), None)
        first = await book(session, patient, provider.id, SOON, "bring the X-ray")
    async with tenancy.acting_as("dr-grace") as session:
        listed = await upcoming(session, provider.id, 10)
        assert [one.id for one in listed] == [first.id, later.id]
        assert [one.notes for one in listed] == ["bring the X-ray", None]
        assert listed[0].patient.name == "Ada Lovelace"
        await cancel(session, first.id)
    async with tenancy.acting_as(RECEPTION) as session:
        assert [one.id for one in await upcoming(session, provider.id, 10)] == [later.id]
        with pytest.raises(NotBookable, match="cancelled"):
            await cancel(session, first.id)
        found = await find_patient_by_email(session, f" {email.upper()} ")
        assert found is not None
        assert (found.id, found.email, found.birth_date) == (
            patient.id,
            email,
            dt.date(1815, 12, 10),
        )
        found.phone = "+49 30 1234567"
    async with tenancy.acting_as(RECEPTION) as session:
        by_phone = await session.scalars(find(Patient.phone, "+49301234567"))
        assert patient.id in {one.id for one in by_phone}
        assert await find_patient_by_email(session, fresh_email()) is None


async def test_an_address_belongs_to_one_living_patient(tenancy: Tenancy) -> None:
    email = fresh_email()
    async with tenancy.acting_as(RECEPTION) as session:
        patient = await register_patient(session, "Ada", email=email)
    with pytest.raises(IntegrityError) as refused:
        async with tenancy.acting_as(RECEPTION) as session:
            await register_patient(session, "Eve", email=email.lower())
    assert "Eve" not in str(refused.value)
    assert email not in str(refused.value)
    async with tenancy.acting_as(RECEPTION) as session:
        statement = text("SELECT public.soft_delete('patients.patient', :id, 'moved away')")
        assert await session.scalar(statement, {"id": patient.id})
    async with tenancy.acting_as(RECEPTION) as session:
        assert await find_patient_by_email(session, email) is None
        await register_patient(session, "Ada again", email=email)


async def test_what_was_moved_in_the_database_does_not_open(
    tenancy: Tenancy, clinic: Clinic
) -> None:
    async with tenancy.acting_as(RECEPTION) as session:
        ada = await register_patient(session, "Ada", email=fresh_email())
        bob = await register_patient(session, "Bob", email=fresh_email())
    admin = await clinic.inside()
    await admin.execute(
        """UPDATE patients.patient SET name_ciphertext =
               (SELECT name_ciphertext FROM patients.patient WHERE id = $1) WHERE id = $2""",
        ada.id,
        bob.id,
    )
    await admin.close()
    async with tenancy.acting_as(RECEPTION) as session:
        stolen = await session.get_one(Patient, bob.id)
        assert stolen.email == bob.email
        with pytest.raises(CannotDecrypt, match=r"patients\.patient\.name_ciphertext"):
            _ = stolen.name


async def test_another_clinics_application_reads_nothing(pair: tuple[Clinic, Clinic]) -> None:
    """A whole row copied between databases, which a restore into the wrong one would do."""
    email = fresh_email()
    async with connected(pair[0]) as own, own.acting_as(RECEPTION) as session:
        patient = await register_patient(session, "Ada", email=email)
    admins = [await one.inside() for one in pair]
    row = await admins[0].fetchrow("SELECT * FROM patients.patient WHERE id = $1", patient.id)
    assert row is not None
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    names = ", ".join(row.keys())
    await admins[1].execute(f"INSERT INTO patients.patient ({names}) VALUES ({places})", *row)  # noqa: S608 - columns
    for admin in admins:
        await admin.close()
    async with connected(pair[1]) as other, other.acting_as(RECEPTION) as session:
        assert await find_patient_by_email(session, email) is None
        with pytest.raises(CannotDecrypt, match="another tenant"):
            _ = (await session.get_one(Patient, patient.id)).name


def spellings(canary: str) -> set[bytes]:
    """The canary as it is, and as an encoder would leave it, at any offset of base64."""
    raw = canary.encode()
    wide = (canary.encode("utf-16-le"), canary.encode("utf-16-be"))
    inner = {base64.b64encode(b"\0" * offset + raw)[4 if offset else 0 : -4] for offset in range(3)}
    return {raw, *wide, raw.hex().encode(), *(w.hex().encode() for w in wide), *inner}


async def test_a_dump_shows_no_plain_text(clinic: Clinic) -> None:
    mark = uuid4().hex
    canaries = {
        "name": f"Canary Name {mark}",
        "email": f"canary.{mark}@example.org",
        "condition": f"canary condition {mark}",
        "notes": f"canary notes {mark}",
    }
    async with connected(clinic) as tenancy:
        provider = await new_provider(tenancy)
        async with tenancy.acting_as(RECEPTION) as session:
            patient = await register_patient(
                session, canaries["name"], email=canaries["email"], phone="+498001234567890"
            )
            await record_condition(session, patient, {"text": canaries["condition"]})
            await book(session, patient, provider.id, SOON, canaries["notes"])
        async with tenancy.acting_as(RECEPTION) as session:
            # A change, so that the audit log has old and new.
            patient = await session.get_one(Patient, patient.id)
            patient.name = canaries["name"] + " II"
            condition = (await session.scalars(select(HealthCondition))).all()[-1]
            assert "text" in condition.condition
    dump = await asyncio.to_thread(dumped, clinic)
    # Controls: the search finds what is there, and the rows are.
    assert b"Dr. Grace" in dump
    assert str(patient.id).encode() in dump
    assert dump.count(str(patient.id).encode()) > 2
    for canary in (*canaries.values(), canaries["name"].casefold(), "+498001234567890", mark):
        for spelling in spellings(canary):
            assert spelling not in dump, canary


def dumped(clinic: Clinic) -> bytes:
    """A plain dump of the whole database, as the superuser of its server."""
    command = [
        "/usr/lib/postgresql/15/bin/pg_dump",
        f"--host={clinic.server['host']}",
        f"--port={clinic.server['port']}",
        f"--username={clinic.server['admin_user']}",
        clinic.database,
    ]
    environment = {"PGPASSWORD": clinic.admin_password}
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


async def test_the_reader_writes_nothing_and_sees_no_patient(tenancy: Tenancy) -> None:
    provider = await new_provider(tenancy)
    async with tenancy.acting_as("analyst", read_only=True) as session:
        names = select(Provider.display_name).where(Provider.id == provider.id)
        assert (await session.scalars(names)).all() == ["Dr. Grace"]
    for forbidden in (select(Patient.name_ciphertext), select(HealthCondition.id)):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with tenancy.acting_as("analyst", read_only=True) as session:
                await session.execute(forbidden)
    with pytest.raises(DBAPIError, match=r"read-only|permission denied"):
        async with tenancy.acting_as("analyst", read_only=True) as session:
            await register_patient(session, "Ada")
    async with tenancy.acting_as(RECEPTION) as session:
        assert await session.scalar(text("SELECT current_user = session_user"))


async def test_nothing_is_written_by_nobody(tenancy: Tenancy) -> None:
    with pytest.raises(DBAPIError, match="acting user"):
        async with tenancy.sessions.begin() as session:
            await register_patient(session, "Ada")


async def test_threads_work_the_same_way(clinic: Clinic, pool: str) -> None:
    def work() -> None:
        email = fresh_email()
        tenancy = connect_sync(clinic.control_plane, pool=pool)  # type: ignore[arg-type]
        try:
            with tenancy.acting_as(RECEPTION) as session:
                session.add(Patient(name="Ada", email=email))
            with tenancy.sessions.begin() as session, acting_as(session, RECEPTION):
                assert session.scalars(find(Patient.email, email)).one().name == "Ada"
            with tenancy.engine.begin() as connection, acting_as(connection, "by-core"):
                named = text("SELECT current_setting('app.user_id')")
                assert connection.scalar(named) == "by-core"
        finally:
            tenancy.close()

    await asyncio.to_thread(work)
