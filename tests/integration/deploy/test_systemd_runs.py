"""The units under a real systemd, installed by the commands of docs/install.md."""

import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from control_plane.config import REPOSITORY
from deploy.local.options import StackOptions
from deploy.local.stack import Stack
from tests.integration.deploy.conftest import bare_servers
from tests.integration.deploy.install_page import PAGE, blocks, typed
from tests.integration.deploy.machine import CHECKOUT, Machine, booted, obstacle
from tests.integration.router.processes import free_port

OBSTACLE = obstacle()
# Installing takes its time, and the first test pays for it.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE)),
]

SERVICES = ("tenantry-api", "tenantry-beat", "tenantry-worker@control", "tenantry-worker@transfer")
POOLER = ("tenantry-pgbouncer@p1", "tenantry-agent@p1")
OTHERS = ("catalog", "redis", "s3", "pooler1", "pg-a", "pg-b")
SECRETS = "/etc/tenantry/secrets"
UPGRADE = (REPOSITORY / "deploy" / "runbooks" / "rolling-upgrade.md").read_text()
RELEASE = "pyproject.toml uv.lock README.md LICENSE control_plane workers tenant_template deploy"


@dataclass(frozen=True)
class Installed:
    """A machine on which Tenantry was installed, and what its administrator knows."""

    machine: Machine
    token: str
    api_port: int

    @property
    def settings(self) -> str:
        """What the CLI wants to know."""
        url = f"http://127.0.0.1:{self.api_port}"
        return f"export TENANTRY_URL={url} TENANTRY_TOKEN={self.token};"

    def tenantry(self, *words: str) -> Any:
        """What a command of the CLI printed as JSON."""
        command = f"/opt/tenantry/bin/tenantry {' '.join(words)} --json"
        return json.loads(self.machine.run(f"{self.settings} {command}"))

    def wait_healthy(self, seconds: float = 120.0) -> None:
        """Until the doctor finds nothing: that beat and workers go on is seen a moment later."""
        deadline = time.monotonic() + seconds
        while not (report := self.tenantry("doctor"))["healthy"]:
            assert time.monotonic() < deadline, report
            time.sleep(0.2)

    def dsn(self, slug: str) -> str:
        return str(self.tenantry("dsn", slug)["dsn"])

    def wait_answering(self, seconds: float = 120.0) -> None:
        """Until the API is ready; a unit is active before its process listens."""
        ready, deadline = (
            f"http://127.0.0.1:{self.api_port}/health/ready",
            time.monotonic() + seconds,
        )
        while True:
            try:
                httpx.get(ready, timeout=10).raise_for_status()
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def answers(self, dsn: str, seconds: float = 60.0) -> str:
        """What the database behind the DSN says its name is, however long it has to be asked."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with psycopg.connect(dsn, hostaddr="127.0.0.1", connect_timeout=5) as connection:
                    row = connection.execute("SELECT current_database()").fetchone()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                assert row is not None
                return str(row[0])


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tenantry-systemd-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(scope="module")
def others(place: Path) -> Iterator[dict[str, Any]]:
    """Catalog, two tenant servers, Redis and the store: on other machines, as it were."""
    with bare_servers(place / "stack") as facts:
        yield facts


@pytest.fixture(scope="module")
def installed(place: Path, others: dict[str, Any]) -> Iterator[Installed]:
    with booted(place / "machine") as machine:
        yield install(machine, others)


def install(machine: Machine, others: dict[str, Any]) -> Installed:
    """Type the page, block by block."""
    api_port, pooler_port = free_port(), free_port()
    programs, first, processes = blocks(PAGE.read_text())
    furnish(machine, others)
    machine.run(typed(programs, {"/path/to/this/repository": CHECKOUT}))
    write_addresses(machine, others, api_port)
    said = machine.run(
        typed(
            first,
            {
                "--host catalog.example.org --admin postgres": "--host catalog.example.org "
                f"--port {others['catalog']['port']} --admin {others['catalog']['admin_user']}",
                "--admin-password-file FILE": "--admin-password-file /root/catalog-admin",
                "--to DIRECTORY": "--to /root/escrow",
            },
        )
    )
    done = Installed(machine, said.split()[-1], api_port)
    same_shell = first.partition("/opt/tenantry/bin/tenantry-run prepare")[0]
    start, adding, doctor = processes.partition("\ntenantry servers add ")
    pooler = "/etc/tenantry/pooler-p1.env"
    port = f"{pooler}; sed -i 's/=6432/={pooler_port}/' {pooler}"
    machine.run(f"cd {CHECKOUT}; {typed(start, {pooler: port})}")
    for unit in (*SERVICES, *POOLER):
        machine.wait_state(unit, "active")
    done.wait_answering()
    for server in others["servers"]:
        add_server(done, server, adding + doctor.splitlines()[0])
    machine.run(same_shell + "\n".join(doctor.splitlines()[1:]))
    return done


def furnish(machine: Machine, others: dict[str, Any]) -> None:
    """What the page has from Debian, and the names and secrets that its reader brings."""
    names = ("localhost", *(f"{name}.example.org" for name in OTHERS))
    machine.write("/etc/hosts", "".join(f"127.0.0.1 {name}\n" for name in names))
    for server in others["servers"]:
        programs = str(Path(server["bin_dir"]).parent).replace(str(REPOSITORY), CHECKOUT)
        debian = f"/usr/lib/postgresql/{server['version']}"
        machine.run(f"test -e {debian} || ln -s {programs} {debian}")
    catalog, redis = others["catalog"], others["redis"]
    for path, content in (
        (f"{SECRETS}/catalog.password", secrets.token_urlsafe()),
        (f"{SECRETS}/redis.password", Path(redis["password_file"]).read_text()),
        (f"{SECRETS}/store.json", Path(others["object_store"]["credentials_file"]).read_text()),
        (f"{SECRETS}/console.password", secrets.token_urlsafe()),
        ("/root/catalog-admin", Path(catalog["admin_password_file"]).read_text()),
    ):
        machine.write(path, content, 0o600)


def write_addresses(machine: Machine, others: dict[str, Any], api_port: int) -> None:
    """What the page leaves to an editor."""
    path = "/etc/tenantry/tenantry.env"
    text = machine.run(f"cat {path}")
    ports = {
        "catalog.example.org:5432": others["catalog"]["port"],
        "redis.example.org:6379": others["redis"]["port"],
        "s3.example.org:9000": others["object_store"]["url"].rpartition(":")[2],
    }
    for address, port in ports.items():
        assert address in text
        text = text.replace(address, f"{address.partition(':')[0]}:{port}")
    told = "TENANTRY_SERVER_NETWORKS=127.0.0.1/32\nTENANTRY_LEASE_SECONDS=2\n"
    machine.write(path, text + told)
    api = "/etc/systemd/system/tenantry-api.service.d/port.conf"
    start = f"/opt/tenantry/bin/tenantry-run api --host 127.0.0.1 --port {api_port}"
    machine.write(api, f"[Service]\nExecStart=\nExecStart={start}\n")


def add_server(done: Installed, server: dict[str, Any], line: str) -> None:
    """A line of the page, for one server."""
    password = Path(server["admin_password_file"]).read_text()
    done.machine.write("/root/server", password, 0o600)
    name, address = server["name"], "pg-a.example.org"
    said = {
        "tenantry servers": "/opt/tenantry/bin/tenantry servers",
        f"add pg-a --host {address}": f"add {name} --host {name}.example.org "
        f"--port {server['port']}",
        "--user tenantry_admin": f"--user {server['admin_user']}",
    }
    told = f"{done.settings} export TENANTRY_SERVER_PASSWORD_FILE=/root/server;"
    done.machine.run(f"{told} {typed(line.strip(), said)}")


def of_unit(machine: Machine, unit: str, wanted: str) -> str:
    return machine.run(f"systemctl show --property={wanted} --value {unit}").strip()


def test_a_clinic_is_provisioned_backed_up_and_restored(installed: Installed) -> None:
    installed.tenantry("tenants", "create", "unit-clinic", "--name", "Unit", "--wait")
    assert installed.answers(installed.dsn("unit-clinic")).startswith("t_")
    installed.tenantry("backup", "unit-clinic", "--wait")
    installed.tenantry("restore", "unit-clinic", "--in-place", "--yes", "--wait")
    assert installed.answers(installed.dsn("unit-clinic")).startswith("t_")
    assert installed.tenantry("check")["findings"] == []


def test_the_doctor_finds_the_machine_healthy(installed: Installed) -> None:
    report = installed.tenantry("doctor")
    assert report["healthy"], report


@pytest.mark.parametrize("unit", [*SERVICES, *POOLER])
def test_a_process_has_no_right_that_it_does_not_need(installed: Installed, unit: str) -> None:
    pid = of_unit(installed.machine, unit, "MainPID")
    status = dict(
        line.split(":", 1) for line in installed.machine.run(f"cat /proc/{pid}/status").splitlines()
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert status["Uid"].split()[0] == installed.machine.run("id -u tenantry").strip()
    inside = f"nsenter --target={pid} --mount setpriv --reuid=tenantry --clear-groups"
    installed.machine.run(f"! {inside} touch /usr/here /etc/here 2>/dev/null")
    installed.machine.run(f"! {inside} cat {SECRETS}/catalog.password 2>/dev/null")


def test_no_secret_is_in_an_environment(installed: Installed) -> None:
    files = installed.machine.run(f"cd {SECRETS}; head -qc 100 *.password").strip()
    for unit in (*SERVICES, *POOLER):
        group = of_unit(installed.machine, unit, "ControlGroup")
        told = installed.machine.run(
            f"for pid in $(cat '/sys/fs/cgroup{group}/cgroup.procs'); do "
            "cat /proc/$pid/environ /proc/$pid/cmdline; done"
        )
        assert "TENANTRY_CATALOG_PASSWORD_FILE=/run/credentials/" in told
        assert [secret for secret in files.splitlines() if secret in told] == [], unit


def test_what_is_killed_is_started_again_and_goes_on(installed: Installed) -> None:
    asked = installed.tenantry("tenants", "create", "killed-clinic", "--name", "Killed")
    for unit in (*SERVICES, *POOLER):
        installed.machine.run(f"systemctl kill --signal=SIGKILL --kill-who=all {unit}")
    for unit in (*SERVICES, *POOLER):
        installed.machine.wait_state(unit, "active")
        assert int(of_unit(installed.machine, unit, "NRestarts")) > 0
    installed.wait_answering()
    installed.tenantry("operations", "watch", asked["id"])
    assert installed.answers(installed.dsn("killed-clinic")).startswith("t_")
    assert installed.tenantry("check")["findings"] == []


def test_everything_stops_in_order_and_comes_back_with_the_machine(installed: Installed) -> None:
    installed.machine.run("systemctl stop 'tenantry-*'")
    for unit in (*SERVICES, *POOLER):
        assert of_unit(installed.machine, unit, "Result") == "success", unit
    installed.machine.run("systemctl start multi-user.target")
    for unit in (*SERVICES, *POOLER):
        installed.machine.wait_state(unit, "active")
    installed.wait_answering()
    assert installed.answers(installed.dsn("unit-clinic")).startswith("t_")
    assert installed.tenantry("check")["findings"] == []


def test_a_machine_that_boots_before_the_catalog_waits_for_it(
    installed: Installed, others: dict[str, Any]
) -> None:
    machine, servers = installed.machine, Stack(StackOptions(home=Path(others["state_dir"])))
    machine.run("systemctl stop 'tenantry-*'")
    servers.halt("catalog")
    try:
        machine.run("systemctl start multi-user.target")
        for unit in SERVICES:
            machine.wait_state(unit, "active")
        wait_restarted(machine, "tenantry-migrate")
    finally:
        servers.restart("catalog")
    machine.wait_state("tenantry-migrate", "inactive")
    assert of_unit(machine, "tenantry-migrate", "Result") == "success"
    installed.wait_answering()
    installed.tenantry("tenants", "create", "boot-clinic", "--name", "Boot", "--wait")
    installed.tenantry("backup", "boot-clinic", "--wait")
    assert installed.answers(installed.dsn("boot-clinic")).startswith("t_")
    installed.wait_healthy()


def wait_restarted(machine: Machine, unit: str, seconds: float = 60.0) -> None:
    """Until systemd has tried the unit again at least twice."""
    deadline = time.monotonic() + seconds
    while int(of_unit(machine, unit, "NRestarts")) < 2:
        assert time.monotonic() < deadline, machine.journal(unit)
        time.sleep(0.2)


def test_an_upgrade_installs_code_that_changed(installed: Installed) -> None:
    """By the command of the run book, though the version is the same."""
    heading = "## 2. The new release on one machine, and the migration"
    (line,) = [one for one in blocks(UPGRADE, heading)[0].splitlines() if "uv sync" in one]
    upgrade = f"cd /root/release; {line}"
    installed.machine.run(f"mkdir /root/release; cd {CHECKOUT}; cp -r {RELEASE} /root/release")
    installed.machine.run(upgrade)
    installed.machine.run("echo '# of the next release' >>/root/release/deploy/health.py")
    installed.machine.run(upgrade)
    code = "/opt/tenantry/lib/python3*/site-packages/deploy/health.py"
    assert "# of the next release" in installed.machine.run(f"tail -n 1 {code}")
