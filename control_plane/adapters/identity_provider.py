"""An OpenID Connect provider: authorization code with PKCE and nonce, and the ID token proven."""

import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from control_plane.config import OidcSettings
from control_plane.domain.errors import IdentityProviderUnavailable, Unauthenticated

_SECONDS = 10.0
_LEEWAY_SECONDS = 60
# Asymmetric only: a shared secret would let whoever holds it sign as the provider.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
_SCOPES = "openid email profile"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Attempt(msgspec.Struct, frozen=True):
    """What one attempt to sign in must find again when the person comes back."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> "Attempt":
        """Random, each of it unguessable."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))


class Identity(msgspec.Struct, frozen=True):
    """Who the provider says it is; ``subject`` is what it calls the person for ever."""

    subject: str
    email: str
    name: str
    values: frozenset[str]


class IdentityProvider:
    """The provider of the settings; ``return_url`` is where it sends people back to."""

    def __init__(self, settings: OidcSettings, return_url: str) -> None:
        self._settings = settings
        self._return_url = return_url

    async def authorization_url(self, attempt: Attempt) -> str:
        """Where the browser goes to sign in.

        Raises:
            IdentityProviderUnavailable: the provider does not answer, or not as itself.
        """
        async with httpx.AsyncClient(timeout=_SECONDS) as http:
            about = await self._discover(http)
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._return_url,
            "scope": _SCOPES,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        endpoint = str(about["authorization_endpoint"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def identify(self, attempt: Attempt, code: str) -> Identity:
        """Who came back with this code.

        Raises:
            Unauthenticated: the provider does not accept the code, or its answer does not hold.
            IdentityProviderUnavailable: the provider does not answer, or not as itself.
        """
        async with httpx.AsyncClient(timeout=_SECONDS) as http:
            about = await self._discover(http)
            answer = await self._redeem(http, str(about["token_endpoint"]), attempt, code)
            keys = await _document(http, str(about["jwks_uri"]))
            claims = self._claims(str(answer.get("id_token", "")), keys, attempt)
            if "email" not in claims and "userinfo_endpoint" in about:
                token = str(answer.get("access_token", ""))
                more = await _document(http, str(about["userinfo_endpoint"]), token)
                if more.get("sub") == claims["sub"]:
                    claims = {**more, **claims}
        return self._identity(claims)

    async def _discover(self, http: httpx.AsyncClient) -> dict[str, Any]:
        issuer = self._settings.issuer
        parts = urlsplit(issuer)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise IdentityProviderUnavailable(f"the issuer {issuer} is not reached by https")
        about = await _document(http, f"{issuer}/.well-known/openid-configuration")
        if str(about.get("issuer", "")).rstrip("/") != issuer:
            raise IdentityProviderUnavailable(f"{issuer} says that it is {about.get('issuer')!r}")
        wanted = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        if missing := [name for name in wanted if name not in about]:
            raise IdentityProviderUnavailable(f"{issuer} does not tell its {', '.join(missing)}")
        return about

    async def _redeem(
        self, http: httpx.AsyncClient, endpoint: str, attempt: Attempt, code: str
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._return_url,
            "code_verifier": attempt.verifier,
        }
        secret = self._settings.client_secret
        auth: httpx.Auth = httpx.Auth()
        if secret is None:
            form["client_id"] = self._settings.client_id
        else:
            auth = httpx.BasicAuth(self._settings.client_id, secret.reveal())
        try:
            answer = await http.post(endpoint, data=form, auth=auth)
        except httpx.HTTPError as error:
            raise IdentityProviderUnavailable("the identity provider does not answer") from error
        if not answer.is_success:
            raise Unauthenticated("the identity provider did not accept this attempt; try again")
        return _json(answer)

    def _claims(self, id_token: str, keys: dict[str, Any], attempt: Attempt) -> dict[str, Any]:
        must = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "values": [self._settings.issuer, self._settings.issuer + "/"]},
            aud={"essential": True, "value": self._settings.client_id},
            exp={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": attempt.nonce},
        )
        try:
            key_set = KeySet.import_key_set({"keys": keys.get("keys", [])})
            token = jwt.decode(id_token, key_set, algorithms=_ALGORITHMS)
            must.validate(token.claims)
        except (JoseError, ValueError) as error:
            raise Unauthenticated("the answer of the identity provider does not hold") from error
        return dict(token.claims)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        email = claims.get("email")
        if not isinstance(email, str) or claims.get("email_verified") is False:
            raise Unauthenticated("the identity provider tells no verified email address")
        told = claims.get(self._settings.role_claim, [])
        values = [told] if isinstance(told, str) else told if isinstance(told, list) else []
        return Identity(
            subject=str(claims["sub"]),
            email=email,
            name=str(claims.get("name") or email),
            values=frozenset(str(value) for value in values),
        )


async def _document(http: httpx.AsyncClient, url: str, token: str | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = await http.get(url, headers=headers)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise IdentityProviderUnavailable("the identity provider does not answer") from error
    return _json(answer)


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError as error:
        raise IdentityProviderUnavailable("the identity provider answers no JSON") from error
    if not isinstance(document, dict):
        raise IdentityProviderUnavailable("the identity provider answers no JSON object")
    return document
