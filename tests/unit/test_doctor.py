"""The doctor's judgement: each symptom is named with its remedy, and health has none."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from control_plane.domain import doctor
from control_plane.domain.doctor import (
    CatalogSigns,
    Diagnosis,
    DirectorySigns,
    KeySigns,
    PoolerSigns,
    ProviderSigns,
    QueueSigns,
    SecretSigns,
    ServerSigns,
)

CATALOG = CatalogSigns(180_006, "0004", "0004", known=True, clock_ahead=0.2)
QUEUE = QueueSigns("control", 0, 0, 0.0)
TRANSFER = QueueSigns("transfer", 0, 0, 0.0)
SERVER = ServerSigns("pg-a", 180_006, reachable=True, problem=None)
POOLER = PoolerSigns("p1", alive=True, behind=0, version="PgBouncer 1.26.1", problem=None)
KEYS = KeySigns(Path("/k"), None, escrowed=True, drilled=True)
DIRECTORY = DirectorySigns("TENANTRY_SPOOL_DIR", Path("/s"), None, 1 << 40)
PROVIDER = ProviderSigns("cnpg", "answers, 3 Clusters of ours in tenants")
SECRET = SecretSigns("TENANTRY_X_FILE", Path("/x"), 0o600)


def changed(signs: Any, **what: object) -> Any:
    return msgspec.structs.replace(signs, **what)


def test_health_has_no_remedy() -> None:
    found = [
        *doctor.catalog(CATALOG),
        *doctor.beat_and_workers(2.0, [QUEUE, TRANSFER]),
        *doctor.servers([SERVER]),
        *doctor.poolers([POOLER], 3),
        *doctor.keys(KEYS),
        *doctor.directories([DIRECTORY]),
        *doctor.secret_files([SECRET]),
        *doctor.providers([PROVIDER]),
        doctor.redis(answers=True),
    ]
    assert len(found) == 13
    assert {(one.level, one.remedy) for one in found} == {("ok", None)}


SICK: list[tuple[list[Diagnosis], str, str, str]] = [
    (list(doctor.catalog(changed(CATALOG, revision=None))), "catalog", "no schema", "migrate"),
    (
        list(doctor.catalog(changed(CATALOG, revision="0003"))),
        "catalog",
        "is at migration 0003, this code needs 0004",
        "control_plane.catalog.migrate",
    ),
    (list(doctor.catalog(changed(CATALOG, version_num=140_001))), "catalog", "14", "15 to 18"),
    (list(doctor.catalog(changed(CATALOG, clock_ahead=-99.0))), "clock", "-99.0 s", "NTP"),
    (list(doctor.beat_and_workers(99, [QUEUE, TRANSFER])), "beat", "99 s", "start beat"),
    (
        list(doctor.beat_and_workers(99, [changed(QUEUE, unheard=7), TRANSFER])),
        "worker control",
        "7 messages wait",
        "worker control",
    ),
    (
        list(doctor.beat_and_workers(1, [QUEUE, changed(TRANSFER, waiting_seconds=40.0)])),
        "queue transfer",
        "waits for 40 s, and none is worked on",
        "worker transfer",
    ),
    (
        list(doctor.beat_and_workers(1, [changed(QUEUE, unheard=None), TRANSFER])),
        "queue control",
        "broker does not answer",
        "TENANTRY_REDIS_URL",
    ),
    ([doctor.redis(answers=False)], "redis", "nobody", "start Redis"),
    (
        list(doctor.servers([changed(SERVER, reachable=False, problem="refused")])),
        "server pg-a",
        "refused",
        "start it",
    ),
    (list(doctor.servers([changed(SERVER, version_num=130_002)])), "server pg-a", "13.2", "move"),
    (
        list(doctor.servers([changed(SERVER, missing_programs="install client-18")])),
        "programs for pg-a",
        "cannot run here",
        "install client-18",
    ),
    (list(doctor.poolers([], 3)), "poolers", "none serves the 3 tenants", "router.agent"),
    (list(doctor.poolers([changed(POOLER, alive=False)], 3)), "pooler p1", "silent", "start"),
    (list(doctor.poolers([changed(POOLER, behind=4)], 3)), "pooler p1", "last 4", "log"),
    (list(doctor.keys(changed(KEYS, problem="is gone"))), "root keys", "is gone", "escrow"),
    (
        list(doctor.directories([changed(DIRECTORY, free_bytes=5 << 20)])),
        "directory /s",
        "5 MiB",
        "TENANTRY_SPOOL_DIR",
    ),
    (
        list(doctor.directories([changed(DIRECTORY, problem="is not there")])),
        "directory /s",
        "is not there",
        "make it",
    ),
    (
        list(doctor.providers([changed(PROVIDER, problem="did not answer")])),
        "provider cnpg",
        "did not answer",
        "docs/providers.md",
    ),
    (
        list(doctor.providers([changed(PROVIDER, missing=("get secrets", "delete secrets"))])),
        "provider cnpg",
        "may not get secrets, delete secrets",
        "docs/providers.md",
    ),
    (
        list(doctor.providers([changed(PROVIDER, unverified=True)])),
        "provider cnpg",
        "nobody could tell its servers from others",
        "TENANTRY_RDS_CA_PATH",
    ),
    (
        list(doctor.secret_files([changed(SECRET, mode=0o644)])),
        "secret TENANTRY_X_FILE",
        "0644",
        "chmod 600 /x",
    ),
    (
        list(doctor.secret_files([changed(SECRET, mode=None)])),
        "secret TENANTRY_X_FILE",
        "cannot read /x",
        "TENANTRY_X_FILE",
    ),
]


@pytest.mark.parametrize(("found", "part", "words", "remedy"), SICK, ids=[s[2] for s in SICK])
def test_what_is_sick_is_named_with_its_remedy(
    found: list[Diagnosis], part: str, words: str, remedy: str
) -> None:
    problems = [one for one in found if one.level == "problem"]
    assert [one.part for one in problems] == [part]
    assert words in problems[0].found
    assert remedy in (problems[0].remedy or "")


@pytest.mark.parametrize(
    ("found", "part"),
    [
        (doctor.keys(changed(KEYS, escrowed=False, drilled=False)), "root keys"),
        (doctor.keys(changed(KEYS, drilled=False)), "root keys"),
        (doctor.poolers([changed(POOLER, version="PgBouncer 1.18.0")], 1), "pooler p1"),
        (doctor.servers([changed(SERVER, version_num=180_003)]), "server pg-a"),
        (doctor.servers([]), "servers"),
        (
            doctor.providers([changed(PROVIDER, missing=("get secrets",), looks_only=True)]),
            "provider cnpg",
        ),
        (doctor.catalog(changed(CATALOG, revision="0009", known=False)), "catalog"),
        (doctor.beat_and_workers(None, [QUEUE, TRANSFER]), "beat"),
        (
            doctor.beat_and_workers(1, [QUEUE, changed(TRANSFER, held=4, waiting_seconds=90.0)]),
            "queue transfer",
        ),
    ],
)
def test_advice_is_no_problem(found: Any, part: str) -> None:
    listed = list(found)
    assert [one.part for one in listed if one.level == "advice"] == [part]
    assert [one for one in listed if one.level == "problem"] == []
    assert all(one.remedy for one in listed if one.level == "advice")
