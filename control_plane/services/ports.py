"""What services stand on: the catalog and the adapters, put together by bootstrap."""

from collections.abc import Mapping

import msgspec

from control_plane.adapters.doorbell import Doorbell
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import Keystore
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.providers.provider import Provider
from control_plane.adapters.template_files import Templates
from control_plane.catalog.pool import Catalog
from control_plane.config import Settings
from control_plane.domain.providers import ProviderKind


class Ports(msgspec.Struct, frozen=True):
    """One per process. ``store`` is where backups go, if there is such a place.

    ``keystore`` is where tenants' keys are; without it they are sealed in the catalog.
    ``providers`` are those that new servers can be had from.
    """

    settings: Settings
    catalog: Catalog
    keyring: Keyring
    doorbell: Doorbell
    templates: Templates
    programs: Programs
    store: ObjectStore | None = None
    keystore: Keystore | None = None
    providers: Mapping[ProviderKind, Provider] = {}
