"""Which servers a DSN of the catalog names."""

import pytest

from control_plane.catalog.primary import hosts_of
from control_plane.config import SettingsError


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://t@db/t", [("db", 5432)]),
        ("postgresql://t@db:5433/t", [("db", 5433)]),
        ("postgresql://t@a:1,b:2/t", [("a", 1), ("b", 2)]),
        ("postgresql://t@a,b:2/t", [("a", 5432), ("b", 2)]),
        ("host=a,b user=t dbname=t", [("a", 5432), ("b", 5432)]),
        ("host=a,b port=7 user=t dbname=t", [("a", 7), ("b", 7)]),
    ],
)
def test_every_server_is_found(dsn: str, hosts: list[tuple[str, int]]) -> None:
    assert hosts_of(dsn) == hosts


@pytest.mark.parametrize(
    "dsn", ["postgresql://t@a:x/t", "nothing of the kind", "host=a,b port=1,2,3"]
)
def test_what_is_no_dsn_is_called_so(dsn: str) -> None:
    with pytest.raises(SettingsError, match="TENANTRY_CATALOG_DSN"):
        hosts_of(dsn)
