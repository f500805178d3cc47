"""Making and opening the secrets of a tenant's logins."""

from uuid import UUID

from control_plane.adapters import scram
from control_plane.adapters.keyring import Keyring
from control_plane.catalog.databases import Credential, CredentialState
from control_plane.config import Secret
from control_plane.domain.names import Slot

_PURPOSE = "login"


def new_credential(
    keyring: Keyring, role_set_id: UUID, slot: Slot, *, version: int, state: CredentialState
) -> Credential:
    """A fresh random secret, sealed, with its verifier; the plain text is not kept."""
    password = scram.new_password()
    return Credential(
        role_set_id=role_set_id,
        slot=slot,
        version=version,
        sealed=keyring.seal(
            password.reveal(), owner=role_set_id, purpose=_purpose(slot), version=version
        ),
        verifier=scram.verifier(password),
        state=state,
    )


def open_credential(keyring: Keyring, credential: Credential) -> Secret:
    """The plain password.

    Raises:
        KeyUnavailable: the keyring does not open it.
    """
    return Secret(
        keyring.open(
            credential.sealed,
            owner=credential.role_set_id,
            purpose=_purpose(credential.slot),
            version=credential.version,
        )
    )


def _purpose(slot: Slot) -> str:
    return f"{_PURPOSE}|{slot}"
