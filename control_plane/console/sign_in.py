"""Signing in and out."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromQuery
from litestar.response import Redirect
from msgspec import Meta

from control_plane.catalog.audit import Caller
from control_plane.config import Secret
from control_plane.console.access import OPEN, SIGNED_IN, own_path
from control_plane.console.cookies import no_cookie, session_cookie
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.problems import Throttled
from control_plane.console.rendering import page
from control_plane.console.visits import (
    AnyRequest,
    Visiting,
    address_of,
    desk_of,
    request_id,
    visit_of,
)
from control_plane.domain.errors import Invalid, Unauthenticated
from control_plane.services import sign_in
from control_plane.services.people import set_password
from control_plane.services.sign_in import OpenedSession, nobody


class SignInForm(msgspec.Struct, frozen=True):
    """An address and a password."""

    email: Annotated[str, Meta(max_length=254)]
    password: Annotated[str, Meta(max_length=1000)]
    next: str = ""


class LinkForm(msgspec.Struct, frozen=True):
    """The token of a sign-in link."""

    token: Annotated[str, Meta(max_length=200)]


class PasswordForm(msgspec.Struct, frozen=True):
    """A new password."""

    password: str


class SignInPages(Controller):
    """Ways in, the way out, and one's own account."""

    path = "/"

    @get("/sign-in", opt=OPEN)
    async def show(self, request: AnyRequest, next: FromQuery[str] = "") -> Response[Any]:  # noqa: A002 - the word in the address
        """The form, unless somebody is signed in."""
        if visit_of(request) is not None:
            return Redirect(own_path(next), status_code=303)
        return _form(request, next, None)

    @post("/sign-in", opt=OPEN)
    async def sign_in(self, request: AnyRequest) -> Response[Any]:
        """Open a session, or say that address or password is wrong."""
        fields = await fields_of(request)
        try:
            form = read_form(fields, SignInForm)
            throttle(request, form.email.lower())
            opened = await sign_in.sign_in_with_password(
                desk_of(request).ports, origin_of(request), form.email, Secret(form.password)
            )
        except (Invalid, Unauthenticated) as error:
            return _form(request, fields.get("next", ""), trouble_of(error), fields.get("email"))
        return _enter(request, opened, form.next)

    @get("/sign-in/link", opt=OPEN)
    async def show_link(self, request: AnyRequest, token: FromQuery[str] = "") -> Response[str]:
        """A button, so that a program that looks at links does not use this one up."""
        return page(request, "sign_in_link.html", token=token)

    @post("/sign-in/link", opt=OPEN)
    async def use_link(self, request: AnyRequest) -> Response[Any]:
        """Open a session with a link that works once."""
        form = read_form(await fields_of(request), LinkForm)
        throttle(request, form.token)
        try:
            opened = await sign_in.sign_in_with_link(
                desk_of(request).ports, origin_of(request), form.token
            )
        except Unauthenticated as error:
            return _form(request, "", trouble_of(error))
        return _enter(request, opened, "")

    @post("/sign-out", opt=SIGNED_IN)
    async def sign_out(self, visit: Visiting) -> Response[Any]:
        """End the session."""
        async with visit.ports.catalog.transaction() as db:
            await sign_in.sign_out(db, visit.caller, visit.token)
        answer: Response[Any] = Redirect("/console/sign-in", status_code=303)
        answer.set_cookie(no_cookie(visit.desk))
        return answer

    @get("/account", opt=SIGNED_IN)
    async def show_account(self, request: AnyRequest) -> Response[str]:
        """Who one is here, and a new password."""
        return page(request, "account.html", trouble=None, done=False)

    @post("/account", opt=SIGNED_IN)
    async def change_password(self, request: AnyRequest, visit: Visiting) -> Response[Any]:
        """Take a new password; every session ends, and this one begins anew."""
        try:
            form = read_form(await fields_of(request), PasswordForm)
            async with visit.ports.catalog.transaction() as db:
                person = visit.session.person
                await set_password(db, visit.caller, person, Secret(form.password))
                opened = await sign_in.open_session(db, visit.caller, person, "new password")
        except Invalid as error:
            trouble = trouble_of(error)
            return page(request, "account.html", trouble.status, trouble=trouble, done=False)
        return _enter(request, opened, "/console/account")


def _form(
    request: AnyRequest, wanted: str, trouble: Trouble | None, email: str | None = None
) -> Response[Any]:
    return page(
        request,
        "sign_in.html",
        trouble.status if trouble else 200,
        next=own_path(wanted),
        email=email or "",
        trouble=trouble,
        oidc=desk_of(request).ports.settings.console.oidc is not None,
    )


def _enter(request: AnyRequest, opened: OpenedSession, wanted: str) -> Response[Any]:
    answer: Response[Any] = Redirect(own_path(wanted), status_code=303)
    answer.set_cookie(session_cookie(desk_of(request), opened.plain_token))
    return answer


def origin_of(request: AnyRequest) -> Caller:
    return nobody(address_of(request), request_id(request))


def throttle(request: AnyRequest, account: str) -> None:
    """Count an attempt on its account and on its address.

    Raises:
        Throttled: there were too many.
    """
    limits = desk_of(request).limits
    waits = (limits.accounts.take(account), limits.addresses.take(address_of(request)))
    wait = max((one for one in waits if one is not None), default=None)
    if wait is not None:
        raise Throttled(wait)
