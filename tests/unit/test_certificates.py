"""What a certificate of destruction says, and that nobody can say it in our name."""

import base64
import datetime as dt
from typing import Any
from uuid import UUID

import msgspec
import pytest

from control_plane.adapters import signatures
from control_plane.adapters.signatures import Signer
from control_plane.domain.certificates import Facts, certificate

NOON = dt.datetime(2026, 5, 6, 12, tzinfo=dt.UTC)
KEY = UUID(int=7)
FACTS = Facts(
    certificate_id=KEY,
    tenant_id=KEY,
    slug="acme",
    name="Acme Clinic",
    created_at=NOON - dt.timedelta(days=400),
    issued_at=NOON,
    looked_at=NOON,
    deletion={"actor": "olga", "created_at": NOON - dt.timedelta(days=60)},
    databases=[{"name": "t_1", "server": "pg-a", "at": NOON - dt.timedelta(days=30)}],
    backups=[
        {"id": KEY, "snapshot_at": NOON, "stored_bytes": 5, "key_version": 1, "at": NOON},
        {"id": KEY, "snapshot_at": NOON, "stored_bytes": 7, "key_version": 2, "at": NOON},
    ],
    exports=[],
    keys=[
        {"version": 1, "at": NOON - dt.timedelta(hours=2)},
        {"version": 2, "at": NOON - dt.timedelta(hours=1)},
    ],
    copies_days=35,
    store="s3://bucket/prefix",
)
EXPORT = {"id": KEY, "made_at": NOON, "stored_bytes": 9, "recipient": "age1", "at": NOON}


def not_reached(document: dict[str, Any]) -> dict[str, str | None]:
    return {one["what"]: one["until"] for one in document["not_reached"]}


def test_it_says_who_asked_what_was_destroyed_and_when() -> None:
    said = certificate(FACTS)
    assert said["requested"] == {"by": "olga", "at": "2026-03-07T12:00:00Z"}
    assert said["counts"] == {
        "databases": 1,
        "backups": 2,
        "exports": 0,
        "key_versions": 2,
        "stored_bytes": 12,
    }
    assert said["destroyed"]["databases"] == [
        {"name": "t_1", "server": "pg-a", "dropped_at": "2026-04-06T12:00:00Z"}
    ]
    assert [one["key_version"] for one in said["destroyed"]["backups"]] == [1, 2]
    assert said["store"] == {
        "place": "s3://bucket/prefix",
        "objects_left": 0,
        "looked_at": "2026-05-06T12:00:00Z",
    }


def test_it_takes_effect_when_copies_of_the_last_key_are_gone() -> None:
    said = certificate(FACTS)
    assert said["effective_at"] == "2026-06-10T11:00:00Z"
    assert not_reached(said)["copies of the keystore"] == said["effective_at"]
    assert not_reached(said)["copies of the catalog"] == said["effective_at"]
    assert not_reached(said)["earlier versions of objects in the store"] is None


def test_exports_that_were_taken_away_are_named_if_there_were_any() -> None:
    taken = "exports that were taken away"
    assert taken not in not_reached(certificate(FACTS))
    said = certificate(msgspec.structs.replace(FACTS, exports=[EXPORT]))
    assert not_reached(said)[taken] is None
    assert said["counts"]["exports"] == 1


def test_a_tenant_that_had_nothing_has_a_certificate_too() -> None:
    bare = msgspec.structs.replace(
        FACTS, deletion={}, databases=[], backups=[], keys=[], store=None
    )
    said = certificate(bare)
    assert said["counts"]["stored_bytes"] == 0
    assert said["effective_at"] == "2026-06-10T12:00:00Z"


def test_the_signature_survives_how_the_catalog_keeps_documents() -> None:
    """jsonb forgets the order of fields; numbers, times and accents stay what they are."""
    signer = Signer.generate()
    said = certificate(msgspec.structs.replace(FACTS, name="Clínica Ñandú ☃"))
    signature = signer.sign(signatures.canonical(said))
    kept = msgspec.json.decode(msgspec.json.encode(dict(reversed(list(said.items())))))
    assert signatures.verifies(signatures.canonical(kept), signature, signer.public_key)


@pytest.mark.parametrize("part", ["document", "signature", "public_key", "cut"])
def test_what_was_changed_does_not_verify(part: str) -> None:
    signer, other = Signer.generate(), Signer.generate()
    message = signatures.canonical(certificate(FACTS))
    signature, public_key = signer.sign(message), signer.public_key
    assert signatures.verifies(message, signature, public_key)
    changed = {
        "document": (message.replace(b"acme", b"acne"), signature, public_key),
        "signature": (message, other.sign(message), public_key),
        "public_key": (message, signature, other.public_key),
        "cut": (message, signature, public_key[:-1]),
    }[part]
    assert not signatures.verifies(*changed)


def test_a_signer_is_its_seed() -> None:
    signer = Signer.generate()
    assert Signer(signer.seed).public_key == signer.public_key
    assert signatures.fingerprint(signer.public_key) != signatures.fingerprint(signer.seed)
    body = signatures.pem(signer.public_key).split(b"-----")[2]
    assert base64.b64decode(body).endswith(signer.public_key)
