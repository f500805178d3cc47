"""What wraps tenant keys: the local root keys, or a key service that never shows its own key."""

import base64
from typing import Protocol
from uuid import UUID

import msgspec

from control_plane.adapters.keyring import Keyring, epoch_of
from control_plane.domain.errors import KeyUnavailable

_APP = "tenantry"
_PURPOSE = "tenant_key"
_LOCAL = "local:"


class KeyContext(msgspec.Struct, frozen=True):
    """Whose key it is, and which version; a wrapped key opens in its own context only."""

    tenant_id: UUID
    version: int

    def words(self) -> dict[str, str]:
        """The context as a key service logs it: ids and no names."""
        return {
            "app": _APP,
            "purpose": _PURPOSE,
            "tenant_id": str(self.tenant_id),
            "kver": str(self.version),
        }


class Wrapped(msgspec.Struct, frozen=True):
    """A wrapped key, and a reference to what wrapped it: ``local:<epoch>`` or a key's ARN."""

    reference: str
    blob: bytes


class Kms(Protocol):
    """The root of all tenant keys. Calls may block: run them in a thread.

    Every call raises ``KeyServiceUnavailable`` when trying again can help, and any other
    ``KeyUnavailable`` when it cannot.
    """

    def reference(self) -> str:
        """What wraps from now on."""
        ...

    def opens(self, reference: str) -> bool:
        """Whether keys with this reference are this root's to open."""
        ...

    def wrap(self, key: bytes, context: KeyContext) -> Wrapped: ...

    def unwrap(self, wrapped: Wrapped, context: KeyContext) -> bytes:
        """The key.

        Raises:
            KeyUnavailable: another context, another root, or damaged.
        """
        ...

    def rewrap(self, wrapped: Wrapped, context: KeyContext) -> Wrapped:
        """The same key under what wraps from now on."""
        ...


class LocalKms:
    """Wraps under the epochs of the local key file."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def reference(self) -> str:
        return local_reference(self._keyring.active)

    def opens(self, reference: str) -> bool:
        return is_local(reference)

    def wrap(self, key: bytes, context: KeyContext) -> Wrapped:
        sealed = self._keyring.seal(
            base64.b64encode(key).decode(),
            owner=context.tenant_id,
            purpose=_PURPOSE,
            version=context.version,
        )
        return Wrapped(local_reference(epoch_of(sealed)), sealed)

    def unwrap(self, wrapped: Wrapped, context: KeyContext) -> bytes:
        if wrapped.reference != local_reference(epoch_of(wrapped.blob)):
            raise KeyUnavailable("a wrapped key does not name the epoch that wrapped it")
        opened = self._keyring.open(
            wrapped.blob, owner=context.tenant_id, purpose=_PURPOSE, version=context.version
        )
        return base64.b64decode(opened)

    def rewrap(self, wrapped: Wrapped, context: KeyContext) -> Wrapped:
        return self.wrap(self.unwrap(wrapped, context), context)


def local_reference(epoch: int) -> str:
    """The reference of what an epoch of the local key file has wrapped."""
    return f"{_LOCAL}{epoch}"


def is_local(reference: str) -> bool:
    """Whether the local key file wrapped it."""
    return reference.startswith(_LOCAL)
