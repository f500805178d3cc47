"""The keystore: every tenant's keys as wrapped objects, in a store apart from the catalog.

An object says of itself whose key it is, which version, and what wrapped it; all of that is
proven when it opens. docs/keys.md has the bytes. All calls block: run them in a thread.
"""

import hmac
import os
import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import msgspec

from control_plane.adapters.key_file import KEY_BYTES
from control_plane.adapters.kms import KeyContext, Kms, Wrapped
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.domain.backups import KEYS_PREFIX
from control_plane.domain.errors import KeyUnavailable, ObjectMissing

MAGIC = b"TNKY"
FORMAT = 1
CACHE_SECONDS = 300.0
_MOST_BYTES = 16 * 1024
_READERS = 16
_NAME = re.compile(rf"{KEYS_PREFIX}([0-9a-f]{{32}})/([1-9][0-9]*)")
# A second copy while the first is being replaced.
_SIDE = ".new"

# magic, format, tenant, version, length of the reference; then the reference and the wrapped key.
_HEAD = struct.Struct(">4sB16sIH")


class KeyName(msgspec.Struct, frozen=True, order=True):
    """Which key an object holds; its place in the store."""

    tenant: str
    version: int

    @property
    def tenant_id(self) -> UUID:
        return UUID(hex=self.tenant)


class Keystore:
    """Tenant keys in an object store, under what ``kms`` wraps; ``also`` opens older ones.

    A key that was opened is remembered in this process for up to five minutes.
    """

    def __init__(
        self,
        store: ObjectStore,
        kms: Kms,
        *,
        also: tuple[Kms, ...] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._kms = kms
        self._roots = (kms, *also)
        self._now = now
        self._opened: dict[tuple[UUID, int], tuple[bytes, float]] = {}

    @property
    def url(self) -> str:
        return self._store.url

    def reference(self) -> str:
        """What wraps keys from now on."""
        return self._kms.reference()

    def create(self, tenant_id: UUID, version: int) -> None:
        """Make a key that nobody has; the version must never have been used.

        Raises:
            KeyUnavailable: there is a key already, or the new one does not come back.
        """
        self.keep(tenant_id, version, os.urandom(KEY_BYTES))

    def keep(self, tenant_id: UUID, version: int, key: bytes) -> None:
        """Have the store hold this key; it was read back and opened when this returns.

        Raises:
            KeyUnavailable: another key is there already, which stays, or it does not come back.
        """
        context = KeyContext(tenant_id, version)
        held = self._read(context)
        if held is None:
            held = self._kms.wrap(key, context)
            self._put(context, held)
        if not hmac.compare_digest(self._unwrap(held, context), key):
            raise KeyUnavailable(f"the keystore has another key as {_words(context)}; it stays")

    def find(self, tenant_id: UUID, version: int) -> bytes | None:
        """The plain key, if the store holds this version.

        Raises:
            KeyUnavailable: it does not open: damaged, of another tenant, or its root is missing.
        """
        known, until = self._opened.get((tenant_id, version), (b"", 0.0))
        if self._now() < until:
            return known
        context = KeyContext(tenant_id, version)
        held = self._read(context)
        if held is None:
            self._opened.pop((tenant_id, version), None)
            return None
        key = self._unwrap(held, context)
        self._opened[tenant_id, version] = (key, self._now() + CACHE_SECONDS)
        return key

    def open(self, tenant_id: UUID, version: int) -> bytes:
        """The plain key.

        Raises:
            KeyUnavailable: the store does not hold this version, or it does not open.
        """
        key = self.find(tenant_id, version)
        if key is None:
            missing = _words(KeyContext(tenant_id, version))
            raise KeyUnavailable(f"{missing} is not in the keystore")
        return key

    def every(self, tenant_id: UUID | None = None) -> Iterator[KeyName]:
        """All keys the store holds, or all versions of one tenant's."""
        for held in self._store.list(_folder(tenant_id) if tenant_id else KEYS_PREFIX):
            if found := _NAME.fullmatch(held.key):
                yield KeyName(found[1], int(found[2]))

    def reference_of(self, name: KeyName) -> str | None:
        """What a key says wrapped it; ``None`` if it is not there any more."""
        held = self._read(KeyContext(name.tenant_id, name.version))
        return held.reference if held else None

    def wrapped_by(self) -> Counter[str]:
        """How many keys each root has wrapped, by their reference."""
        with ThreadPoolExecutor(_READERS) as readers:
            return Counter(filter(None, readers.map(self.reference_of, list(self.every()))))

    def rewrap(self, name: KeyName) -> bool:
        """Wrap a key anew if an older root wrapped it; ``False`` when there is nothing to do.

        Raises:
            KeyUnavailable: it does not open, or did not come back as it was.
        """
        context = KeyContext(name.tenant_id, name.version)
        held = self._read(context)
        if held is None or held.reference == self._kms.reference():
            return False
        key = self._unwrap(held, context)
        native = self._kms.opens(held.reference)
        fresh = self._kms.rewrap(held, context) if native else self._kms.wrap(key, context)
        if not hmac.compare_digest(self._kms.unwrap(fresh, context), key):
            raise KeyUnavailable(f"{_words(context)} changed when it was wrapped anew")
        # The only copy is replaced once another one is known to be good.
        self._put(context, fresh, suffix=_SIDE)
        self._put(context, fresh)
        self._store.delete([_place(context) + _SIDE])
        return True

    def destroy(self, tenant_id: UUID) -> int:
        """Delete every version of a tenant's key; returns how many there were.

        Raises:
            KeyUnavailable: the store still lists one of them.
        """
        held = len(list(self.every(tenant_id)))
        self._store.delete([each.key for each in self._store.list(_folder(tenant_id))])
        self.purge(tenant_id)
        if next(iter(self._store.list(_folder(tenant_id))), None) is not None:
            raise KeyUnavailable(f"the keystore still holds a key of {tenant_id}")
        return held

    def purge(self, tenant_id: UUID) -> None:
        """Forget what this process has opened of this tenant."""
        for known in [each for each in self._opened if each[0] == tenant_id]:
            self._opened.pop(known, None)

    def _unwrap(self, held: Wrapped, context: KeyContext) -> bytes:
        for root in self._roots:
            if root.opens(held.reference):
                key = root.unwrap(held, context)
                if len(key) == KEY_BYTES:
                    return key
        raise KeyUnavailable(f"nothing that is configured opens what {held.reference} wrapped")

    def _put(self, context: KeyContext, wrapped: Wrapped, suffix: str = "") -> None:
        """Write an object, and look that it is what was written."""
        reference = wrapped.reference.encode()
        head = _HEAD.pack(MAGIC, FORMAT, context.tenant_id.bytes, context.version, len(reference))
        self._store.put(_place(context) + suffix, head + reference + wrapped.blob)
        if self._read(context, suffix) != wrapped:
            raise KeyUnavailable(f"{_words(context)} does not come back from the keystore")

    def _read(self, context: KeyContext, suffix: str = "") -> Wrapped | None:
        try:
            data = self._store.get(_place(context) + suffix, _MOST_BYTES)
        except ObjectMissing:
            return None
        return _parse(data, context)


def _parse(data: bytes, context: KeyContext) -> Wrapped:
    if len(data) < _HEAD.size:
        raise KeyUnavailable(f"the keystore's object of {_words(context)} is cut short")
    magic, layout, tenant, version, length = _HEAD.unpack_from(data)
    if (magic, layout) != (MAGIC, FORMAT):
        raise KeyUnavailable(f"the keystore's object of {_words(context)} is no key we can read")
    if (UUID(bytes=tenant), version) != (context.tenant_id, context.version):
        raise KeyUnavailable(f"the keystore has another key in the place of {_words(context)}")
    reference = data[_HEAD.size : _HEAD.size + length].decode("ascii", "replace")
    return Wrapped(reference, data[_HEAD.size + length :])


def _words(context: KeyContext) -> str:
    return f"version {context.version} of the key of tenant {context.tenant_id}"


def _place(context: KeyContext) -> str:
    return f"{_folder(context.tenant_id)}{context.version}"


def _folder(tenant_id: UUID) -> str:
    return f"{KEYS_PREFIX}{tenant_id.hex}/"
