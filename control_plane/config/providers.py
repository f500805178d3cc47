"""Settings of those who may be asked for new servers."""

import re
from pathlib import Path

import msgspec

from control_plane.config.environment import (
    SettingsError,
    optional_path,
    optional_text,
    secret,
    text,
)

_DEPLOYMENT = r"[a-z][a-z0-9-]{0,38}[a-z0-9]"


class RdsSettings(msgspec.Struct, frozen=True):
    """Where DB instances are made, and who signs their certificates (PEM)."""

    region: str
    endpoint: str | None = None
    subnet_group: str | None = None
    security_groups: tuple[str, ...] = ()
    ca_pem: str | None = None


class KubernetesSettings(msgspec.Struct, frozen=True):
    """Where Clusters are made; the token is read for each request, for Kubernetes renews it."""

    namespace: str
    url: str
    token_file: Path
    ca_path: Path


class ProviderSettings(msgspec.Struct, frozen=True):
    """Who may be asked for new servers; a provider without settings is not there.

    ``deployment`` tells what this deployment made from what others in the same account made;
    ``local_supervisor`` is the control socket of the local stack.
    """

    deployment: str = "tenantry"
    local_supervisor: Path | None = None
    rds: RdsSettings | None = None
    kubernetes: KubernetesSettings | None = None


def read_providers() -> ProviderSettings:
    deployment = text("TENANTRY_DEPLOYMENT", "tenantry")
    if not re.fullmatch(_DEPLOYMENT, deployment) or "--" in deployment:
        rule = "use 2 to 40 lower-case letters, digits and single hyphens"
        raise SettingsError(f"TENANTRY_DEPLOYMENT={deployment!r}: {rule}")
    return ProviderSettings(
        deployment=deployment,
        local_supervisor=optional_path("TENANTRY_LOCAL_SUPERVISOR"),
        rds=_rds(),
        kubernetes=_kubernetes(),
    )


def _kubernetes() -> KubernetesSettings | None:
    namespace = optional_text("TENANTRY_CNPG_NAMESPACE")
    if not namespace:
        return None
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", namespace):
        raise SettingsError(f"TENANTRY_CNPG_NAMESPACE={namespace!r} is no name of a namespace")
    mounted = "/var/run/secrets/kubernetes.io/serviceaccount"
    return KubernetesSettings(
        namespace=namespace,
        url=text("TENANTRY_KUBERNETES_URL", "https://kubernetes.default.svc").rstrip("/"),
        token_file=Path(text("TENANTRY_KUBERNETES_TOKEN_FILE", f"{mounted}/token")),
        ca_path=Path(text("TENANTRY_KUBERNETES_CA_PATH", f"{mounted}/ca.crt")),
    )


def _rds() -> RdsSettings | None:
    region = optional_text("TENANTRY_RDS_REGION")
    if not region:
        return None
    groups = text("TENANTRY_RDS_SECURITY_GROUPS", "").replace(",", " ")
    authorities = secret("TENANTRY_RDS_CA_PATH")
    return RdsSettings(
        region=region,
        endpoint=optional_text("TENANTRY_RDS_ENDPOINT"),
        subnet_group=optional_text("TENANTRY_RDS_SUBNET_GROUP"),
        security_groups=tuple(groups.split()),
        ca_pem=authorities.reveal() if authorities else None,
    )
