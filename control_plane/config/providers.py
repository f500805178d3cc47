"""Settings of those who may be asked for new servers."""

import re
from collections.abc import Iterable
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
_RDS = (
    "TENANTRY_RDS_ENDPOINT",
    "TENANTRY_RDS_SUBNET_GROUP",
    "TENANTRY_RDS_SECURITY_GROUPS",
    "TENANTRY_RDS_CA_PATH",
)
_CNPG = (
    "TENANTRY_CNPG_STORAGE_CLASS",
    "TENANTRY_CNPG_STORAGE_GB",
    "TENANTRY_KUBERNETES_URL",
    "TENANTRY_KUBERNETES_TOKEN_FILE",
    "TENANTRY_KUBERNETES_CA_PATH",
)


class RdsSettings(msgspec.Struct, frozen=True):
    """Where DB instances are made, and who signs their certificates (PEM)."""

    region: str
    endpoint: str | None = None
    subnet_group: str | None = None
    security_groups: tuple[str, ...] = ()
    ca_pem: str | None = None


class KubernetesSettings(msgspec.Struct, frozen=True):
    """Where Clusters are made; the token is read for each request, for Kubernetes renews it.

    ``storage_class`` and ``storage_gb`` are of their volumes, unless a request names a size.
    """

    namespace: str
    url: str
    token_file: Path
    ca_path: Path
    storage_class: str | None = None
    storage_gb: int = 100


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
        _refuse_half("TENANTRY_CNPG_NAMESPACE", _CNPG)
        return None
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", namespace):
        raise SettingsError(f"TENANTRY_CNPG_NAMESPACE={namespace!r} is no name of a namespace")
    mounted = "/var/run/secrets/kubernetes.io/serviceaccount"
    return KubernetesSettings(
        namespace=namespace,
        url=text("TENANTRY_KUBERNETES_URL", "https://kubernetes.default.svc").rstrip("/"),
        token_file=Path(text("TENANTRY_KUBERNETES_TOKEN_FILE", f"{mounted}/token")),
        ca_path=Path(text("TENANTRY_KUBERNETES_CA_PATH", f"{mounted}/ca.crt")),
        storage_class=optional_text("TENANTRY_CNPG_STORAGE_CLASS"),
        storage_gb=_gigabytes("TENANTRY_CNPG_STORAGE_GB", 100),
    )


def _refuse_half(switch: str, others: Iterable[str]) -> None:
    """Nothing is said of a provider that is not there without its switch.

    Raises:
        SettingsError: something is.
    """
    for name in others:
        if optional_text(name):
            remedy = f"set {switch} too, or take {name} away"
            raise SettingsError(f"{name} is set, and {switch} is not: {remedy}")


def _gigabytes(name: str, default: int) -> int:
    raw = text(name, str(default))
    if not re.fullmatch(r"[1-9][0-9]{0,4}", raw):
        raise SettingsError(f"{name}={raw!r}: give a whole number of GiB, 1 to 99999")
    return int(raw)


def _rds() -> RdsSettings | None:
    region = optional_text("TENANTRY_RDS_REGION")
    if not region:
        _refuse_half("TENANTRY_RDS_REGION", _RDS)
        return None
    groups = text("TENANTRY_RDS_SECURITY_GROUPS", "").replace(",", " ")
    authorities = secret("TENANTRY_RDS_CA_PATH")
    if authorities and "-----BEGIN CERTIFICATE-----" not in authorities.reveal():
        raise SettingsError("TENANTRY_RDS_CA_PATH: the file holds no certificate as PEM")
    return RdsSettings(
        region=region,
        endpoint=optional_text("TENANTRY_RDS_ENDPOINT"),
        subnet_group=optional_text("TENANTRY_RDS_SUBNET_GROUP"),
        security_groups=tuple(groups.split()),
        ca_pem=authorities.reveal() if authorities else None,
    )
