"""The systemd units: right for systemd itself, hardened, and fitting code and configuration."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.config import REPOSITORY
from control_plane.config.providers import read_providers
from tests.unit.deploy.units import (
    ENTRY_POINT,
    FOLDER,
    WITH_RDS,
    dropped_in,
    faults,
    read,
    units,
    variables_of,
)

PAGE = REPOSITORY / "docs" / "install.md"
INSTANCES = {
    "tenantry-worker@.service": "tenantry-worker@control.service",
    "tenantry-pgbouncer@.service": "tenantry-pgbouncer@p1.service",
    "tenantry-agent@.service": "tenantry-agent@p1.service",
}
NAMES = sorted(units())
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def analyze(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with the entry point of this checkout, which is not in /opt."""
    entry_point = Path(sys.executable).with_name("tenantry-run")
    for path in FOLDER.glob("*.service"):
        text = path.read_text().replace(ENTRY_POINT, str(entry_point))
        (tmp_path / path.name).write_text(text)
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_has_no_complaint(installed: Path, name: str) -> None:
    ended = analyze(installed, "verify", "--man=no", f"./{INSTANCES.get(name, name)}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("RestartSec=2", "RestartSecs=2"), ("tenantry-run", "tenantry-walk"), ("always", "allways")],
)
def test_systemd_complains_of_a_wrong_unit(installed: Path, right: str, wrong: str) -> None:
    unit = installed / "tenantry-api.service"
    text = unit.read_text()
    assert right in text
    unit.write_text(text.replace(right, wrong))
    ended = analyze(installed, "verify", "--man=no", "./tenantry-api.service")
    assert ended.stderr != ""


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_little_that_is_exposed(installed: Path, name: str) -> None:
    of_name = f"./{INSTANCES.get(name, name)}"
    given = ("security", "--offline=yes", "--no-pager", "--threshold=25")
    ended = analyze(installed, *given, of_name)
    assert ended.returncode == 0, ended.stdout
    lines = (installed / name).read_text().splitlines()
    (installed / name).write_text("\n".join(line for line in lines if "System" not in line))
    assert analyze(installed, *given, of_name).returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_each_unit_fits(name: str) -> None:
    assert list(faults(name, units()[name], PAGE.read_text(), units())) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong", "fault"),
    [
        ("tenantry-api", "tenantry-run api", "tenantry-run apis", "the command is refused"),
        ("tenantry-api", "/opt/tenantry/bin", "/usr/bin", "starts /usr/bin/tenantry-run"),
        ("tenantry-beat", "TENANTRY_PULSE_PATH", "TENANTRY_PULSE", "nobody reads TENANTRY_PULSE"),
        ("tenantry-api", "%d/redis.password", "%d/redis", "the credential redis is not both"),
        ("tenantry-api", "%d/redis.password", "secret", "REDIS_PASSWORD_FILE is no credential"),
        ("tenantry-api", "/etc/tenantry/secrets/store", "/home/s", "is not where secrets are"),
        ("tenantry-api", "tenantry.env", "settings.env", "there is no example of"),
        ("tenantry-api", "ProtectSystem=strict", "ProtectSystem=no", "ProtectSystem is not strict"),
        ("tenantry-api", "User=tenantry", "User=root", "User is not tenantry"),
        ("tenantry-beat", "=tenantry-migrate", "=tenantry-mend", "which is not there"),
        ("tenantry-api", "Wants=", "Requires=", "where tenantry-migrate.service failed it"),
        ("tenantry-worker@", "target tenantry-mig", "target #", "it does not start after tenantry"),
        ("tenantry-pgbouncer@", "StartLimitIntervalSec=0", "", "it may be given up"),
        ("tenantry-migrate", "Restart=on-failure", "", "it may be given up"),
        ("tenantry-worker@", "worker %i", "worker all-%i", "the command is refused"),
    ],
)
def test_each_rule_finds_what_breaks_it(
    tmp_path: Path, name: str, right: str, wrong: str, fault: str
) -> None:
    text = (FOLDER / f"{name}.service").read_text()
    assert right in text
    changed = tmp_path / f"{name}.service"
    changed.write_text(text.replace(right, wrong))
    found = list(faults(changed.name, read(changed), PAGE.read_text(), units()))
    assert any(fault in line for line in found), found


ASKING = ("tenantry-api.service", "tenantry-worker@.service")


@needs_systemd
@pytest.mark.parametrize("name", ASKING)
def test_systemd_takes_what_rds_adds(installed: Path, name: str) -> None:
    folder = installed / f"{name}.d"
    folder.mkdir()
    (folder / "rds.conf").write_text(WITH_RDS.read_text())
    checked = ("verify", "--man=no", f"./{INSTANCES.get(name, name)}")
    ended = analyze(installed, *checked)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    (folder / "rds.conf").write_text(WITH_RDS.read_text().replace("LoadCredential", "Credential"))
    assert "Credential" in analyze(installed, *checked).stderr


@pytest.mark.parametrize("name", ASKING)
def test_what_rds_adds_fits_each_unit(name: str) -> None:
    unit = dropped_in(units()[name], WITH_RDS)
    assert list(faults(name, unit, PAGE.read_text(), units())) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("TENANTRY_RDS_CA_PATH", "TENANTRY_RDS_CA", "nobody reads TENANTRY_RDS_CA"),
        ("/etc/tenantry/rds.env", "/etc/tenantry/aws.env", "there is no example of"),
        ("%d/aws.credentials", "/etc/aws", "AWS_SHARED_CREDENTIALS_FILE is no credential"),
        ("=aws.credentials:", "=credentials:", "the credential credentials is not both"),
        ("/etc/tenantry/secrets/aws", "/root/.aws/", "is not where secrets are"),
        ("AWS_SHARED_CREDENTIALS_FILE=%d/aws.c", "AWS_SECRET_ACCESS_KEY=c", "is no credential"),
    ],
)
def test_each_rule_finds_what_breaks_rds(
    tmp_path: Path, right: str, wrong: str, fault: str
) -> None:
    assert right in WITH_RDS.read_text()
    changed = tmp_path / "rds.conf"
    changed.write_text(WITH_RDS.read_text().replace(right, wrong))
    unit = dropped_in(units()["tenantry-api.service"], changed)
    found = list(faults("tenantry-api.service", unit, PAGE.read_text(), units()))
    assert any(fault in line for line in found), found


def test_the_settings_that_the_example_gives_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables_of(FOLDER / "rds.env").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TENANTRY_RDS_CA_PATH", raising=False)
    found = read_providers().rds
    assert found is not None
    assert (found.region, found.subnet_group) == ("eu-west-1", "clinics")
    assert len(found.security_groups) == 1
