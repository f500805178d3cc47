"""The key this installation signs with: certificates of destruction, manifests of exports."""

import base64

from control_plane.adapters import clock
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.signatures import Signer
from control_plane.catalog import certificates
from control_plane.catalog.certificates import SigningKey
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import KeyUnavailable

PURPOSE = "signing"
_VERSION = 1


async def signer(db: Connection, keyring: Keyring) -> Signer:
    """The newest signing key; the first use makes it.

    Raises:
        KeyUnavailable: the keyring does not open it.
    """
    held = await certificates.newest_signing_key(db)
    if held is None:
        await certificates.add_signing_key(db, _sealed(keyring, Signer.generate()))
        held = await certificates.newest_signing_key(db)
    if held is None:
        raise KeyUnavailable("the signing key that was just made is not there")
    seed = keyring.open(held.sealed, owner=held.id, purpose=PURPOSE, version=_VERSION)
    return Signer(base64.b64decode(seed))


def _sealed(keyring: Keyring, made: Signer) -> SigningKey:
    key_id = clock.new_id()
    seed = base64.b64encode(made.seed).decode()
    sealed = keyring.seal(seed, owner=key_id, purpose=PURPOSE, version=_VERSION)
    return SigningKey(key_id, made.public_key, sealed)
