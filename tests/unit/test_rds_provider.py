"""Amazon RDS as a provider: real boto3 against moto, whose states and refusals are injected."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
from moto import mock_aws
from moto.backends import get_backend

from control_plane.adapters.providers.provider import Wanted
from control_plane.adapters.providers.rds import ADMIN, DEPLOYMENT_TAG, SERVER_TAG, RdsProvider
from control_plane.adapters.providers.rds_parameters import PARAMETERS
from control_plane.config import RdsSettings, Secret
from control_plane.domain.errors import ProviderRefused, ProviderUnavailable
from control_plane.domain.names import encode
from control_plane.domain.providers import ServerWish, instance_name
from tests.fakes.moto_rds import ACCOUNT, REGION, Refusals, moto_instance

KEY, OTHER = UUID(int=7), UUID(int=8)
PASSWORD = "a-password-of-ours"
SETTINGS = RdsSettings(region=REGION, ca_pem="PEM")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def rds() -> Iterator[RdsProvider]:
    with mock_aws():
        yield RdsProvider(SETTINGS, "here")


def wanted(key: UUID = KEY, **wish: Any) -> Wanted:
    return Wanted(key, "pg-c", Secret(PASSWORD), ServerWish(**wish))


async def test_an_instance_is_made_as_tenants_need_it(rds: RdsProvider) -> None:
    await rds.create(wanted(version=16, storage_gb=50, instance_class="db.t4g.medium"))
    (found,) = rds.client.describe_db_instances()["DBInstances"]
    assert found["DBInstanceIdentifier"] == instance_name(KEY)
    assert found["MasterUsername"] == ADMIN
    assert found["DBInstanceClass"] == "db.t4g.medium"
    assert found["AllocatedStorage"] == 50
    assert found["EngineVersion"].startswith("16")
    assert found["StorageEncrypted"]
    assert found["DeletionProtection"]
    assert not found["PubliclyAccessible"]
    assert {tag["Key"]: tag["Value"] for tag in found["TagList"]} == {
        DEPLOYMENT_TAG: "here",
        SERVER_TAG: encode(KEY),
    }
    assert PASSWORD not in str(found)
    (group,) = found["DBParameterGroups"]
    assert group["DBParameterGroupName"] == "here-postgres16"
    set_ = get_backend("rds")[ACCOUNT][REGION].db_parameter_groups["here-postgres16"].parameters
    assert {name: value["ParameterValue"] for name, value in set_.items()} == dict(PARAMETERS)


async def test_asked_for_twice_there_is_one(rds: RdsProvider) -> None:
    await rds.create(wanted())
    await rds.create(wanted())
    assert len(rds.client.describe_db_instances()["DBInstances"]) == 1


async def test_one_of_somebody_else_is_refused_and_left_alone(rds: RdsProvider) -> None:
    name = instance_name(KEY)
    rds.client.create_db_instance(
        DBInstanceIdentifier=name,
        Engine="postgres",
        DBInstanceClass="db.m7g.large",
        AllocatedStorage=20,
        MasterUsername="somebody",
        MasterUserPassword="somebody-elses",
    )
    for asking in (rds.create(wanted()), rds.look(KEY), rds.delete(KEY)):
        with pytest.raises(ProviderRefused, match="somebody else's"):
            await asking
    assert moto_instance(KEY).status == "available"
    assert await rds.every() == []


async def test_states_on_the_way(rds: RdsProvider) -> None:
    await rds.create(wanted())
    for status in ("creating", "backing-up", "modifying", "configuring-enhanced-monitoring"):
        moto_instance(KEY).status = status
        found = await rds.look(KEY)
        assert found is not None
        assert (found.state, found.place, found.detail) == ("creating", None, f"status {status}")
    moto_instance(KEY).status = "available"
    found = await rds.look(KEY)
    assert found is not None
    assert found.state == "available"
    assert found.place is not None
    assert (found.place.user, found.place.ca_pem) == (ADMIN, "PEM")
    assert found.place.host.endswith("rds.amazonaws.com")


@pytest.mark.parametrize("status", ["failed", "incompatible-network", "insufficient-capacity"])
async def test_what_will_never_be_available_has_failed(rds: RdsProvider, status: str) -> None:
    await rds.create(wanted())
    moto_instance(KEY).status = status
    found = await rds.look(KEY)
    assert found is not None
    assert (found.state, found.detail) == ("failed", f"status {status}")


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("InsufficientDBInstanceCapacity", ProviderUnavailable, "no room for this class"),
        ("InstanceQuotaExceeded", ProviderRefused, "quota of DB instances raised"),
        ("InstanceQuotaExceededFault", ProviderRefused, "quota of DB instances raised"),
        ("StorageQuotaExceeded", ProviderRefused, "quota of storage raised"),
        ("DBSubnetGroupNotFoundFault", ProviderRefused, "TENANTRY_RDS_SUBNET_GROUP"),
        ("AccessDenied", ProviderRefused, "permissions in docs/providers.md"),
        ("InvalidParameterCombination", ProviderRefused, "InvalidParameterCombination: no"),
    ],
)
async def test_refusals_say_what_to_do(
    rds: RdsProvider, code: str, error: type[Exception], words: str
) -> None:
    refusals = Refusals(rds, "CreateDBInstance", 400, code, 1)
    with pytest.raises(error, match=words) as raised:
        await rds.create(wanted())
    assert PASSWORD not in str(raised.value)
    assert refusals.asked == 1
    await rds.create(wanted())
    assert await rds.look(KEY) is not None


async def test_throttling_is_tried_again_and_then_put_off(rds: RdsProvider) -> None:
    passing = Refusals(rds, "CreateDBInstance", 400, "Throttling", 2)
    await rds.create(wanted())
    assert passing.asked == 3
    lasting = Refusals(rds, "DescribeDBInstances", 400, "Throttling", 99)
    with pytest.raises(ProviderUnavailable, match="asked too often"):
        await rds.look(KEY)
    assert lasting.asked == 5


async def test_deleted_with_a_last_snapshot(rds: RdsProvider) -> None:
    await rds.create(wanted())
    await rds.delete(KEY)
    assert await rds.look(KEY) is None
    (last,) = rds.client.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    assert last["DBSnapshotIdentifier"].startswith(f"{instance_name(KEY)}-final-")
    await rds.delete(KEY)


async def test_what_never_ran_is_deleted_without_a_snapshot(rds: RdsProvider) -> None:
    await rds.create(wanted())
    moto_instance(KEY).status = "failed"
    await rds.delete(KEY)
    assert await rds.look(KEY) is None
    assert rds.client.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"] == []


async def test_what_is_being_deleted_is_left_to_it(rds: RdsProvider) -> None:
    await rds.create(wanted())
    moto_instance(KEY).status = "deleting"
    refusals = Refusals(rds, "DeleteDBInstance", 400, "InvalidDBInstanceState", 1)
    await rds.delete(KEY)
    assert refusals.asked == 0


async def test_every_instance_of_this_deployment_is_listed(rds: RdsProvider) -> None:
    await rds.create(wanted())
    await RdsProvider(SETTINGS, "elsewhere").create(wanted(OTHER))
    assert [one.key for one in await rds.every()] == [KEY]


def test_what_cannot_be_had_is_told_by_field() -> None:
    wish = ServerWish(region="us-east-1", storage_gb=5, instance_class="m7g.large")
    elsewhere = RdsProvider(
        msgspec.structs.replace(SETTINGS, endpoint="http://127.0.0.1:1"), "here"
    )
    assert [one["field"] for one in elsewhere.problems(wish)] == [
        "region",
        "storage_gb",
        "instance_class",
    ]
    assert elsewhere.problems(ServerWish(region=REGION)) == []
    assert RdsProvider(SETTINGS, "here").problems(ServerWish()) == []
    (old,) = elsewhere.problems(ServerWish(version=15))
    assert (old["field"], "ask for Postgres 16 or newer" in old["message"]) == ("version", True)
