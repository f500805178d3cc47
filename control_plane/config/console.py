"""Settings of the pages for people, and of the identity provider that may sign them in."""

import re

import msgspec

from control_plane.config.environment import (
    Secret,
    SettingsError,
    optional_text,
    required,
    secret,
    text,
)

_PERSON_ROLES = ("sales_ops", "operator", "security_admin", "auditor", "app")


class OidcSettings(msgspec.Struct, frozen=True):
    """An identity provider; ``role_map`` gives roles to values of the claim ``role_claim``."""

    issuer: str
    client_id: str
    client_secret: Secret | None
    role_claim: str
    role_map: dict[str, str]


class ConsoleSettings(msgspec.Struct, frozen=True):
    """The pages for people. ``public_url`` is what browsers see; an https one makes cookies so."""

    public_url: str | None = None
    oidc: OidcSettings | None = None


def read_console() -> ConsoleSettings:
    public = optional_text("TENANTRY_PUBLIC_URL")
    if public is not None and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", public):
        raise SettingsError(
            f"TENANTRY_PUBLIC_URL={public!r} is not of the form https://console.example.com"
        )
    return ConsoleSettings(public_url=public, oidc=_oidc(public))


def _oidc(public_url: str | None) -> OidcSettings | None:
    issuer = optional_text("TENANTRY_OIDC_ISSUER")
    if issuer is None:
        return None
    if public_url is None:
        raise SettingsError("TENANTRY_OIDC_ISSUER needs TENANTRY_PUBLIC_URL, where people return")
    role_map = {}
    for part in filter(None, required("TENANTRY_OIDC_ROLE_MAP").split(",")):
        value, equals, role = part.strip().rpartition("=")
        if not (equals and value and role in _PERSON_ROLES):
            raise SettingsError(
                f"TENANTRY_OIDC_ROLE_MAP: {part.strip()!r} is not VALUE=ROLE with a role among "
                f"{', '.join(_PERSON_ROLES)}"
            )
        role_map[value] = role
    return OidcSettings(
        issuer=issuer.rstrip("/"),
        client_id=required("TENANTRY_OIDC_CLIENT_ID"),
        client_secret=secret("TENANTRY_OIDC_CLIENT_SECRET_FILE"),
        role_claim=text("TENANTRY_OIDC_ROLE_CLAIM", "groups"),
        role_map=role_map,
    )
