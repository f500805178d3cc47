"""The application kit: what an application of one tenant imports, and nothing more.

Stands alone: SQLAlchemy, asyncpg, psycopg, cryptography and httpx are all it needs.
"""

from tenant_template.client import normalise
from tenant_template.client.acting import acting_as
from tenant_template.client.connect import SyncTenancy, Tenancy, connect, connect_sync
from tenant_template.client.control_plane import ControlPlane
from tenant_template.client.encrypted import (
    BlindIndex,
    Ciphertext,
    Encrypted,
    Protected,
    TenantSession,
    find,
    reseal,
)
from tenant_template.client.errors import (
    CannotDecrypt,
    ControlPlaneRefused,
    ControlPlaneUnavailable,
    KitError,
    Misuse,
    NotNormal,
    NoTransaction,
    TenantMismatch,
)
from tenant_template.client.vault import Vault

__all__ = [
    "BlindIndex",
    "CannotDecrypt",
    "Ciphertext",
    "ControlPlane",
    "ControlPlaneRefused",
    "ControlPlaneUnavailable",
    "Encrypted",
    "KitError",
    "Misuse",
    "NoTransaction",
    "NotNormal",
    "Protected",
    "SyncTenancy",
    "Tenancy",
    "TenantMismatch",
    "TenantSession",
    "Vault",
    "acting_as",
    "connect",
    "connect_sync",
    "find",
    "normalise",
    "reseal",
]
