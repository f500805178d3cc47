"""Encrypted attributes of mapped classes, and finding rows by them.

A column type does not know the primary key, which the sealed value is bound to. So a class has
plain columns for ciphertext and blind index, an ``Encrypted`` attribute in front of them, and the
value is sealed when the session flushes: then tenant, table, column and row are all known.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, NoReturn, TypeVar, overload
from uuid import UUID, uuid4

from sqlalchemy import BindParameter, ColumnElement, LargeBinary, Select, bindparam, event, select
from sqlalchemy import inspect as inspect_class
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import (
    InstanceState,
    Mapped,
    Mapper,
    ORMExecuteState,
    QueryContext,
    Session,
    mapped_column,
    object_session,
)
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql.visitors import ExternallyTraversible, cloned_traverse, iterate
from sqlalchemy.types import TypeDecorator

from tenant_template.client import normalise
from tenant_template.client.errors import Misuse
from tenant_template.client.vault import BLIND_INDEX_BYTES, Vault, looks_sealed

VAULT = "tenantry.vault"
T = TypeVar("T")
V = TypeVar("V")
P = TypeVar("P", bound="Protected")


class Unsealed:
    """What stands in the columns between assignment and flush; it never shows what it holds."""

    __slots__ = ("normal", "plain")

    def __init__(self, plain: bytes, normal: str | None) -> None:
        self.plain = plain
        self.normal = normal

    def __repr__(self) -> str:
        return "<unsealed>"


class Wanted:
    """A value to look for; a ``TenantSession`` turns it into blind indexes, nothing else does."""

    def __init__(self, column: str, normal: str) -> None:
        self.column = column
        self.normal = normal

    def __iter__(self) -> Iterator[NoReturn]:
        raise Misuse(f"look for {self.column} with a session that the kit opened")

    def __repr__(self) -> str:
        return f"<wanted {self.column}>"


class _Sealed(TypeDecorator[bytes]):
    """``bytea`` that takes nothing but what a vault made."""

    impl = LargeBinary
    cache_ok = True
    accepts = staticmethod(looks_sealed)

    def process_bind_param(self, value: object, dialect: Dialect) -> bytes | None:
        del dialect
        if value is None:
            return None
        if isinstance(value, bytes) and self.accepts(value):
            return value
        raise Misuse("this column takes what a session of the kit seals when it flushes")


class _BlindIndex(_Sealed):
    cache_ok = True
    accepts = staticmethod(lambda value: len(value) == BLIND_INDEX_BYTES)


Ciphertext = Annotated[bytes, mapped_column(_Sealed())]
BlindIndex = Annotated[bytes, mapped_column(_BlindIndex())]


class Protected:
    """Mixin of a mapped class with encrypted attributes: its key is a ``uuid`` made here."""

    id: Mapped[UUID] = mapped_column(primary_key=True)


class _Place(NamedTuple):
    table: str
    column: str


class Encrypted(Generic[T]):
    """An attribute of type ``str``, ``date`` or anything JSON, encrypted in its column.

    ``stored`` and ``index`` name the mapped attributes of ciphertext and blind index. An index is
    for equality, and shows which rows have the same value: give none to a field with few values,
    such as a sex or a diagnosis. Changes inside a JSON value are not noticed: assign a new one.
    """

    @overload
    def __init__(
        self: "Encrypted[V]",
        kind: type[V],
        stored: str,
        *,
        index: str | None = None,
        normal: Callable[[str], str] = normalise.text,
    ) -> None: ...

    @overload
    def __init__(
        self: "Encrypted[V | None]",
        kind: type[V],
        stored: str,
        *,
        optional: Literal[True],
        index: str | None = None,
        normal: Callable[[str], str] = normalise.text,
    ) -> None: ...

    def __init__(
        self,
        kind: type[Any],
        stored: str,
        *,
        optional: bool = False,
        index: str | None = None,
        normal: Callable[[str], str] = normalise.text,
    ) -> None:
        self.kind = kind
        self.stored = stored
        self.optional = optional
        self.index = index
        self.normal = normal
        self.name = stored

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[P]) -> "Searchable[P]": ...

    @overload
    def __get__(self, instance: "Protected", owner: type) -> T: ...

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None:
            return Searchable(owner, self)
        value = getattr(instance, self.stored)
        if isinstance(value, Unsealed):
            return self._decode(value.plain)
        if value is None:
            return None
        table, column = _place(type(instance), self.stored)
        vault = _vault_of(instance)
        return self._decode(vault.open(value, table=table, column=column, row=instance.id))

    def __set__(self, instance: "Protected", value: T) -> None:
        if value is None and not self.optional:
            raise TypeError(f"{self.name} takes no None; declare it with optional=True")
        held = None if value is None else Unsealed(self._encode(value), self._normal_of(value))
        setattr(instance, self.stored, held)
        if self.index is not None:
            setattr(instance, self.index, held)

    def seal(self, instance: "Protected", vault: Vault) -> None:
        """Put sealed value and blind index where ``__set__`` left an ``Unsealed``.

        Raises:
            CannotDecrypt: the column was given a value that was sealed for another place.
        """
        table, column = _place(type(instance), self.stored)
        held = vars(instance).get(self.stored)
        if isinstance(held, Unsealed):
            sealed = vault.seal(held.plain, table=table, column=column, row=instance.id)
            setattr(instance, self.stored, sealed)
            if self.index is not None and held.normal is not None:
                indexed = ".".join(_place(type(instance), self.index))
                setattr(instance, self.index, vault.blind_index(indexed, held.normal))
        elif held is not None and instance_state(instance).attrs[self.stored].history.added:
            vault.open(held, table=table, column=column, row=instance.id)

    def _normal_of(self, value: T) -> str | None:
        return self.normal(str(value)) if self.index is not None else None

    def _encode(self, value: object) -> bytes:
        if not isinstance(value, self.kind) or isinstance(value, dt.datetime):
            raise TypeError(f"{self.name} takes {self.kind.__name__}, not {type(value).__name__}")
        if self.kind in (str, dt.date):
            return str(value).encode()
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()

    def _decode(self, plain: bytes) -> object:
        if self.kind is str:
            return plain.decode()
        return dt.date.fromisoformat(plain.decode()) if self.kind is dt.date else json.loads(plain)


class Searchable(Generic[P]):
    """``Patient.email``: an encrypted attribute of the class, for conditions."""

    def __init__(self, owner: type[P], attribute: Encrypted[Any]) -> None:
        self.owner = owner
        self.attribute = attribute

    def matches(self, value: str) -> ColumnElement[bool]:
        """The condition that the attribute is this value, in any spelling, under any key.

        Raises:
            Misuse: the attribute has no blind index.
            NotNormal: the value cannot be one of this attribute's.
        """
        index = self.attribute.index
        if index is None:
            raise Misuse(f"{self.owner.__name__}.{self.attribute.name} has no blind index")
        wanted = Wanted(".".join(_place(self.owner, index)), self.attribute.normal(value))
        column: ColumnElement[bytes] = getattr(self.owner, index)
        parameter = bindparam(None, wanted, type_=_BlindIndex(), expanding=True, unique=True)
        return column.in_(parameter)


def find(attribute: Searchable[P], value: str) -> Select[P]:
    """The rows whose encrypted attribute is ``value``; give it to a session of the kit.

    Raises:
        Misuse, NotNormal: see ``Searchable.matches``.
    """
    return select(attribute.owner).where(attribute.matches(value))


def reseal(instance: Protected) -> None:
    """Have every encrypted attribute written again, under the active key."""
    for attribute in _attributes(type(instance)):
        attribute.__set__(instance, attribute.__get__(instance, type(instance)))


class TenantSession(Session):
    """A session whose ``info`` has the tenant's vault; ``connect`` makes them."""


def _place(owner: type[Protected], attribute: str) -> _Place:
    """Table and column of a mapped attribute, by their names in the database."""
    mapper: Mapper[Any] = inspect_class(owner)
    column = mapper.column_attrs[attribute].columns[0]
    return _Place(str(column.table), column.name)


def _attributes(owner: type[Protected]) -> tuple[Encrypted[Any], ...]:
    found = {name: value for base in reversed(owner.__mro__) for name, value in vars(base).items()}
    return tuple(value for value in found.values() if isinstance(value, Encrypted))


def _vault_in(session: Session | None) -> Vault:
    vault = session.info.get(VAULT) if session is not None else None
    if not isinstance(vault, Vault):
        raise Misuse("encrypted attributes need a session that the kit opened")
    return vault


def _vault_of(instance: Protected) -> Vault:
    """The vault the row was read or written with, so that it can be read when detached."""
    vault = instance_state(instance).info.get(VAULT)
    return vault if isinstance(vault, Vault) else _vault_in(object_session(instance))


@event.listens_for(Protected, "init", propagate=True)
def _name_row(target: Protected, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
    del target, args
    kwargs.setdefault("id", uuid4())


@event.listens_for(Protected, "load", propagate=True)
def _remember_vault(target: Protected, context: QueryContext) -> None:
    if (vault := context.session.info.get(VAULT)) is not None:
        instance_state(target).info[VAULT] = vault


@event.listens_for(Protected, "before_insert", propagate=True)
@event.listens_for(Protected, "before_update", propagate=True)
def _seal_row(mapper: Mapper[Any], connection: Connection, target: Protected) -> None:
    del mapper, connection
    state: InstanceState[Any] = instance_state(target)
    if state.key is not None and state.attrs["id"].history.has_changes():
        raise Misuse("the key of a row with encrypted attributes cannot change")
    vault = _vault_in(object_session(target))
    for attribute in _attributes(type(target)):
        attribute.seal(target, vault)
    state.info[VAULT] = vault


@event.listens_for(TenantSession, "do_orm_execute")
def _find_wanted(executing: ORMExecuteState) -> None:
    """Replace every ``Wanted`` of the statement by the blind indexes of this session's tenant."""

    def compute(parameter: BindParameter[Any]) -> None:
        wanted = parameter.value
        if isinstance(wanted, Wanted):
            vault = _vault_in(executing.session)
            parameter.value = vault.blind_indexes(wanted.column, wanted.normal)

    statement = executing.statement
    if isinstance(statement, ExternallyTraversible) and any(map(_is_wanted, iterate(statement))):
        executing.statement = cloned_traverse(statement, {}, {"bindparam": compute})


def _is_wanted(element: object) -> bool:
    return isinstance(element, BindParameter) and isinstance(element.value, Wanted)
