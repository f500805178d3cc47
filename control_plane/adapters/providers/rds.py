"""Amazon RDS, or what speaks like it: one DB instance for each server.

The instance is named after the server's id and carries it as a tag. Whoever asks for a server that
was asked for finds that instance; one of the same name without the tag is somebody else's.
"""

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from control_plane.adapters import clock
from control_plane.adapters.apart import apart
from control_plane.adapters.providers.provider import Instance, Place, Standing, Wanted
from control_plane.adapters.providers.rds_errors import code_of, translated
from control_plane.adapters.providers.rds_parameters import FAMILY, PARAMETERS
from control_plane.adapters.providers.rds_states import NO_SNAPSHOT, state_of
from control_plane.config import RdsSettings
from control_plane.domain.administrators import LEAST_MAJOR
from control_plane.domain.errors import ProviderRefused, ProviderUnavailable
from control_plane.domain.names import decode, encode
from control_plane.domain.providers import ProviderKind, ServerWish, instance_name

if TYPE_CHECKING:
    from types_boto3_rds import RDSClient

ADMIN = "tenantry_admin"
DEFAULT_CLASS = "db.m7g.large"
DEFAULT_STORAGE_GB = 100
DEFAULT_VERSION = 18
SERVER_TAG = "tenantry:server"
DEPLOYMENT_TAG = "tenantry:deployment"
NO_AUTHORITIES = (
    "set TENANTRY_RDS_CA_PATH: without the authorities of RDS, whoever is between us and a server "
    "could pass for it (docs/providers.md)"
)
_LEAST_STORAGE_GB = 20
_CONFIG = Config(
    connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 5, "mode": "standard"}
)


class RdsProvider:
    """Instances of one region; credentials are those the AWS SDK finds."""

    kind: ProviderKind = "rds"

    def __init__(self, settings: RdsSettings, deployment: str) -> None:
        self._settings = settings
        self._deployment = deployment
        self.client: RDSClient = boto3.client(
            "rds", region_name=settings.region, endpoint_url=settings.endpoint, config=_CONFIG
        )

    def problems(self, wish: ServerWish) -> list[dict[str, str]]:
        region, least = self._settings.region, _LEAST_STORAGE_GB
        rules = (
            ("region", wish.region in (None, region), f"leave it out; servers are in {region}"),
            (
                "version",
                (wish.version or DEFAULT_VERSION) >= LEAST_MAJOR,
                f"RDS makes nobody a superuser: ask for Postgres {LEAST_MAJOR} or newer",
            ),
            ("storage_gb", (wish.storage_gb or least) >= least, f"ask for {least} or more"),
            (
                "instance_class",
                (wish.instance_class or "db.").startswith("db."),
                f"classes of RDS begin with db., such as {DEFAULT_CLASS}",
            ),
            ("provider", not self._unverified(), NO_AUTHORITIES),
        )
        return [{"field": field, "message": words} for field, good, words in rules if not good]

    async def create(self, wanted: Wanted) -> None:
        await asyncio.to_thread(self._create, wanted)

    async def look(self, key: UUID) -> Instance | None:
        return await asyncio.to_thread(self._look, key)

    async def delete(self, key: UUID) -> None:
        await asyncio.to_thread(self._delete, key)

    async def every(self) -> list[Instance]:
        return await asyncio.to_thread(self._every)

    async def examine(self) -> Standing:
        return await apart(self._examine)

    def _examine(self) -> Standing:
        seen = f"answers in {self._settings.region}, {len(self._every())} instances of ours"
        return Standing(seen, unverified=self._unverified())

    def _unverified(self) -> bool:
        return self._settings.endpoint is None and self._settings.ca_pem is None

    def _create(self, wanted: Wanted) -> None:
        name = instance_name(wanted.key)
        wish = wanted.wish
        group = self._parameter_group(wish.version or DEFAULT_VERSION)
        with translated(f"create the instance {name}"):
            try:
                self.client.create_db_instance(
                    DBInstanceIdentifier=name,
                    Engine="postgres",
                    EngineVersion=str(wish.version or DEFAULT_VERSION),
                    DBInstanceClass=wish.instance_class or DEFAULT_CLASS,
                    AllocatedStorage=wish.storage_gb or DEFAULT_STORAGE_GB,
                    StorageType="gp3",
                    StorageEncrypted=True,
                    MasterUsername=ADMIN,
                    MasterUserPassword=wanted.password.reveal(),
                    DBParameterGroupName=group,
                    PubliclyAccessible=False,
                    DeletionProtection=True,
                    BackupRetentionPeriod=7,
                    CopyTagsToSnapshot=True,
                    Tags=[*self._tags(), {"Key": SERVER_TAG, "Value": encode(wanted.key)}],
                    **self._network(),
                )
            except ClientError as error:
                if code_of(error) != "DBInstanceAlreadyExists":
                    raise
                self._require_ours(name, wanted.key)

    def _look(self, key: UUID) -> Instance | None:
        found = self._find(key)
        return self._instance(found, key) if found is not None else None

    def _delete(self, key: UUID) -> None:
        """Delete for good, with a last snapshot where there is something to take one of."""
        found = self._find(key)
        if found is None or found["DBInstanceStatus"] == "deleting":
            return
        with translated(f"delete the instance {instance_name(key)}"):
            try:
                self._delete_found(instance_name(key), found)
            except ClientError as error:
                if code_of(error) != "DBInstanceNotFound":
                    raise

    def _delete_found(self, name: str, found: Any) -> None:  # noqa: ANN401 - see _describe
        if found["DBInstanceStatus"] == "stopped":
            self.client.start_db_instance(DBInstanceIdentifier=name)
            raise ProviderUnavailable(f"{name} was stopped: it is started for its last snapshot")
        if found.get("DeletionProtection"):
            self.client.modify_db_instance(
                DBInstanceIdentifier=name, DeletionProtection=False, ApplyImmediately=True
            )
        if found["DBInstanceStatus"] in NO_SNAPSHOT:
            last: dict[str, Any] = {"SkipFinalSnapshot": True}
        else:
            # Not a name that an earlier deletion, of an instance that came back, may have used.
            at = clock.now().strftime("%Y%m%d-%H%M%S-%f")
            last = {"FinalDBSnapshotIdentifier": f"{name}-final-{at}"}
        self.client.delete_db_instance(
            DBInstanceIdentifier=name, DeleteAutomatedBackups=False, **last
        )

    def _every(self) -> list[Instance]:
        return [
            self._instance(one, decode(tags[SERVER_TAG]))
            for one in self._listed()
            if (tags := _tags_of(one)).get(DEPLOYMENT_TAG) == self._deployment
            and SERVER_TAG in tags
        ]

    def _listed(self) -> list[Any]:
        with translated("list instances"):
            pages = self.client.get_paginator("describe_db_instances").paginate()
            return [one for page in pages for one in page["DBInstances"]]

    def _find(self, key: UUID) -> Any:  # noqa: ANN401 - see _describe
        """The instance of this server, or ``None``.

        Raises:
            ProviderRefused: one of its name is somebody else's, or it has another name.
        """
        name = instance_name(key)
        found = self._describe(name)
        if found is not None:
            _require_tag(name, found, key)
            return found
        for one in self._listed():
            if _tags_of(one).get(SERVER_TAG) == encode(key):
                other = one["DBInstanceIdentifier"]
                raise ProviderRefused(
                    f"there is no instance {name} in RDS, but {other} has its tag: it was renamed, "
                    f"or restored from it; name it {name}, or take the tag {SERVER_TAG} off, and "
                    "retry"
                )
        return None

    def _describe(self, name: str) -> Any:  # noqa: ANN401 - one of two typed dictionaries
        with translated(f"describe the instance {name}"):
            try:
                (found,) = self.client.describe_db_instances(DBInstanceIdentifier=name)[
                    "DBInstances"
                ]
            except ClientError as error:
                if code_of(error) != "DBInstanceNotFound":
                    raise
                return None
        return found

    def _instance(self, found: Any, key: UUID) -> Instance:  # noqa: ANN401 - see _describe
        state, detail = state_of(found)
        endpoint = found.get("Endpoint") or {}
        place = None
        if state == "available" and endpoint.get("Address"):
            place = Place(
                endpoint["Address"], endpoint["Port"], ADMIN, ca_pem=self._settings.ca_pem
            )
        return Instance(key, found["DBInstanceIdentifier"], state, detail, place)

    def _require_ours(self, name: str, key: UUID) -> None:
        found = self._describe(name)
        if found is not None:
            _require_tag(name, found, key)

    def _parameter_group(self, version: int) -> str:
        """The group of this deployment and version, with the settings that tenants need."""
        name = f"{self._deployment}-{FAMILY.format(version)}"
        with translated(f"make the parameter group {name}"):
            try:
                self.client.create_db_parameter_group(
                    DBParameterGroupName=name,
                    DBParameterGroupFamily=FAMILY.format(version),
                    Description="Made by Tenantry: servers of tenants",
                    Tags=self._tags(),
                )
            except ClientError as error:
                if code_of(error) != "DBParameterGroupAlreadyExists":
                    raise
            self.client.modify_db_parameter_group(
                DBParameterGroupName=name,
                Parameters=[
                    {
                        "ParameterName": setting,
                        "ParameterValue": value,
                        "ApplyMethod": "pending-reboot",
                    }
                    for setting, value in PARAMETERS.items()
                ],
            )
        return name

    def _network(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self._settings.subnet_group is not None:
            given["DBSubnetGroupName"] = self._settings.subnet_group
        if self._settings.security_groups:
            given["VpcSecurityGroupIds"] = list(self._settings.security_groups)
        return given

    def _tags(self) -> Any:  # noqa: ANN401 - a sequence of the SDK's own dictionaries
        return [{"Key": DEPLOYMENT_TAG, "Value": self._deployment}]


def _require_tag(name: str, found: Any, key: UUID) -> None:  # noqa: ANN401 - see _describe
    if _tags_of(found).get(SERVER_TAG) != encode(key):
        raise ProviderRefused(
            f"there is an instance {name} in RDS that this server's tag is not on: it is somebody "
            "else's, and was not touched"
        )


def _tags_of(found: Any) -> dict[str, str]:  # noqa: ANN401 - see _describe
    return {tag["Key"]: tag["Value"] for tag in found.get("TagList", [])}
