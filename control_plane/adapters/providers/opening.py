"""From the settings to the providers that they set up."""

from collections.abc import Mapping

from control_plane.adapters.providers.cnpg import CnpgProvider
from control_plane.adapters.providers.local import LocalProvider
from control_plane.adapters.providers.provider import Provider
from control_plane.config import ProviderSettings, RdsSettings, SettingsError
from control_plane.domain.providers import ProviderKind

# What has to be set before a provider can be asked for servers.
SWITCHES: Mapping[ProviderKind, str] = {
    "local": "TENANTRY_LOCAL_SUPERVISOR",
    "rds": "TENANTRY_RDS_REGION",
    "cnpg": "TENANTRY_CNPG_NAMESPACE",
}


def open_providers(settings: ProviderSettings) -> dict[ProviderKind, Provider]:
    """The providers of this deployment; nothing is asked of them yet.

    Raises:
        SettingsError: the AWS SDK cannot work with what is set for it.
    """
    found: dict[ProviderKind, Provider] = {}
    if settings.local_supervisor is not None:
        found["local"] = LocalProvider(settings.local_supervisor)
    if settings.rds is not None:
        found["rds"] = _open_rds(settings.rds, settings.deployment)
    if settings.kubernetes is not None:
        found["cnpg"] = CnpgProvider(settings.kubernetes, settings.deployment)
    return found


def _open_rds(settings: RdsSettings, deployment: str) -> Provider:
    # boto3 is slow to import.
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    from control_plane.adapters.providers.rds import RdsProvider  # noqa: PLC0415

    try:
        return RdsProvider(settings, deployment)
    except (BotoCoreError, ValueError) as error:
        remedy = "correct TENANTRY_RDS_… or what the AWS SDK reads (AWS_…)"
        raise SettingsError(f"rds cannot be set up: {error}; {remedy}") from error
