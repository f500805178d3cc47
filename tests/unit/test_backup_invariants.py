import datetime as dt

import msgspec
import pytest

from control_plane.adapters import clock
from control_plane.domain import backups as naming
from control_plane.domain.backup_invariants import (
    DrillState,
    ExpectedBackup,
    FoundObject,
    MissingKey,
    StoredWorld,
    stored_findings,
)

NOW = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)
LONG_AGO = NOW - dt.timedelta(days=2)
TENANT, BACKUP = clock.new_id(), clock.new_id()
FOLDER = naming.folder(TENANT, BACKUP)
EXPECTED = ExpectedBackup(BACKUP, "acme", f"{FOLDER}data.1", f"{FOLDER}manifest", 100)
CLEAN = StoredWorld(
    now=NOW,
    backups=[EXPECTED],
    wanted=frozenset({FOLDER, "exports/known"}),
    objects=[
        FoundObject(f"{FOLDER}data.1", 100, LONG_AGO),
        FoundObject(f"{FOLDER}manifest", 7, LONG_AGO),
        FoundObject("exports/known", 9, LONG_AGO),
        FoundObject("keystore/anything", 9, LONG_AGO),
    ],
)


def without(key: str) -> StoredWorld:
    return msgspec.structs.replace(CLEAN, objects=[o for o in CLEAN.objects if o.key != key])


def beside(*more: FoundObject) -> StoredWorld:
    return msgspec.structs.replace(CLEAN, objects=[*CLEAN.objects, *more])


def test_a_store_that_is_as_the_catalog_says_has_no_finding() -> None:
    assert stored_findings(CLEAN) == []


@pytest.mark.parametrize("key", [f"{FOLDER}data.1", f"{FOLDER}manifest"])
def test_what_is_missing_is_found(key: str) -> None:
    (finding,) = stored_findings(without(key))
    assert (finding.invariant, finding.subject) == ("I-5", "acme")
    assert "is not in the store" in finding.message


def test_another_length_is_found() -> None:
    shorter = FoundObject(f"{FOLDER}data.1", 99, LONG_AGO)
    world = without(shorter.key)
    world = msgspec.structs.replace(world, objects=[*world.objects, shorter])
    (finding,) = stored_findings(world)
    assert "99 bytes, not 100" in finding.message


@pytest.mark.parametrize("pending", [False, True])
def test_what_nobody_knows_is_garbage_after_a_day(pending: bool) -> None:  # noqa: FBT001 - a parameter of the test
    foreign = naming.folder(TENANT, clock.new_id()) + "data.1"
    young = FoundObject(foreign, 5, NOW - dt.timedelta(hours=23), pending)
    assert stored_findings(beside(young)) == []
    old = FoundObject(foreign, 5, NOW - dt.timedelta(hours=25), pending)
    (finding,) = stored_findings(beside(old))
    assert foreign in finding.message


def test_a_whole_backup_that_the_catalog_lacks_is_told_once_and_is_no_garbage() -> None:
    foreign = naming.folder(TENANT, clock.new_id())
    objects = [FoundObject(f"{foreign}{name}", 5, LONG_AGO) for name in ("data.1", "manifest")]
    (finding,) = stored_findings(beside(*objects))
    assert foreign in finding.message
    assert "the catalog lacks" in finding.message


def test_an_export_nobody_knows_is_garbage() -> None:
    (finding,) = stored_findings(beside(FoundObject("exports/unknown", 5, LONG_AGO)))
    assert "exports/unknown" in finding.message


def test_a_lost_key_is_found() -> None:
    world = msgspec.structs.replace(CLEAN, missing_keys=[MissingKey("acme", 2)])
    (finding,) = stored_findings(world)
    assert (finding.invariant, finding.subject) == ("I-5", "acme")
    assert "version 2" in finding.message


def test_a_store_that_cannot_be_looked_at_hides_nothing_else() -> None:
    undrilled = [DrillState("acme", 30, None)]
    world = StoredWorld(NOW, [EXPECTED], undrilled, problem="cannot be looked at: away")
    assert [finding.invariant for finding in stored_findings(world)] == ["I-14", "I-5"]
