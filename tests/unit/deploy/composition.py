"""What must hold between docker-compose.yml, the Dockerfile, the code and its configuration."""

import argparse
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import yaml

from control_plane.cli.main import main
from control_plane.config import REPOSITORY
from deploy.local.postgres import SETTINGS, TENANT_SETTINGS
from deploy.run import _parser
from deploy.secret_files import OURS, OWN, THEIRS
from tests.unit.test_configuration_page import PAGE, rows

COMPOSE = REPOSITORY / "docker-compose.yml"
WITH_RDS = REPOSITORY / "deploy" / "compose.rds.yml"
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"
Service = dict[str, Any]

_SUBSTITUTE = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
_REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]+\}")
_ADDRESS = re.compile(r"(?:^|//|@|=)([a-z][a-z0-9-]*):(\d+)(?:$|/)")
_STAGE = re.compile(r"^FROM \S+ AS (\w+)$", re.MULTILINE)
# Where each image listens; ours are told their port.
_LISTENS = {"postgres": 5432, "valkey/valkey": 6379}
# Where the image of each major keeps its cluster, one level above the data since 18.
_CLUSTERS = {"17": "/var/lib/postgresql/data", "18": "/var/lib/postgresql"}
# Gone, or without a maintainer.
_DEAD_IMAGES = ("minio", "bitnami", "latest")


def load(text: str, **given: str) -> dict[str, Any]:
    """The composition as the engine sees it: defaults put in, merges done, fragments away.

    Raises:
        KeyError: a variable that is required is not given.
    """
    text = _REQUIRED.sub(lambda found: given[found[1]], text)
    found = yaml.safe_load(_SUBSTITUTE.sub(r"\1", text))
    return {key: value for key, value in found.items() if not key.startswith("x-")}


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """What the engine makes of two files: mappings are put together, lists one behind the other."""
    found = dict(below)
    for key, value in above.items():
        there = below.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            found[key] = merged(there, value)
        else:
            both = isinstance(there, list) and isinstance(value, list)
            found[key] = [*there, *value] if both and there is not None else value
    return found


def faults(composition: dict[str, Any], dockerfile: str) -> list[str]:
    """Everything that does not fit together, one line each."""
    services: dict[str, Service] = composition["services"]
    found = list(_images(services, set(_STAGE.findall(dockerfile))))
    found += _volumes(services, set(composition["volumes"]))
    for name, service in services.items():
        checks: Iterable[Iterator[str]] = (
            _variables(service),
            _secrets(service),
            _addresses(service, services),
            _commands(service),
            _order(service, services),
            _postgres(service),
        )
        found += [f"{name}: {fault}" for check in checks for fault in check]
    return found


def is_ours(service: Service) -> bool:
    return str(service["image"]).startswith("tenantry")


def mounts(service: Service) -> dict[str, str]:
    """Each mounted volume by where it is mounted."""
    parts = [mount.split(":") for mount in service.get("volumes", [])]
    return {part[1]: part[0] for part in parts}


def environment(service: Service) -> dict[str, str]:
    found = service.get("environment", {})
    return {name: str(value) for name, value in found.items()}


def _images(services: dict[str, Service], stages: set[str]) -> Iterator[str]:
    built = {s["image"] for s in services.values() if "build" in s}
    for name, service in services.items():
        image = str(service["image"])
        if any(dead in image for dead in _DEAD_IMAGES):
            yield f"{name}: {image} is no image to rely on"
        if is_ours(service) and image not in built:
            yield f"{name}: nobody builds {image}"
        if not is_ours(service) and ":" not in image:
            yield f"{name}: {image} names no version"
        build = service.get("build")
        if build and build["target"] not in stages:
            yield f"{name}: the Dockerfile has no stage {build['target']}"
        if build and not (REPOSITORY / build["context"] / build["dockerfile"]).is_file():
            yield f"{name}: there is no {build['dockerfile']}"


def _volumes(services: dict[str, Service], declared: set[str]) -> Iterator[str]:
    mounted = {volume for service in services.values() for volume in mounts(service).values()}
    used = {volume for volume in mounted if not volume.startswith("/")}
    yield from (f"the volume {name} is not declared" for name in sorted(used - declared))
    yield from (f"nobody mounts the volume {name}" for name in sorted(declared - used))


def _variables(service: Service) -> Iterator[str]:
    documented = rows(PAGE.read_text())
    given = environment(service)
    for name, value in given.items():
        if name.startswith("TENANTRY_") and name not in documented:
            yield f"nobody reads {name}"
        if re.search(r"PASSWORD|SECRET|TOKEN|KEY$", name) and not name.endswith("_FILE"):
            yield f"{name} holds a secret"
        is_path = value.startswith("/") and name != "TENANTRY_PULSE_PATH"
        if is_path and not any(value.startswith(place) for place in mounts(service)):
            yield f"{name}={value} is in no volume"
    settings = "TENANTRY_CATALOG_DSN" in given
    if settings and not given.get("TENANTRY_REDIS_URL"):
        yield "TENANTRY_REDIS_URL is required"


def _secrets(service: Service) -> Iterator[str]:
    """Every file below /run/secrets and /run/own that is named is one that is made."""
    places = mounts(service)
    words = shlex.split(" ".join(map(str, _words(service)))) + list(environment(service).values())
    for word in words:
        for path in re.findall(r"/run/(?:secrets|own)/[a-z0-9.-]+", word):
            directory, _, file = path.rpartition("/")
            volume = places.get(directory, "")
            made = {**OURS, **THEIRS}.get(volume.removeprefix("secrets-"), {})
            own = volume == f"secrets-{OWN}" and file in {"catalog-admin", "admin.token"}
            if file not in made and not own:
                yield f"nobody makes {path}"


def _words(service: Service) -> list[str]:
    command = service.get("command") or []
    test = service.get("healthcheck", {}).get("test", [])
    return [word.replace("$$", "$") for word in [*command, *test]]


def _addresses(service: Service, services: dict[str, Service]) -> Iterator[str]:
    values = [*environment(service).values(), *map(str, service.get("command") or [])]
    for value in values:
        for host, port in _ADDRESS.findall(value):
            if host not in services:
                yield f"{value}: there is no service {host}"
            elif int(port) != _listens(services[host]):
                yield f"{value}: {host} does not listen on {port}"
    for published in service.get("ports", []):
        address, _, inside = published.rpartition(":")
        if not address.startswith("127.0.0.1:"):
            yield f"{published} is open to the network"
        if int(inside) != _listens(service):
            yield f"{published}: it does not listen on {inside}"


def _listens(service: Service) -> int | None:
    image = str(service["image"]).rpartition(":")[0]
    if image in _LISTENS:
        return _LISTENS[image]
    if port := environment(service).get("TENANTRY_POOLER_PORT"):
        return int(port)
    found = re.search(r"(?:--port |:)(\d+)", " ".join(map(str, service.get("command") or [])))
    return int(found[1]) if found else None


def parsed(words: list[str]) -> argparse.Namespace | str:
    """What ``tenantry-run`` makes of a command line, or why it refuses."""
    said = StringIO()
    with redirect_stderr(said):
        try:
            return _parser().parse_args(words)
        except SystemExit:
            return said.getvalue().splitlines()[-1]


def taken(words: list[str]) -> bool:
    """Whether ``tenantry`` knows the command and each of its options."""
    before = words[: words.index("--")] if "--" in words else words
    return main([*before, "--help"]) == 0


def _commands(service: Service) -> Iterator[str]:
    """The command and the health check are ones that the entry point takes."""
    test = service.get("healthcheck", {}).get("test", [])
    if is_ours(service) and "entrypoint" not in service:
        command = parsed(service.get("command") or [])
        if isinstance(command, str):
            yield f"the command is refused: {command}"
        elif service.get("restart") == "unless-stopped":
            yield from _health_of(service, test)


def _health_of(service: Service, test: list[str]) -> Iterator[str]:
    if test[:3] != ["CMD", "tenantry-run", "health"]:
        yield "there is no health check"
        return
    health = parsed(test[2:])
    if isinstance(health, str):
        yield f"the health check is refused: {health}"
    elif health.process != service["command"][0]:
        yield f"the health of {health.process} says nothing of {service['command'][0]}"
    elif health.process == "api" and health.port != _listens(service):
        yield "the health check asks another port"


def _order(service: Service, services: dict[str, Service]) -> Iterator[str]:
    for name, how in (service.get("depends_on") or {}).items():
        needed = services.get(name)
        if needed is None:
            yield f"it waits for {name}, which is no service"
        elif how["condition"] == "service_healthy" and "test" not in needed.get("healthcheck", {}):
            yield f"it waits for the health of {name}, which has no check"
        elif how["condition"] == "service_completed_successfully" and needed["restart"] != "no":
            yield f"it waits for the end of {name}, which goes on"


def _postgres(service: Service) -> Iterator[str]:
    image, _, major = str(service["image"]).rpartition(":")
    if image != "postgres":
        return
    if _CLUSTERS[major] not in mounts(service):
        yield f"the cluster of postgres:{major} is in {_CLUSTERS[major]}, which is no volume"
    told = dict(word[2:].split("=") for word in service["command"] if word.startswith("-c"))
    logs = {k: v for k, v in SETTINGS.items() if k.startswith(("log_statement", "log_parameter"))}
    wanted = {**TENANT_SETTINGS, **logs} if "wal_level" in str(service["command"]) else {}
    for name, value in wanted.items():
        if told.get(name) != value:
            yield f"{name} is {told.get(name)}, ./dev up has {value}"
