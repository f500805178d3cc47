"""The real application, put together but not started: it needs no server to describe itself."""

import ipaddress
from pathlib import Path

from litestar import Litestar

from control_plane.adapters.keyring import Keyring
from control_plane.api.app import build_app
from control_plane.bootstrap import make_ports
from control_plane.config import DEFAULT_TEMPLATE, REPOSITORY, Settings


def offline_settings(home: Path) -> Settings:
    """Settings whose catalog and broker answer nobody."""
    keyring = home / "keys" / "root.keys"
    Keyring.create(keyring)
    return Settings(
        home=home,
        catalog_dsn="postgresql://nobody@127.0.0.1:1/nothing",
        catalog_password=None,
        redis_url="redis://127.0.0.1:1/0",
        redis_password=None,
        keyring_file=keyring,
        server_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        templates={DEFAULT_TEMPLATE: REPOSITORY / "tenant_template"},
    )


def offline_app(home: Path) -> Litestar:
    return build_app(make_ports(offline_settings(home)))
