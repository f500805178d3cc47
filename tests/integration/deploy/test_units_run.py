"""The units where no systemd can be had: their ExecStart lines, run instead of the composition.

The catalog, its tenants and the root key are those that the composition left.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deploy.engine import Engine
from tests.integration.deploy.machine import obstacle
from tests.unit.deploy.units import FOLDER, command, environment, units, variables_of

# The first test of a run waits for everything to start, on a machine that may be busy.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(obstacle() is None, reason="a systemd runs them: test_systemd_runs.py"),
]

# What one machine would start, in the order of install.md.
STARTED = (
    ("tenantry-api.service", ""),
    ("tenantry-beat.service", ""),
    ("tenantry-worker@.service", "control"),
    ("tenantry-worker@.service", "transfer"),
    ("tenantry-pgbouncer@.service", "p1"),
    ("tenantry-pgbouncer@.service", "p2"),
    ("tenantry-agent@.service", "p1"),
    ("tenantry-agent@.service", "p2"),
)


def as_service(name: str, instance: str) -> dict[str, Any]:
    """A unit as the engine of this folder understands it: credentials are a mounted volume."""
    unit = units()[name]
    told = dict[str, str]()
    for file in unit["EnvironmentFile"]:
        told |= variables_of(FOLDER / Path(file.replace("%i", "p1")).name)
    told |= {k: v.replace("%i", instance) for k, v in environment(unit).items()}
    told = {k: v.replace("%d/", "/run/credentials/") for k, v in told.items()}
    words = command(unit, instance)
    pooler = "TENANTRY_POOLER_DIR" in told
    secrets = "secrets-agent" if pooler else "secrets-application"
    mounts = [f"{secrets}:/run/credentials", "keys:/var/lib/tenantry/keys"]
    if pooler:
        told |= {"TENANTRY_POOLER_NAME": instance, "TENANTRY_POOLER_HOST": f"pooler-{instance}"}
        mounts += [
            f"pooler-{instance}:{told['TENANTRY_POOLER_DIR']}",
            f"socket-{instance}:{told['TENANTRY_POOLER_SOCKET_DIR']}",
        ]
    port = words[words.index("--port") :] if "--port" in words else []
    for place in unit.get("RuntimeDirectory", []):
        if not pooler or "agent" in place:
            here = place.replace("%i", instance)
            mounts.append(f"{here}:/run/{here}")
    told.pop("TENANTRY_HOME")  # the engine has one
    return {
        "image": "tenantry:unit",
        "restart": "unless-stopped",
        "command": words[1:],
        "environment": told,
        "volumes": mounts,
        "stop_signal": unit.get("KillSignal", ["SIGTERM"])[0],
        "healthcheck": {"test": ["CMD", "tenantry-run", "health", words[1], *port]},
    }


@pytest.fixture(scope="module")
def machine(engine: Engine) -> Iterator[Engine]:
    """The units of one machine instead of the composition."""
    engine.down()
    engine.running.clear()
    services = {
        name.removeprefix("tenantry-").replace("@", f"-{i}").removesuffix(".service"): (
            as_service(name, i)
        )
        for name, i in STARTED
    }
    services["cli"] = engine.services["cli"]
    addresses = engine.addresses | {
        "catalog.example.org": engine.addresses["catalog"],
        "redis.example.org": engine.addresses["redis"],
        "s3.example.org": engine.addresses["store"],
    }
    running = Engine(services, engine.base, addresses, engine.settings)
    try:
        running.up()
        yield running
    finally:
        running.down()


def test_they_serve_what_the_composition_left(machine: Engine) -> None:
    assert len(machine.running) == len(STARTED)
    assert json.loads(machine.run("cli", "doctor", "--json"))["healthy"]
    who = machine.run("cli", "psql", "demo-clinic", "--", "-Atc", "SELECT 1 + 1")
    assert who == "2\n"
    machine.run("cli", "tenants", "create", "unit-clinic", "--name", "Unit", "--wait")
    machine.run("cli", "backup", "unit-clinic", "--wait")


def test_a_worker_that_is_ended_leaves_its_work_to_the_next(machine: Engine) -> None:
    name = "worker-control"
    machine.running[name].kill()
    machine.running[name].wait()
    asked = json.loads(
        machine.run("cli", "tenants", "create", "late-clinic", "--name", "Late", "--json")
    )
    machine.start(name)
    machine.run("cli", "operations", "watch", asked["id"])
    shown = json.loads(machine.run("cli", "tenants", "show", "late-clinic", "--json"))
    assert shown["state"] == "active"
