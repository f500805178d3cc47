"""What RDS answers when it does not do what it was asked, in our errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from control_plane.domain.errors import ProviderRefused, ProviderUnavailable

# https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/CommonErrors.html and of each action:
# what passes by itself, or once somebody else has done with the instance.
_PASSING = {
    "InsufficientDBInstanceCapacity": "there is no room for this class there just now",
    "InvalidDBInstanceState": "the instance is busy",
    "InvalidDBParameterGroupState": "the parameter group is busy",
    "InternalFailure": "it failed there",
    "InternalError": "it failed there",
    "InternalServerError": "it failed there",
    "ServiceUnavailable": "it is not available",
    "RequestLimitExceeded": "it was asked too often",
    "Throttling": "it was asked too often",
    "ThrottlingException": "it was asked too often",
    "ThrottledException": "it was asked too often",
    "TooManyRequestsException": "it was asked too often",
    "PriorRequestNotComplete": "it was asked too often",
    "RequestThrottled": "it was asked too often",
}
_REMEDIES = {
    "InstanceQuotaExceeded": "have the account's quota of DB instances raised, or delete some",
    "StorageQuotaExceeded": "have the account's quota of storage raised, or ask for less",
    "DBParameterGroupQuotaExceeded": "have the account's quota of parameter groups raised",
    "SnapshotQuotaExceeded": "delete manual snapshots that nobody needs",
    "DBSubnetGroupNotFoundFault": "correct TENANTRY_RDS_SUBNET_GROUP",
    "InvalidSubnet": "correct TENANTRY_RDS_SUBNET_GROUP",
    "InvalidVPCNetworkStateFault": "correct TENANTRY_RDS_SUBNET_GROUP",
    "DBSecurityGroupNotFound": "correct TENANTRY_RDS_SECURITY_GROUPS",
    "AccessDenied": "give the workers' role the permissions in docs/providers.md",
    "AccessDeniedException": "give the workers' role the permissions in docs/providers.md",
    "UnauthorizedOperation": "give the workers' role the permissions in docs/providers.md",
    "InvalidClientTokenId": "correct the credentials that boto3 finds",
    "ExpiredToken": "renew the credentials that boto3 finds",
    "ExpiredTokenException": "renew the credentials that boto3 finds",
    "InvalidIdentityToken": "let the role trust the workers' service account (docs/providers.md)",
    "SignatureDoesNotMatch": "correct the credentials that boto3 finds, and this machine's clock",
}


# What is set for the SDK, or what we ask it, is wrong: it will say the same again.
_WRONG = (
    *(ConfigNotFound, ConfigParseError, NoCredentialsError),
    *(ParamValidationError, PartialCredentialsError, ProfileNotFound),
)
_PROTECTED = "disable deletion protection"


def code_of(error: ClientError) -> str:
    """The service's name for an error; some actions say ``…Fault`` where others do not."""
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    return code if code in _REMEDIES else code.removesuffix("Fault")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn errors of the SDK into ours.

    Raises:
        ProviderUnavailable: trying again later can help.
        ProviderRefused: it cannot; the message says what would.
    """
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        said = error.response.get("Error", {}).get("Message", "")
        passing = _PASSING.get(code)
        if code == "InvalidParameterCombination" and _PROTECTED in said:
            passing = "somebody has just protected it from deletion"  # the next attempt ends that
        if passing is not None:
            raise ProviderUnavailable(f"RDS did not {doing}: {passing} ({code}: {said})") from error
        remedy = f"; {_REMEDIES[code]}" if code in _REMEDIES else ""
        raise ProviderRefused(f"RDS did not {doing}: {code}: {said}{remedy}") from error
    except _WRONG as error:
        raise ProviderRefused(
            f"RDS did not {doing}: {error}; correct what boto3 finds (docs/providers.md)"
        ) from error
    except BotoCoreError as error:
        raise ProviderUnavailable(f"RDS did not {doing}: {type(error).__name__}") from error
