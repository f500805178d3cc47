"""The objects that a CloudNativePG server consists of, as they are applied."""

import base64
from collections.abc import Mapping
from typing import Any

from control_plane.adapters.providers.provider import Wanted
from control_plane.config import KubernetesSettings
from control_plane.domain.names import encode
from control_plane.domain.providers import instance_name

GROUP = "postgresql.cnpg.io"
API_VERSION = f"{GROUP}/v1"
ADMIN = "postgres"
SERVER_LABEL = "tenantry.io/server"
DEPLOYMENT_LABEL = "tenantry.io/deployment"
DEFAULT_VERSION = 18
_INSTANCES = 2
_IMAGE = "ghcr.io/cloudnative-pg/postgresql"
# What enrolment asks of a server and the operator leaves to us; it sets wal_level itself.
PARAMETERS: Mapping[str, str] = {
    "password_encryption": "scram-sha-256",
    "max_connections": "400",
    "max_replication_slots": "32",
    "max_wal_senders": "20",
    "max_logical_replication_workers": "10",
    "max_slot_wal_keep_size": "4GB",
    "autovacuum_naptime": "10min",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "pg_stat_statements.max": "50000",
}


def labels(wanted: Wanted, deployment: str) -> dict[str, str]:
    """By which we know our own."""
    return {
        "app.kubernetes.io/managed-by": "tenantry",
        DEPLOYMENT_LABEL: deployment,
        SERVER_LABEL: encode(wanted.key),
    }


def secret(wanted: Wanted, deployment: str) -> dict[str, Any]:
    """The superuser's login, which the operator gives to the server."""
    login = {"username": ADMIN, "password": wanted.password.reveal()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{instance_name(wanted.key)}-admin",
            "labels": labels(wanted, deployment),
        },
        "type": "kubernetes.io/basic-auth",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in login.items()},
    }


def cluster(wanted: Wanted, deployment: str, settings: KubernetesSettings) -> dict[str, Any]:
    """A primary with a standby, which takes over by itself."""
    name = instance_name(wanted.key)
    storage = {"size": f"{wanted.wish.storage_gb or settings.storage_gb}Gi"}
    if settings.storage_class is not None:
        storage["storageClass"] = settings.storage_class
    return {
        "apiVersion": API_VERSION,
        "kind": "Cluster",
        "metadata": {
            "name": name,
            "labels": labels(wanted, deployment),
            "annotations": {"tenantry.io/name": wanted.name},
        },
        "spec": {
            "instances": _INSTANCES,
            "imageName": f"{_IMAGE}:{wanted.wish.version or DEFAULT_VERSION}",
            "enableSuperuserAccess": True,
            "superuserSecret": {"name": f"{name}-admin"},
            "storage": storage,
            "bootstrap": {
                "initdb": {
                    "encoding": "UTF8",
                    "localeCollate": "C.UTF-8",
                    "localeCType": "C.UTF-8",
                    "dataChecksums": True,
                }
            },
            "postgresql": {"parameters": dict(PARAMETERS)},
        },
    }
