"""Runs the services of docker-compose.yml that are ours as processes, in the order it asks for.

Volumes are directories, the names of services are ports of this machine, and the servers of other
projects are those of a local stack.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.account import service_account
from deploy.local.ports import LOOPBACK
from tests.integration.router.processes import free_port
from tests.unit.deploy.composition import environment, is_ours, mounts

READY_SECONDS = 120.0
BIN = Path(sys.executable).parent
Service = dict[str, Any]
_TEMPORARY = "/tmp/"  # noqa: S108 - in a container it is the container's own
_OF_THE_IMAGE = frozenset({"TENANTRY_POSTGRES_PROGRAMS"})


class EngineError(Exception):
    """A service ended, failed or never became healthy; the message is the end of its log."""


@dataclass
class Engine:
    """One run of a composition; ``addresses`` are those of services that run elsewhere."""

    services: Mapping[str, Service]
    base: Path
    addresses: dict[str, int]
    settings: Mapping[str, str]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def volume(self, name: str) -> Path:
        kind, _, rest = name.partition("-")
        place = self.base / "secrets" / rest if kind == "secrets" else self.base / "volumes" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def up(self) -> None:
        """Start every service of ours, each when what it waits for is there."""
        for name in self._in_order():
            service = self.services[name]
            if not is_ours(service) or service.get("profiles"):
                continue
            if service["restart"] == "no":
                self.run(name)
            else:
                self.start(name)
                self.wait_healthy(name)

    def run(self, name: str, *arguments: str) -> str:
        """Run a service to its end; what it printed."""
        service = self.services[name]
        entrypoint = service.get("entrypoint", ["tenantry-run"])
        command = self._words(name, [*entrypoint, *(arguments or service["command"])])
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, env=self._environment(name)
        )
        if ended.returncode != 0:
            raise EngineError(f"{name} ended with {ended.returncode}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def healthy(self, name: str) -> str | None:
        """What the health check of the service complains of; ``None`` if nothing."""
        words = self._words(name, self.services[name]["healthcheck"]["test"][1:])
        ended = subprocess.run(
            words, check=False, capture_output=True, text=True, env=self._environment(name)
        )
        return None if ended.returncode == 0 else ended.stderr.strip()

    def wait_healthy(self, name: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while (complaint := self.healthy(name)) is not None:
            ended = self.running[name].poll()
            if ended is not None or time.monotonic() > deadline:
                log = (self.base / f"{name}.log").read_text()[-3000:]
                raise EngineError(f"{name} ({ended}): {complaint}\n{log}")
            time.sleep(0.2)

    def down(self) -> dict[str, int]:
        """End everything, the last first; exit codes by service."""
        codes = {}
        for name, process in reversed(self.running.items()):
            process.send_signal(signal.Signals[self.services[name].get("stop_signal", "SIGTERM")])
            codes[name] = process.wait(timeout=60)
        return codes

    def start(self, name: str) -> None:
        with (self.base / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self._words(name, ["tenantry-run", *self.services[name]["command"]]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(name),
                cwd=self.base,
            )

    def _in_order(self) -> Iterator[str]:
        done: set[str] = set()
        while waiting := [name for name in self.services if name not in done]:
            for name in waiting:
                if set(self.services[name].get("depends_on") or {}) <= done:
                    done.add(name)
                    yield name

    def _environment(self, name: str) -> dict[str, str]:
        service, told = self.services[name], dict[str, str]()
        for variable, value in environment(service).items():
            told[variable] = self._here(service, value)
        if "TENANTRY_POOLER_NAME" in told:
            told["TENANTRY_POOLER_HOST"] = LOOPBACK
            pooler = environment(service)["TENANTRY_POOLER_HOST"]
            told["TENANTRY_POOLER_PORT"] = str(self._port(pooler))
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
        return {
            **kept,
            "PATH": f"{self._wrappers()}:{BIN}:{kept['PATH']}:/usr/sbin",
            "TENANTRY_HOME": str(self.volume("home")),
            "TENANTRY_PULSE_PATH": str(self.base / f"{name}.pulse"),
            **told,
            **{k: v for k, v in self.settings.items() if k in told or k in _OF_THE_IMAGE},
        }

    def _words(self, name: str, command: list[str]) -> list[str]:
        """A command line with paths and addresses of this machine."""
        service, words, host = self.services[name], list[str](), name
        for word in command:
            here = self._here(service, word)
            if words and words[-1] == "--host":
                host, here = (word if word in self.addresses else host), LOOPBACK
            elif words and words[-1] == "--port":
                here = str(self._port(host))
            elif words and words[-1] in {"--uid", "--gid"} and os.geteuid() != 0:
                here = str(os.geteuid() if words[-1] == "--uid" else os.getegid())
            words.append(here)
        return [*words, "--host", LOOPBACK] if words[1:2] == ["api"] else words

    def _here(self, service: Service, text: str) -> str:
        if text == "/secrets":
            return str(self.base / "secrets")
        places = mounts(service)
        for place in sorted(places, key=len, reverse=True):
            if text == place or text.startswith(place + "/"):
                return str(self.volume(places[place])) + text.removeprefix(place)
        if text.startswith(_TEMPORARY):
            return str(self.base / text.removeprefix(_TEMPORARY))
        for other in {**self.services, **self.addresses}:
            for port in (5432, 6379, 9000, 8000):
                if f"{other}:{port}" in text:
                    text = text.replace(f"{other}:{port}", f"{LOOPBACK}:{self._port(other)}")
        return text

    def _port(self, service: str) -> int:
        if service not in self.addresses:
            self.addresses[service] = free_port()
        return self.addresses[service]

    def _wrappers(self) -> Path:
        """Root steps down for PgBouncer, which refuses it; the image has another account anyway."""
        place, account = self.base / "bin", service_account()
        place.mkdir(exist_ok=True)
        wrapper, found = place / "pgbouncer", shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
        if account is not None and not wrapper.exists():
            step_down = f"exec setpriv --reuid={account.name} --regid={account.gid} --init-groups"
            wrapper.write_text(f'#!/bin/sh\n{step_down} {found} "$@"\n')
            wrapper.chmod(0o755)
            for name in ("pooler-p1", "pooler-p2", "socket-p1", "socket-p2"):
                os.chown(self.volume(name), account.uid, pwd.getpwnam(account.name).pw_gid)
                self.volume(name).chmod(0o700)
        return place
