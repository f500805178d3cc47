"""CloudNativePG: one Cluster for each server, made by server-side apply.

Cluster and secret are named after the server's id and labelled with it. The operator only ever gets
servers from us: tenants' databases and roles are made over SQL, as on any other server.
"""

import base64
from typing import Any
from uuid import UUID

from control_plane.adapters.providers.cnpg_objects import (
    ADMIN,
    API_VERSION,
    DEPLOYMENT_LABEL,
    GROUP,
    SERVER_LABEL,
    cluster,
    secret,
)
from control_plane.adapters.providers.kubernetes import Kubernetes
from control_plane.adapters.providers.provider import (
    Instance,
    InstanceState,
    Place,
    Standing,
    Wanted,
)
from control_plane.config import KubernetesSettings
from control_plane.domain.errors import ProviderRefused
from control_plane.domain.names import decode, encode
from control_plane.domain.providers import ProviderKind, ServerWish, instance_name

_PORT = 5432
# All that is asked of Kubernetes here: what the service account has to be given.
RIGHTS = (
    *((verb, GROUP, "clusters") for verb in ("get", "list", "patch", "create", "delete")),
    *((verb, "", "secrets") for verb in ("get", "patch", "create", "delete")),
)
_LOOKING = ("list", GROUP, "clusters")


class CnpgProvider:
    """Clusters of one namespace."""

    kind: ProviderKind = "cnpg"

    def __init__(self, settings: KubernetesSettings, deployment: str) -> None:
        self._kubernetes = Kubernetes(settings)
        self._settings = settings
        self._namespace = settings.namespace
        self._deployment = deployment
        self._clusters = f"/apis/{API_VERSION}/namespaces/{settings.namespace}/clusters"
        self._secrets = f"/api/v1/namespaces/{settings.namespace}/secrets"

    def problems(self, wish: ServerWish) -> list[dict[str, str]]:
        if wish.instance_class is None:
            return []
        message = "leave it out: Kubernetes has no classes of machines for databases"
        return [{"field": "instance_class", "message": message}]

    async def create(self, wanted: Wanted) -> None:
        name = instance_name(wanted.key)
        found = await self._find(wanted.key)
        if found is not None and "deletionTimestamp" in found["metadata"]:
            raise ProviderRefused(f"Cluster {name} is being deleted; create another server")
        # First the login: the operator makes up one of its own for a Cluster without it.
        await self._kubernetes.apply(
            f"{self._secrets}/{name}-admin", secret(wanted, self._deployment)
        )
        await self._kubernetes.apply(
            f"{self._clusters}/{name}", cluster(wanted, self._deployment, self._settings)
        )

    async def look(self, key: UUID) -> Instance | None:
        found = await self._find(key)
        if found is None:
            return None
        state, detail = _state(found)
        ca_pem = await self._authority(key) if state == "available" else None
        if state == "available" and ca_pem is None:
            state, detail = "creating", "its certificate is being made"
        return Instance(
            key,
            instance_name(key),
            state,
            detail,
            self._place(key, ca_pem) if ca_pem is not None else None,
        )

    async def delete(self, key: UUID) -> None:
        if await self._find(key) is not None:
            await self._kubernetes.delete(f"{self._clusters}/{instance_name(key)}")
        await self._kubernetes.delete(f"{self._secrets}/{instance_name(key)}-admin")

    async def every(self) -> list[Instance]:
        found = await self._kubernetes.get(
            self._clusters, labelSelector=f"{DEPLOYMENT_LABEL}={self._deployment}"
        )
        if found is None:
            raise ProviderRefused(
                f"Kubernetes knows no Clusters in {self._namespace}; install CloudNativePG there"
            )
        return [_listed(one) for one in found["items"]]

    async def examine(self) -> Standing:
        allowed = [right for right in RIGHTS if await self._kubernetes.may(*right)]
        missing = tuple(_words(right) for right in RIGHTS if right not in allowed)
        if _LOOKING not in allowed:
            return Standing(f"answers, in the namespace {self._namespace}", missing)
        seen = f"answers, {len(await self.every())} Clusters of ours in {self._namespace}"
        return Standing(seen, missing, looks_only=allowed == [_LOOKING])

    async def _find(self, key: UUID) -> dict[str, Any] | None:
        """The Cluster of this server.

        Raises:
            ProviderRefused: one of its name is somebody else's.
        """
        name = instance_name(key)
        found = await self._kubernetes.get(f"{self._clusters}/{name}")
        if found is not None and _label(found, SERVER_LABEL) != encode(key):
            raise ProviderRefused(
                f"there is a Cluster {name} that this server's label is not on: it is somebody "
                "else's, and was not touched"
            )
        return found

    async def _authority(self, key: UUID) -> str | None:
        """The certificate of the authority that the operator made for this Cluster."""
        found = await self._kubernetes.get(f"{self._secrets}/{instance_name(key)}-ca")
        pem = (found or {}).get("data", {}).get("ca.crt")
        return base64.b64decode(pem).decode() if pem else None

    def _place(self, key: UUID, ca_pem: str) -> Place:
        host = f"{instance_name(key)}-rw.{self._namespace}.svc"
        return Place(host, _PORT, ADMIN, ca_pem)


def _words(right: tuple[str, str, str]) -> str:
    verb, group, resource = right
    return f"{verb} {resource}.{group}" if group else f"{verb} {resource}"


def _listed(found: dict[str, Any]) -> Instance:
    state, detail = _state(found)
    key = decode(str(_label(found, SERVER_LABEL)))
    return Instance(key, found["metadata"]["name"], state, detail)


def _label(found: dict[str, Any], name: str) -> str | None:
    label: str | None = found["metadata"].get("labels", {}).get(name)
    return label


def _state(found: dict[str, Any]) -> tuple[InstanceState, str]:
    """From the Cluster's conditions, not its phase, which is prose for people."""
    status = found.get("status", {})
    phase = str(status.get("phase") or "the operator has not seen it yet")
    reason = status.get("phaseReason")
    detail = f"{phase}: {reason}" if reason else phase
    if "deletionTimestamp" in found["metadata"]:
        return "deleting", "is being deleted"
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in status.get("conditions", [])
    )
    return ("available" if ready else "creating"), detail
