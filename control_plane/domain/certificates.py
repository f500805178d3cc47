"""What a certificate of destruction says: what was destroyed, when, and what was not reached."""

import datetime as dt
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from control_plane.domain.names import show

FORMAT = 1
# As long as a process may keep a key that it has opened.
_IN_MEMORY = dt.timedelta(minutes=5)
_IN_FULL = "in full; whoever holds the recipient's key reads it"
_BY_KEY = "encrypted with the keys that were destroyed"


class Facts(msgspec.Struct, frozen=True):
    """What is on record of a tenant whose objects and keys were destroyed.

    Each row carries ``at``, the time it happened. ``looked_at``: when the store was found to hold
    nothing of the tenant any more. ``copies_days``: how long copies of the keystore, the catalog
    and the servers are kept by whoever runs them.
    """

    certificate_id: UUID
    tenant_id: UUID
    slug: str
    name: str
    created_at: dt.datetime
    issued_at: dt.datetime
    looked_at: dt.datetime
    deletion: dict[str, Any]
    databases: Sequence[dict[str, Any]]
    backups: Sequence[dict[str, Any]]
    exports: Sequence[dict[str, Any]]
    keys: Sequence[dict[str, Any]]
    copies_days: int
    store: str | None


def certificate(facts: Facts) -> dict[str, Any]:
    """The document that is signed; times are RFC 3339 in UTC, ids carry their prefix."""
    destroyed_at = max((key["at"] for key in facts.keys), default=facts.issued_at)
    effective = destroyed_at + dt.timedelta(days=facts.copies_days)
    return {
        "format": FORMAT,
        "certificate": show("ce", facts.certificate_id),
        "issued_at": _time(facts.issued_at),
        # From then on not even a copy of the keystore holds a key.
        "effective_at": _time(effective),
        "tenant": {
            "id": show("tn", facts.tenant_id),
            "slug": facts.slug,
            "name": facts.name,
            "created_at": _time(facts.created_at),
        },
        "requested": {
            "by": facts.deletion.get("actor"),
            "at": _time(facts.deletion.get("created_at")),
        },
        "destroyed": {
            "databases": [_database(row) for row in facts.databases],
            "backups": [_backup(row) for row in facts.backups],
            "exports": [_export(row) for row in facts.exports],
            "key_versions": [
                {"version": row["version"], "destroyed_at": _time(row["at"])} for row in facts.keys
            ],
            "roles_and_logins": "dropped with the databases",
        },
        "counts": {
            "databases": len(facts.databases),
            "backups": len(facts.backups),
            "exports": len(facts.exports),
            "key_versions": len(facts.keys),
            "stored_bytes": sum(
                row["stored_bytes"] or 0 for row in (*facts.backups, *facts.exports)
            ),
        },
        "store": {
            "place": facts.store,
            "objects_left": 0,
            "looked_at": _time(facts.looked_at),
        },
        "not_reached": _not_reached(facts, destroyed_at, effective),
        "kept": [
            "the row of the tenant in the catalog: id, slug, name, times",
            "operations, ledger of drills and audit log of the control plane: no row of its data",
            "the anchors of the tenant's own audit log, which are hashes",
            "this certificate",
        ],
    }


def _not_reached(
    facts: Facts, destroyed_at: dt.datetime, effective: dt.datetime
) -> list[dict[str, Any]]:
    """Everything that may still hold something of the tenant, in what form, and until when."""
    until = _time(effective)
    found = [
        _copy("keys in the memory of processes", "plain", _time(destroyed_at + _IN_MEMORY)),
        _copy(
            "copies of the keystore",
            "keys, wrapped by a root key; worthless earlier if that root key is retired",
            until,
        ),
        _copy(
            "copies of the catalog",
            "sealed logins, and keys if they were sealed there for want of a keystore; no data",
            until,
        ),
        _copy(
            "files of the tenant servers outside of Postgres",
            "plain: WAL and its archive, physical backups, replicas, snapshots of disks, blocks "
            "that the file system has not overwritten",
            until,
        ),
        _copy(
            "logs of the tenant servers",
            "statements of the tenant as far as logging was on; no parameters by default",
            until,
        ),
        _copy(
            "earlier versions of objects in the store",
            f"{_BY_KEY}; kept if the bucket keeps versions or locks objects",
            None,
        ),
        _copy("objects that a worker had fetched for a restore", _BY_KEY, None),
    ]
    if facts.exports:
        found.append(_copy("exports that were taken away", _IN_FULL, None))
    found.append(_copy("what the applications copied elsewhere", "unknown to this system", None))
    return found


def _copy(what: str, form: str, until: str | None) -> dict[str, Any]:
    return {"what": what, "form": form, "until": until}


def _database(row: dict[str, Any]) -> dict[str, Any]:
    return {"name": row["name"], "server": row["server"], "dropped_at": _time(row["at"])}


def _backup(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": show("bk", row["id"]),
        "snapshot_at": _time(row["snapshot_at"]),
        "stored_bytes": row["stored_bytes"],
        "key_version": row["key_version"],
        "deleted_at": _time(row["at"]),
    }


def _export(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": show("ex", row["id"]),
        "made_at": _time(row["made_at"]),
        "stored_bytes": row["stored_bytes"],
        "recipient": row["recipient"],
        "deleted_at": _time(row["at"]),
    }


def _time(at: dt.datetime | None) -> str | None:
    return at.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if at is not None else None
