"""The cookie of a session: unreadable for scripts, never sent for another site."""

from litestar.datastructures import Cookie

from control_plane.console.visits import AnyConnection, Desk, desk_of

_PLAIN = "tenantry-session"
_SECURE = "__Host-tenantry-session"


def session_token(connection: AnyConnection) -> str | None:
    """What the browser shows as its session, if it shows something."""
    return connection.cookies.get(_name(desk_of(connection))) or None


def session_cookie(desk: Desk, token: str) -> Cookie:
    """The cookie that a signing-in sets; it goes when the browser goes."""
    return Cookie(
        key=_name(desk), value=token, path="/", httponly=True, secure=desk.secure, samesite="strict"
    )


def no_cookie(desk: Desk) -> Cookie:
    """The cookie that a signing-out sets."""
    gone = session_cookie(desk, "")
    gone.max_age = 0
    return gone


def _name(desk: Desk) -> str:
    return _SECURE if desk.secure else _PLAIN
