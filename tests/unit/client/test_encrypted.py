"""Encrypted attributes on a real database: what an application writes, what the table holds."""

import datetime as dt
import io
import logging
import pickle
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, sessionmaker
from sqlalchemy.pool import StaticPool

from tenant_template.client import (
    BlindIndex,
    CannotDecrypt,
    Ciphertext,
    Encrypted,
    Misuse,
    NotNormal,
    Protected,
    TenantSession,
    Vault,
    find,
    normalise,
    reseal,
)
from tenant_template.client.encrypted import VAULT

TENANT = uuid4()
ONE, TWO = bytes([1]) * 32, bytes([2]) * 32


class Base(DeclarativeBase):
    pass


class Person(Protected, Base):
    __tablename__ = "person"

    name_ciphertext: Mapped[Ciphertext]
    email_ciphertext: Mapped[Ciphertext | None]
    email_blind_index: Mapped[BlindIndex | None]
    phone_ciphertext: Mapped[Ciphertext | None]
    phone_blind_index: Mapped[BlindIndex | None]
    born_ciphertext: Mapped[Ciphertext | None]
    history_ciphertext: Mapped[Ciphertext | None]

    name = Encrypted(str, "name_ciphertext")
    email = Encrypted(str, "email_ciphertext", optional=True, index="email_blind_index")
    phone = Encrypted(
        str,
        "phone_ciphertext",
        optional=True,
        index="phone_blind_index",
        normal=normalise.phone,
    )
    born = Encrypted(dt.date, "born_ciphertext", optional=True)
    history = Encrypted(dict, "history_ciphertext", optional=True)


Sessions = sessionmaker[TenantSession]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def sessions_of(engine: Engine, vault: Vault) -> Sessions:
    info = {VAULT: vault}
    return sessionmaker(engine, class_=TenantSession, info=info, expire_on_commit=False)


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    return sessions_of(engine, Vault(TENANT, {1: ONE}, 1))


def written(sessions: Sessions, **values: Any) -> Person:
    person = Person(**values)
    with sessions.begin() as session:
        session.add(person)
    return person


def test_an_application_sees_values_and_the_table_does_not(
    sessions: Sessions, engine: Engine
) -> None:
    history = {"allergies": ["Pénicilline"], "since": 1990}
    person = written(
        sessions,
        name="Ada Lovelace",
        email="Ada@X.org",
        phone="+49 30 12345678",
        born=dt.date(1815, 12, 10),
        history=history,
    )
    with sessions() as session:
        found = session.get_one(Person, person.id)
    # The session is closed: the row can still be read.
    assert (found.name, found.email, found.phone) == (
        "Ada Lovelace",
        "Ada@X.org",
        "+49 30 12345678",
    )
    assert (found.born, found.history) == (dt.date(1815, 12, 10), history)
    with engine.connect() as connection:
        raw = b"".join(
            v for v in connection.execute(text("SELECT * FROM person")).one() if type(v) is bytes
        )
    for canary in (b"Ada", b"ada@x.org", b"12345678", b"1815", b"nicilline"):
        assert canary not in raw


def test_values_can_be_read_before_they_are_written() -> None:
    person = Person(name="Ada", email=None)
    assert (person.name, person.email, person.born) == ("Ada", None, None)
    assert isinstance(person.id, UUID)
    assert "Ada" not in repr(vars(person))


def test_a_row_is_found_in_any_spelling(sessions: Sessions) -> None:
    person = written(sessions, name="Ada", email="Ada@X.org", phone="+493012345678")
    written(sessions, name="Bob", email="bob@x.org")
    with sessions() as session:
        for spelling in ("ada@x.org", " ADA@X.ORG "):
            assert session.scalars(find(Person.email, spelling)).one().id == person.id
        assert session.scalars(find(Person.phone, "+49 30 1234 5678")).one().id == person.id
        assert session.scalars(find(Person.email, "eve@x.org")).all() == []
        both = select(Person.id).where(
            Person.email.matches("ada@x.org") | Person.email.matches("bob@x.org")
        )
        assert len(session.scalars(both).all()) == 2


def test_a_change_is_written_and_found(sessions: Sessions) -> None:
    person = written(sessions, name="Ada", email="ada@x.org", born=dt.date(1815, 12, 10))
    with sessions.begin() as session:
        loaded = session.get_one(Person, person.id)
        loaded.email = "countess@x.org"
        loaded.born = None
        assert session.scalars(find(Person.email, "countess@x.org")).one() is loaded
    with sessions() as session:
        assert session.scalars(find(Person.email, "ada@x.org")).all() == []
        assert session.get_one(Person, person.id).born is None


def test_a_value_removed_leaves_no_index(sessions: Sessions) -> None:
    person = written(sessions, name="Ada", email="ada@x.org")
    with sessions.begin() as session:
        session.get_one(Person, person.id).email = None
    with sessions() as session:
        loaded = session.get_one(Person, person.id)
    assert (loaded.email_ciphertext, loaded.email_blind_index) == (None, None)


def moved(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def test_ciphertext_moved_to_another_row_does_not_open(sessions: Sessions, engine: Engine) -> None:
    ada, bob = written(sessions, name="Ada"), written(sessions, name="Bob")
    moved(
        engine,
        """UPDATE person SET name_ciphertext =
               (SELECT name_ciphertext FROM person WHERE id = :ada) WHERE id = :bob""",
        ada=ada.id.hex,
        bob=bob.id.hex,
    )
    with sessions() as session:
        assert session.get_one(Person, ada.id).name == "Ada"
        stolen = session.get_one(Person, bob.id)
        with pytest.raises(CannotDecrypt, match="does not open here"):
            _ = stolen.name


def test_ciphertext_moved_to_another_column_does_not_open(
    sessions: Sessions, engine: Engine
) -> None:
    person = written(sessions, name="Ada", email="ada@x.org")
    moved(engine, "UPDATE person SET phone_ciphertext = email_ciphertext")
    with sessions() as session, pytest.raises(CannotDecrypt, match="phone_ciphertext"):
        _ = session.get_one(Person, person.id).phone


def test_another_tenant_reads_and_finds_nothing(sessions: Sessions, engine: Engine) -> None:
    person = written(sessions, name="Ada", email="ada@x.org")
    strangers = sessions_of(engine, Vault(uuid4(), {1: ONE}, 1))
    with strangers() as session:
        assert session.scalars(find(Person.email, "ada@x.org")).all() == []
        with pytest.raises(CannotDecrypt):
            _ = session.get_one(Person, person.id).name


def test_a_value_sealed_elsewhere_is_not_even_written(sessions: Sessions) -> None:
    ada, bob = written(sessions, name="Ada"), written(sessions, name="Bob")
    with sessions() as session, pytest.raises(CannotDecrypt), session.begin():
        session.get_one(Person, bob.id).name_ciphertext = ada.name_ciphertext


def test_the_key_of_a_row_cannot_change(sessions: Sessions) -> None:
    person = written(sessions, name="Ada")
    with sessions() as session, pytest.raises(Misuse, match="cannot change"), session.begin():
        session.get_one(Person, person.id).id = uuid4()


def test_damage_is_named_and_the_rest_can_be_read(sessions: Sessions, engine: Engine) -> None:
    person = written(sessions, name="Ada", email="ada@x.org")
    moved(engine, "UPDATE person SET email_ciphertext = :junk", junk=b"junk")
    with sessions() as session:
        loaded = session.get_one(Person, person.id)
        assert loaded.name == "Ada"
        with pytest.raises(CannotDecrypt, match=f"person.email_ciphertext of {person.id}"):
            _ = loaded.email


def test_a_rotation_keeps_rows_readable_and_found(sessions: Sessions, engine: Engine) -> None:
    person = written(sessions, name="Ada", email="ada@x.org")
    rotated = sessions_of(engine, Vault(TENANT, {1: ONE, 2: TWO}, 2))
    with rotated.begin() as session:
        loaded = session.scalars(find(Person.email, "ada@x.org")).one()
        assert loaded.name == "Ada"
        reseal(loaded)
    alone = sessions_of(engine, Vault(TENANT, {2: TWO}, 2))
    with alone() as session:
        assert session.scalars(find(Person.email, "ada@x.org")).one().name == "Ada"
    with sessions() as session, pytest.raises(CannotDecrypt, match="under key 2"):
        _ = session.get_one(Person, person.id).name


def test_a_session_without_keys_writes_and_finds_nothing(engine: Engine) -> None:
    for sessions in (sessionmaker(engine), sessionmaker(engine, class_=TenantSession)):
        session = sessions()
        session.add(Person(name="Ada"))
        with session, pytest.raises(Misuse, match="session that the kit opened"):
            session.flush()
        with sessions() as session, pytest.raises(Misuse, match="session that the kit opened"):
            session.scalars(find(Person.email, "ada@x.org"))


@pytest.mark.parametrize(
    "values",
    [
        {"name_ciphertext": b"Ada in plain text, long enough for a sealed value"},
        {"name_ciphertext": b"short"},
    ],
)
def test_plain_bytes_do_not_pass_for_ciphertext(
    sessions: Sessions, values: dict[str, bytes]
) -> None:
    with sessions() as session, pytest.raises(Misuse, match="seals when it flushes"):
        session.execute(insert(Person).values(id=uuid4(), **values))


def test_wrong_types_are_refused_when_they_are_set() -> None:
    person = Person(name="Ada")
    for attribute, wrong in (
        ("name", None),
        ("name", 5),
        ("born", "1815-12-10"),
        ("born", dt.datetime(1815, 12, 10, tzinfo=dt.UTC)),
        ("history", [1]),
    ):
        with pytest.raises(TypeError, match=attribute):
            setattr(person, attribute, wrong)
    with pytest.raises(NotNormal):
        person.phone = "030 1234567"


def test_what_has_no_index_cannot_be_looked_for() -> None:
    with pytest.raises(Misuse, match=r"Person\.name has no blind index"):
        Person.name.matches("Ada")


def test_statements_and_errors_show_no_value(sessions: Sessions) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("sqlalchemy.engine")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        written(sessions, name="canary-name", email="canary@x.org")
        with sessions() as session:
            session.scalars(find(Person.email, "canary@x.org")).one()
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
    shown = log.getvalue()
    assert "INSERT INTO person" in shown
    assert "canary" not in shown
    assert "canary" not in repr(find(Person.email, "canary@x.org").compile().params)


def test_a_row_takes_no_keys_along(sessions: Sessions) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(written(sessions, name="Ada"))
