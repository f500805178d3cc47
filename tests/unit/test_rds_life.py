"""What may befall an RDS instance while it is made and deleted: moto, with states injected."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.backends import get_backend

from control_plane.adapters.providers.provider import Standing, Wanted
from control_plane.adapters.providers.rds import NO_AUTHORITIES, SERVER_TAG, RdsProvider
from control_plane.adapters.providers.rds_errors import translated
from control_plane.config import RdsSettings, Secret
from control_plane.domain.errors import ProviderRefused, ProviderUnavailable
from control_plane.domain.providers import ServerWish, instance_name
from tests.fakes.moto_rds import ACCOUNT, REGION, Refusals, moto_instance

KEY = UUID(int=7)
NAME = instance_name(KEY)
SETTINGS = RdsSettings(region=REGION, ca_pem="PEM")
WANTED = Wanted(KEY, "pg-c", Secret("a-password-of-ours"), ServerWish())


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def rds() -> Iterator[RdsProvider]:
    with mock_aws():
        yield RdsProvider(SETTINGS, "here")


def snapshots(rds: RdsProvider) -> list[str]:
    found = rds.client.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    return [one["DBSnapshotIdentifier"] for one in found]


def amended(rds: RdsProvider, **what: Any) -> None:
    """From now on RDS describes every instance with this in it."""

    def amend(parsed: dict[str, Any], **_: Any) -> None:
        for one in parsed.get("DBInstances", []):
            one.update(what)

    rds.client.meta.events.register("after-call.rds.DescribeDBInstances", amend)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("stopped", "start it"),
        ("storage-full", "more storage"),
        ("incompatible-parameters", "correct its parameter group"),
        ("inaccessible-encryption-credentials-recoverable", "its key usable"),
    ],
)
async def test_who_waits_for_a_person_says_so(rds: RdsProvider, status: str, words: str) -> None:
    await rds.create(WANTED)
    moto_instance(KEY).status = status
    found = await rds.look(KEY)
    assert found is not None
    assert (found.state, found.place) == ("failed", None)
    assert words in found.detail


@pytest.mark.parametrize(
    "status", ["modifying", "upgrading", "rebooting", "starting", "stopping", "maintenance"]
)
async def test_what_passes_is_waited_for(rds: RdsProvider, status: str) -> None:
    await rds.create(WANTED)
    moto_instance(KEY).status = status
    found = await rds.look(KEY)
    assert found is not None
    assert (found.state, found.place) == ("creating", None)
    refusals = Refusals(rds, "DeleteDBInstance", 400, "InvalidDBInstanceState", 1)
    with pytest.raises(ProviderUnavailable, match="the instance is busy"):
        await rds.delete(KEY)
    assert (refusals.asked, moto_instance(KEY).status) == (1, status)


async def test_what_is_optimized_for_hours_serves_meanwhile(rds: RdsProvider) -> None:
    await rds.create(WANTED)
    moto_instance(KEY).status = "storage-optimization"
    found = await rds.look(KEY)
    assert found is not None
    assert found.state == "available"
    assert found.place is not None


@pytest.mark.parametrize(
    ("status", "words"), [("pending-reboot", "reboot it"), ("applying", "being applied")]
)
async def test_without_its_parameters_it_is_no_server_yet(
    rds: RdsProvider, status: str, words: str
) -> None:
    await rds.create(WANTED)
    group = {"DBParameterGroupName": "here-postgres18", "ParameterApplyStatus": status}
    amended(rds, DBParameterGroups=[group])
    found = await rds.look(KEY)
    assert found is not None
    assert (found.state, found.place) == ("creating", None)
    assert words in found.detail


async def test_an_endpoint_that_changed_is_the_one_that_is_told(rds: RdsProvider) -> None:
    await rds.create(WANTED)
    amended(rds, Endpoint={"Address": "moved.example.org", "Port": 5433})
    found = await rds.look(KEY)
    assert found is not None
    assert found.place is not None
    assert (found.place.host, found.place.port) == ("moved.example.org", 5433)


async def test_deleted_twice_there_are_two_last_snapshots(rds: RdsProvider) -> None:
    """Of one instance that came back, say from its own snapshot."""
    for _ in range(2):
        await rds.create(WANTED)
        kept = get_backend("rds")[ACCOUNT][REGION].database_snapshots
        kept.pop(next(name for name in kept if name.startswith("rds:")))  # one a minute in moto
        await rds.delete(KEY)
        assert await rds.look(KEY) is None
    assert len(set(snapshots(rds))) == 2
    assert all(one.startswith(f"{NAME}-final-") for one in snapshots(rds))


@pytest.mark.parametrize("status", ["incompatible-parameters", "storage-full", "available"])
async def test_what_has_run_is_not_deleted_without_a_snapshot(
    rds: RdsProvider, status: str
) -> None:
    await rds.create(WANTED)
    moto_instance(KEY).status = status
    await rds.delete(KEY)
    assert len(snapshots(rds)) == 1


async def test_what_was_stopped_is_started_for_its_last_snapshot(rds: RdsProvider) -> None:
    await rds.create(WANTED)
    rds.client.stop_db_instance(DBInstanceIdentifier=NAME)
    with pytest.raises(ProviderUnavailable, match="started for its last snapshot"):
        await rds.delete(KEY)
    assert moto_instance(KEY).status == "available"
    await rds.delete(KEY)
    assert await rds.look(KEY) is None
    assert len(snapshots(rds)) == 1


async def test_protection_that_comes_back_is_taken_off_again(rds: RdsProvider) -> None:
    await rds.create(WANTED)
    times = iter([True, False])

    def protect(**_: Any) -> None:
        moto_instance(KEY).deletion_protection = next(times)

    rds.client.meta.events.register("before-call.rds.DeleteDBInstance", protect)
    with pytest.raises(ProviderUnavailable, match="protected it from deletion"):
        await rds.delete(KEY)
    assert moto_instance(KEY).status == "available"
    await rds.delete(KEY)
    assert await rds.look(KEY) is None


async def test_what_is_not_protected_is_not_modified(rds: RdsProvider) -> None:
    """In some states nothing but the deletion is allowed."""
    await rds.create(WANTED)
    moto_instance(KEY).deletion_protection = False
    refusals = Refusals(rds, "ModifyDBInstance", 400, "InvalidDBInstanceState", 9)
    await rds.delete(KEY)
    assert (refusals.asked, await rds.look(KEY)) == (0, None)


async def test_what_vanishes_before_it_is_deleted_is_gone(rds: RdsProvider) -> None:
    await rds.create(WANTED)
    refusals = Refusals(rds, "DeleteDBInstance", 404, "DBInstanceNotFound", 1)
    await rds.delete(KEY)
    assert refusals.asked == 1


async def test_a_renamed_instance_is_neither_gone_nor_deleted(rds: RdsProvider) -> None:
    await rds.create(WANTED)
    rds.client.modify_db_instance(
        DBInstanceIdentifier=NAME, NewDBInstanceIdentifier="by-hand", ApplyImmediately=True
    )
    for asking in (rds.look(KEY), rds.delete(KEY)):
        with pytest.raises(ProviderRefused, match=f"by-hand has its tag.* name it {NAME}"):
            await asking
    found = rds.client.describe_db_instances()["DBInstances"]
    assert [one["DBInstanceIdentifier"] for one in found] == ["by-hand"]
    rds.client.remove_tags_from_resource(
        ResourceName=found[0]["DBInstanceArn"], TagKeys=[SERVER_TAG]
    )
    assert await rds.look(KEY) is None


@pytest.mark.parametrize(
    "code", ["Throttling", "TooManyRequestsException", "RequestLimitExceeded", "ThrottledException"]
)
def test_every_word_for_throttling_is_put_off(code: str) -> None:
    said: Any = {"Error": {"Code": code, "Message": "Rate exceeded"}}
    with pytest.raises(ProviderUnavailable, match="asked too often"), translated("list instances"):
        raise ClientError(said, "DescribeDBInstances")


async def test_without_credentials_nobody_asks_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps what an earlier test had
    with pytest.raises(ProviderRefused, match="Unable to locate credentials"):
        await RdsProvider(SETTINGS, "here").every()


async def test_examined_it_tells_what_is_there(rds: RdsProvider) -> None:
    await rds.create(WANTED)
    assert await rds.examine() == Standing(f"answers in {REGION}, 1 instances of ours")
    bare = RdsProvider(RdsSettings(region=REGION), "here")
    assert (await bare.examine()).unverified


def test_of_amazon_no_server_is_had_that_could_not_be_told_from_another() -> None:
    unverified = RdsProvider(RdsSettings(region=REGION), "here").problems(ServerWish())
    assert {"field": "provider", "message": NO_AUTHORITIES} in unverified
    assert "TENANTRY_RDS_CA_PATH" in NO_AUTHORITIES
    given = RdsProvider(SETTINGS, "here").problems(ServerWish())
    assert NO_AUTHORITIES not in [one["message"] for one in given]
