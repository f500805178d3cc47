"""Signing in at the identity provider of the organisation, when one is configured."""

import hmac
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get
from litestar.datastructures import Cookie
from litestar.params import FromQuery, QueryParameter
from litestar.response import Redirect

from control_plane.adapters.identity_provider import Attempt, IdentityProvider
from control_plane.console.access import OPEN, own_path
from control_plane.console.cookies import session_cookie
from control_plane.console.rendering import page
from control_plane.console.sign_in import origin_of, throttle
from control_plane.console.visits import AnyRequest, Desk, desk_of
from control_plane.domain.errors import NotFound, Unauthenticated
from control_plane.services.sign_in import sign_in_with_identity

_RETURN = "/console/sign-in/return"
_ATTEMPT_SECONDS = 600


class Remembered(msgspec.Struct, frozen=True):
    """What the browser keeps while the person is at the provider."""

    attempt: Attempt
    next: str


class ProviderPages(Controller):
    """To the provider and back."""

    path = "/sign-in"
    opt = OPEN

    @get("/provider")
    async def leave(self, request: AnyRequest, next: FromQuery[str] = "") -> Response[Any]:  # noqa: A002 - the word in the address
        """Send the browser to the provider."""
        desk = desk_of(request)
        attempt = Attempt.new()
        url = await _provider(desk).authorization_url(attempt)
        answer: Response[Any] = Redirect(url, status_code=303)
        answer.set_cookie(_cookie(desk, Remembered(attempt, own_path(next))))
        return answer

    @get("/return")
    async def come_back(
        self,
        request: AnyRequest,
        code: FromQuery[str] = "",
        told_state: Annotated[str, QueryParameter(name="state")] = "",
    ) -> Response[Any]:
        """Open a session for whoever the provider names, in the browser that went there."""
        desk = desk_of(request)
        throttle(request, f"provider {told_state}")
        known = _remembered(request, desk)
        same = known is not None and hmac.compare_digest(
            known.attempt.state.encode(), told_state.encode()
        )
        if known is None or not same or not code:
            raise Unauthenticated("this attempt to sign in is not of this browser; begin again")
        identity = await _provider(desk).identify(known.attempt, code)
        opened = await sign_in_with_identity(desk.ports, origin_of(request), identity)
        # The way from another site goes on in the browser: only then it shows the new cookie.
        answer = page(request, "elsewhere.html", path=own_path(known.next))
        answer.set_cookie(session_cookie(desk, opened.plain_token))
        answer.set_cookie(_cookie(desk, None))
        return answer


def _provider(desk: Desk) -> IdentityProvider:
    console = desk.ports.settings.console
    if console.oidc is None or console.public_url is None:
        raise NotFound("no identity provider is configured")
    return IdentityProvider(console.oidc, f"{console.public_url}{_RETURN}")


def _cookie(desk: Desk, kept: Remembered | None) -> Cookie:
    """Lax, because the provider is another site; it is worth nothing without a code."""
    value = "" if kept is None else msgspec.json.encode(kept).hex()
    return Cookie(
        key=_name(desk),
        value=value,
        path="/",
        httponly=True,
        secure=desk.secure,
        samesite="lax",
        max_age=_ATTEMPT_SECONDS if kept else 0,
    )


def _remembered(request: AnyRequest, desk: Desk) -> Remembered | None:
    try:
        raw = bytes.fromhex(request.cookies.get(_name(desk), ""))
        return msgspec.json.decode(raw, type=Remembered)
    except (ValueError, msgspec.DecodeError):
        return None


def _name(desk: Desk) -> str:
    return "__Host-tenantry-attempt" if desk.secure else "tenantry-attempt"
