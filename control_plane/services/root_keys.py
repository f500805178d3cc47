"""The root keys: what still needs which of them, and having everything put under the newest."""

import asyncio
import hmac
from collections import Counter
from collections.abc import Mapping
from itertools import islice

import msgspec

from control_plane.adapters import clock
from control_plane.adapters.keystore import Keystore
from control_plane.adapters.kms import is_local, local_reference
from control_plane.catalog import audit, operations, sealed
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import KeyUnavailable
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.services.ports import Ports

SUBJECT = "root key"
_LOOKED_AT = 100


class Needs(msgspec.Struct, frozen=True):
    """How many secrets of the catalog each epoch has sealed, and what wrapped how many keys.

    ``epoch`` and ``reference`` are those of today; without a keystore there is no reference.
    """

    epoch: int
    secrets: dict[int, int]
    reference: str | None
    keys: dict[str, int]

    @property
    def old_secrets(self) -> int:
        return sum(number for epoch, number in self.secrets.items() if epoch != self.epoch)

    @property
    def old_keys(self) -> int:
        return sum(number for held, number in self.keys.items() if held != self.reference)

    def of_epoch(self, epoch: int) -> int:
        """How much would be lost with this epoch."""
        return self.secrets.get(epoch, 0) + self.keys.get(local_reference(epoch), 0)


async def needs(db: Connection, ports: Ports) -> Needs:
    """What the catalog and the keystore need, read through now.

    Raises:
        StoreUnavailable, KeyUnavailable: a key in the keystore cannot be read.
    """
    secrets = await sealed.by_epoch(db)
    reference, keys = None, Counter[str]()
    if ports.keystore is not None:
        reference = await asyncio.to_thread(ports.keystore.reference)
        keys = await asyncio.to_thread(ports.keystore.wrapped_by)
    return Needs(ports.keyring.active, dict(secrets), reference, dict(keys))


async def start_rekey(db: Connection, caller: Caller) -> Operation:
    """Put every tenant key and every sealed secret under the root key of today.

    Raises:
        OperationInProgress: this is being done already.
    """
    operation = await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(), plan=PLANS["rekey"], subject=SUBJECT, actor=caller.principal.name
        ),
    )
    await audit.record(db, caller, Entry("root_key.rekey", SUBJECT))
    return operation


def compare_keys(rebuilt: Mapping[int, bytes], present: Mapping[int, bytes]) -> str:
    """That the keys from an escrow are those in use, in words.

    Raises:
        KeyUnavailable: they are not, or one in use was not escrowed.
    """
    for epoch, key in present.items():
        if epoch not in rebuilt:
            raise KeyUnavailable(
                f"epoch {epoch} is in the key file and not in these shares; escrow again"
            )
        if not hmac.compare_digest(rebuilt[epoch], key):
            raise KeyUnavailable(f"the shares give another key than epoch {epoch} of the key file")
    return "the shares give every root key of the key file"


def open_one(keystore: Keystore) -> str | None:
    """That the local root keys open a key in the keystore, in words; ``None`` without such a key.

    Raises:
        KeyUnavailable: it does not open.
    """
    for name in islice(keystore.every(), _LOOKED_AT):
        if is_local(keystore.reference_of(name) or ""):
            keystore.open(name.tenant_id, name.version)
            return f"version {name.version} of the key of tenant {name.tenant_id} opens"
    return None
