"""People over HTTP: add, list, disable, and links to sign in to the console with."""

import datetime as dt
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.context import Reading, Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Cursor, Limit, next_cursor, position
from control_plane.api.words import PRINTABLE
from control_plane.catalog import people as catalog_people
from control_plane.catalog.idempotency import SavedAnswer
from control_plane.catalog.pool import Connection
from control_plane.config import Secret
from control_plane.domain.names import show
from control_plane.domain.people import (
    EMAIL_PATTERN,
    PASSWORD_LEAST,
    PASSWORD_MOST,
    Person,
    PersonRole,
)
from control_plane.services import people
from control_plane.services.people import NewPerson
from control_plane.services.requests import Effect

_LINK = "/console/sign-in/link?token="


class NewPersonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person. Without a password, a sign-in link is the first way in."""

    email: Annotated[str, Meta(pattern=EMAIL_PATTERN, max_length=254)]
    name: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=100)]
    roles: Annotated[list[PersonRole], Meta(min_length=1, max_length=5)]
    password: Annotated[str, Meta(min_length=PASSWORD_LEAST, max_length=PASSWORD_MOST)] | None = (
        None
    )


class PersonView(msgspec.Struct, frozen=True):
    """One person who may, or might once, sign in to the console."""

    id: str
    email: str
    name: str
    roles: list[PersonRole]
    has_password: bool
    created_by: str
    created_at: dt.datetime
    disabled_at: dt.datetime | None


class PersonPage(msgspec.Struct, frozen=True):
    items: list[PersonView]
    next_cursor: str | None


class SignInLinkView(msgspec.Struct, frozen=True):
    """A link that signs in once. ``url`` is shown once: a repeated request has ``null``.

    It is without a host unless the deployment knows its public one.
    """

    person: str
    expires_at: dt.datetime
    url: str | None


class PersonController(Controller):
    """``{person}`` is a ``pe_`` id."""

    path = "/people"
    tags = ("access",)

    @post(operation_id="addPerson", status_code=201, responses=refusals(409, 413))
    async def add_person(
        self, data: JSONBody[NewPersonBody], changing: Writing
    ) -> Response[PersonView]:
        """Let somebody sign in to the console."""
        wanted = NewPerson(
            email=data.email,
            name=data.name,
            roles=tuple(data.roles),
            password=Secret(data.password) if data.password is not None else None,
        )

        async def carry_out(db: Connection) -> Effect:
            return effect(201, person_view(await people.add_person(db, changing.caller, wanted)))

        return answer(await changing.perform(carry_out), PersonView)

    @get(operation_id="listPeople", responses=refusals())
    async def list_people(
        self, asking: Reading, cursor: Cursor = None, limit: Limit = LIMIT
    ) -> PersonPage:
        """Everybody, in the order they were added."""
        async with asking.ports.catalog.connection() as db:
            found = await catalog_people.page(db, after=position(cursor), limit=limit)
        return PersonPage(
            [person_view(one) for one in found], next_cursor(found, limit, lambda p: p.id)
        )

    @delete(
        "/{person:str}",
        operation_id="disablePerson",
        status_code=204,
        responses=refusals(404, 409, 413),
    )
    async def disable_person(self, person: FromPath[str], changing: Writing) -> None:
        """End somebody's access: open sessions end at once."""

        async def carry_out(db: Connection) -> Effect:
            await people.disable_person(db, changing.caller, person)
            return Effect(SavedAnswer(204, {}))

        await changing.perform(carry_out)

    @post(
        "/{person:str}/links",
        operation_id="createSignInLink",
        status_code=201,
        responses=refusals(404, 409, 413),
    )
    async def create_link(
        self, person: FromPath[str], changing: Writing
    ) -> Response[SignInLinkView]:
        """Make a link that signs this person in, once, within a day."""
        shown: list[SignInLinkView] = []

        async def carry_out(db: Connection) -> Effect:
            link = await people.create_sign_in_link(db, changing.caller, person)
            public = changing.ports.settings.console.public_url or ""
            url = f"{public}{_LINK}{link.plain_token}"
            shown.append(SignInLinkView(person, link.expires_at, url))
            return effect(201, SignInLinkView(person, link.expires_at, None))

        saved = await changing.perform(carry_out)
        response: Response[Any] = answer(saved, SignInLinkView)
        if shown:
            response = Response(shown[0], status_code=201)
        response.headers["Cache-Control"] = "no-store"
        return response


def person_view(person: Person) -> PersonView:
    """The JSON of a person."""
    return PersonView(
        id=show("pe", person.id),
        email=person.email,
        name=person.name,
        roles=person.roles,
        has_password=person.has_password,
        created_by=person.created_by,
        created_at=person.created_at,
        disabled_at=person.disabled_at,
    )
