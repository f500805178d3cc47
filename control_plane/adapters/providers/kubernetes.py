"""The few requests to a Kubernetes API server that servers are made with."""

import ssl
from typing import Any

import httpx

from control_plane.config import KubernetesSettings
from control_plane.domain.errors import ProviderRefused, ProviderUnavailable

FIELD_MANAGER = "tenantry"
_APPLY = "application/apply-patch+yaml"  # every JSON document is YAML
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_SECONDS = 20.0
# Asking again helps against these; 409 is an object that somebody else changes just now.
_PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})
_ABSENT = 404
_REMEDIES = {
    401: "the token is not accepted; correct TENANTRY_KUBERNETES_TOKEN_FILE",
    403: "give the service account the permissions in docs/providers.md",
}


class Kubernetes:
    """One API server, asked as one service account."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings

    async def apply(self, path: str, wanted: dict[str, Any]) -> None:
        """Server-side apply: the object is as wanted, or is made so."""
        await self._ask(
            "PATCH",
            path,
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            headers={"Content-Type": _APPLY},
            json=wanted,
        )

    async def get(self, path: str, **params: str) -> dict[str, Any] | None:
        """The object or list; ``None`` when there is none."""
        return await self._ask("GET", path, params=params)

    async def delete(self, path: str) -> None:
        """The object is being deleted, or is gone."""
        await self._ask("DELETE", path)

    async def may(self, verb: str, group: str, resource: str) -> bool:
        """Whether the account may do this in the namespace; every account may ask that."""
        wanted = {
            "namespace": self._settings.namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
        }
        answer = await self._ask(
            "POST",
            _REVIEWS,
            json={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": wanted},
            },
        )
        return bool((answer or {}).get("status", {}).get("allowed"))

    async def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any] | None:  # noqa: ANN401 - httpx's own
        """What the server answers.

        Raises:
            ProviderUnavailable, ProviderRefused: it does not do it; the message says why.
        """
        doing = f"{method} {path}"
        try:
            token = self._settings.token_file.read_text().strip()
            verify = ssl.create_default_context(cafile=str(self._settings.ca_path))
            async with httpx.AsyncClient(verify=verify, timeout=_SECONDS) as client:
                client.headers["Authorization"] = f"Bearer {token}"
                answer = await client.request(method, self._settings.url + path, **request)
        except OSError as error:
            raise ProviderRefused(
                f"the credentials for Kubernetes cannot be read: {error}"
            ) from error
        except httpx.HTTPError as error:
            raise ProviderUnavailable(
                f"Kubernetes does not answer at {self._settings.url}: {type(error).__name__}"
            ) from error
        return _document(doing, answer)


def _document(doing: str, answer: httpx.Response) -> dict[str, Any] | None:
    if answer.status_code == _ABSENT:
        return None
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and isinstance(body, dict):
        return body
    said = body.get("message") if isinstance(body, dict) else None
    words = f"Kubernetes answered {answer.status_code} to {doing}: {said or 'no JSON'}"
    if answer.is_success or answer.status_code in _PASSING:
        raise ProviderUnavailable(words)
    remedy = _REMEDIES.get(answer.status_code)
    raise ProviderRefused(f"{words}; {remedy}" if remedy else words)
