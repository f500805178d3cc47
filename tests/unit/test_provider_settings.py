"""The settings of providers: read whole or refused, each half of one with its remedy."""

from pathlib import Path

import pytest

from control_plane.config import SettingsError
from control_plane.config.providers import read_providers
from tests.unit.test_configuration_page import PAGE, rows

PEM = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in rows(PAGE.read_text()):
        monkeypatch.delenv(name, raising=False)


def test_nothing_set_is_nobody() -> None:
    found = read_providers()
    assert (found.rds, found.kubernetes, found.local_supervisor) == (None, None, None)


def test_everything_that_is_set_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(PEM)
    for name, value in {
        "TENANTRY_RDS_REGION": "eu-west-1",
        "TENANTRY_RDS_SUBNET_GROUP": "clinics",
        "TENANTRY_RDS_SECURITY_GROUPS": "sg-1, sg-2",
        "TENANTRY_RDS_CA_PATH": str(tmp_path / "ca.pem"),
        "TENANTRY_CNPG_NAMESPACE": "tenants",
        "TENANTRY_CNPG_STORAGE_CLASS": "fast",
        "TENANTRY_CNPG_STORAGE_GB": "20",
    }.items():
        monkeypatch.setenv(name, value)
    found = read_providers()
    assert found.rds is not None
    assert found.kubernetes is not None
    assert (found.rds.subnet_group, found.rds.security_groups) == ("clinics", ("sg-1", "sg-2"))
    assert found.rds.ca_pem == PEM.strip()
    assert (found.kubernetes.storage_class, found.kubernetes.storage_gb) == ("fast", 20)
    assert str(found.kubernetes.token_file).startswith("/var/run/secrets/kubernetes.io/")


@pytest.mark.parametrize("switch", ["TENANTRY_RDS_REGION", "TENANTRY_CNPG_NAMESPACE"])
def test_half_a_provider_is_refused(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    prefix = ("TENANTRY_RDS_",) if "RDS" in switch else ("TENANTRY_CNPG_", "TENANTRY_KUBERNETES_")
    others = [name for name in rows(PAGE.read_text()) if name.startswith(prefix)]
    others.remove(switch)
    assert len(others) >= 4
    for name in others:
        monkeypatch.setenv(name, "x")
        with pytest.raises(
            SettingsError, match=f"{name} is set, and {switch} is not: set {switch}"
        ):
            read_providers()
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TENANTRY_CNPG_STORAGE_GB", "0", "whole number of GiB"),
        ("TENANTRY_CNPG_STORAGE_GB", "10Gi", "whole number of GiB"),
        ("TENANTRY_RDS_CA_PATH", str(PAGE), "no certificate as PEM"),
        ("TENANTRY_RDS_CA_PATH", "/nowhere", "cannot read /nowhere"),
        ("TENANTRY_DEPLOYMENT", "a--b", "single hyphens"),
    ],
)
def test_a_wrong_value_is_refused_and_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv("TENANTRY_RDS_REGION", "eu-west-1")
    monkeypatch.setenv("TENANTRY_CNPG_NAMESPACE", "tenants")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}.*{words}"):
        read_providers()
