"""The Helm chart as Kubernetes is given it, and what must hold between its parts and the code."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from control_plane.config import REPOSITORY
from tests.unit.deploy.composition import parsed
from tests.unit.deploy.granted import grants
from tests.unit.test_configuration_page import PAGE, rows

CHART = REPOSITORY / "deploy" / "helm" / "tenantry"
VALUES: dict[str, Any] = {
    "settings": {
        "TENANTRY_CATALOG_DSN": "postgresql://tenantry@catalog.example.org:5432/tenantry",
        "TENANTRY_REDIS_URL": "rediss://redis.example.org:6379/0",
        "TENANTRY_BACKUP_STORE": "s3://clinics/backups",
        "TENANTRY_USAGE_SECONDS": 15,
    },
    "api": {"ingress": {"enabled": True, "host": "clinics.example.org", "tlsSecret": "tls"}},
    "networkPolicy": {"poolerFrom": [{"podSelector": {"matchLabels": {"app": "clinic"}}}]},
    "serviceMonitor": {"enabled": True},
}
# The oldest that the chart takes, and the newest whose schema is known here.
VERSIONS = ("1.29", "1.37")
SECRETS = {
    "tenantry": {"catalog.password", "redis.password", "root.keys", "store.json"},
    "tenantry-pooler": {"catalog.password", "console.password"},
}
IMAGES = {"tenantry:0.1.0", "tenantry-pooler:0.1.0"}
_SECRETS = "/etc/tenantry/secrets"
# The cluster and EKS mount tokens below: into a volume that is only read no directory is made.
_OF_TOKENS = {"/run", "/run/secrets", "/var/run", "/var/run/secrets"}
_PULSED = {"worker", "beat", "pooler-agent", "pgbouncer"}
Manifest = dict[str, Any]


class NotRendered(Exception):
    """Helm refuses the chart or its values; the message is Helm's."""


def helm(*arguments: str) -> str:
    """What Helm prints.

    Raises:
        NotRendered: it refuses.
    """
    program = Path(sys.executable).with_name("helm")
    ended = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)
    if ended.returncode != 0:
        raise NotRendered(ended.stdout + ended.stderr)
    return ended.stdout


def render(folder: Path, values: Mapping[str, Any], chart: Path = CHART) -> list[Manifest]:
    """Every manifest; ``folder`` is for the file with the values.

    Raises:
        NotRendered: the values are refused, or a template is wrong.
    """
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    text = helm("template", "clinic", str(chart), "--namespace", "saas", "--values", str(file))
    return [found for found in yaml.safe_load_all(text) if found]


def faults(manifests: list[Manifest]) -> list[str]:
    """Everything that does not fit together, one line each."""
    found = list(against_schemas(manifests))
    templates = pods(manifests)
    for name, pod in templates.items():
        found += [f"{name}: {fault}" for fault in _pod(pod)]
    for manifest in manifests:
        place = f"{manifest['kind']} {manifest['metadata']['name']}"
        found += [f"{place}: {fault}" for fault in _selects(manifest, manifests, templates)]
    return [*found, *_budgets(manifests, templates), *grants(manifests, templates)]


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Every pod, or template of one, by the kind and name of what makes it."""
    found = {}
    for manifest in manifests:
        if manifest["kind"] in {"Pod", "Job", "Deployment", "StatefulSet"}:
            pod = manifest if manifest["kind"] == "Pod" else manifest["spec"]["template"]
            found[f"{manifest['kind']} {manifest['metadata']['name']}"] = pod
    return found


def environment(container: Manifest) -> dict[str, str]:
    return {one["name"]: str(one.get("value", "")) for one in container.get("env", [])}


def against_schemas(manifests: list[Manifest]) -> Iterator[str]:
    """What Kubernetes, the oldest and the newest, says against a manifest."""
    for manifest in manifests:
        where = f"{manifest['kind']} {manifest['metadata']['name']}"
        if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        for version in VERSIONS:
            if complaint := _complaint(yaml.safe_dump(manifest), version):
                yield f"{where}: Kubernetes {version}: {complaint}"


@cache
def _complaint(manifest: str, version: str) -> str | None:
    from kubernetes_validate import ValidationError, validate  # noqa: PLC0415 - on this platform only

    try:
        validate(yaml.safe_load(manifest), version, strict=True)
    except ValidationError as error:
        return str(error.message)
    return None


def _pod(pod: Manifest) -> Iterator[str]:
    spec = pod["spec"]
    if spec["securityContext"].get("runAsNonRoot") is not True:
        yield "it may run as root"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it is given a token of the cluster"
    declared = {volume["name"] for volume in spec.get("volumes", [])}
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    used = {m["name"] for c in containers for m in c.get("volumeMounts", [])}
    yield from (f"nobody mounts {name}" for name in sorted(declared - used))
    yield from (f"there is no volume {name}" for name in sorted(used - declared))
    secrets = [v["secret"]["secretName"] for v in spec.get("volumes", []) if "secret" in v]
    known = set().union(*(SECRETS[name] for name in secrets))
    for container in containers:
        checks = (_rights(container), _variables(container, known), _command(container))
        yield from (f"{container['name']}: {fault}" for check in checks for fault in check)


def _rights(container: Manifest) -> Iterator[str]:
    if container["image"] not in IMAGES:
        yield f"{container['image']} is no image of ours"
    given = container["securityContext"]
    if given.get("capabilities") != {"drop": ["ALL"]}:
        yield "it keeps capabilities"
    if given.get("readOnlyRootFilesystem") is not True:
        yield "it may change its image"
    if given.get("allowPrivilegeEscalation") is not False:
        yield "it may gain rights"


def _variables(container: Manifest, known: set[str]) -> Iterator[str]:
    documented = rows(PAGE.read_text())
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    for name, value in environment(container).items():
        if name not in documented:
            yield f"nobody reads {name}"
        if re.search(r"PASSWORD|CREDENTIALS|KEYRING", name):
            if value.removeprefix(f"{_SECRETS}/") not in known:
                yield f"{name}: no Secret has {value}"
        elif value.startswith("/") and not any(value.startswith(place) for place in mounts):
            yield f"{name}={value} is in no volume"
    for place in sorted(_OF_TOKENS.intersection(mounts)):
        yield f"a volume at {place} is in the way of tokens"
    if mounts and "/tmp" not in mounts and "env" in container:  # noqa: S108 - a container's own
        yield "it has no place for its pulse and other passing files"


def _command(container: Manifest) -> Iterator[str]:
    """The command and the probes are ones that the entry point and the API take."""
    if "command" in container:
        return
    command = parsed(container["args"])
    if isinstance(command, str):
        yield f"the command is refused: {command}"
        return
    process = container["args"][0]
    if "resources" not in container or "memory" not in container["resources"]["limits"]:
        yield "its memory has no limit"
    if process in _PULSED:
        yield from _pulse(container, process)
    elif process == "api":
        yield from _answers(container, command.port)


def _pulse(container: Manifest, process: str) -> Iterator[str]:
    for probe in ("startupProbe", "livenessProbe"):
        words = container.get(probe, {}).get("exec", {}).get("command", [])
        health = parsed(words[1:]) if words[:1] == ["tenantry-run"] else "not ours"
        if isinstance(health, str):
            yield f"the {probe} is refused: {health}"
        elif health.process != process:
            yield f"the health of {health.process} says nothing of {process}"


def _answers(container: Manifest, port: int) -> Iterator[str]:
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    wanted = {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    for probe, path in wanted.items():
        asked = container.get(probe, {}).get("httpGet", {})
        if asked.get("path") != path or ports.get(asked.get("port")) != port:
            yield f"the {probe} asks {asked.get('path')} at {asked.get('port')}"


def _selects(
    manifest: Manifest, manifests: list[Manifest], templates: dict[str, Manifest]
) -> Iterator[str]:
    """A selector finds the pods it is for, and they have the ports that are named."""
    if manifest["kind"] in {"Ingress", "ServiceMonitor"}:
        yield from _leads_to(manifest, manifests)
    elif manifest["kind"] in _SELECTING:
        wanted, ports = _SELECTING[manifest["kind"]](manifest["spec"])
        found = [pod for pod in templates.values() if _has(pod, wanted)]
        if not found:
            yield "it selects no pod"
        missing = [port for port in ports if not all(port in _ports(pod) for pod in found)]
        yield from (f"its pods have no port {port}" for port in missing)
    if manifest["kind"] == "StatefulSet":
        yield from _names(manifest["spec"], manifests)


def _of_policy(spec: Manifest) -> tuple[Mapping[str, str], list[str]]:
    ports = [port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]]
    return spec["podSelector"]["matchLabels"], ports


_SELECTING: dict[str, Callable[[Manifest], tuple[Mapping[str, str], list[str]]]] = {
    "Service": lambda spec: (spec["selector"], [port["targetPort"] for port in spec["ports"]]),
    "NetworkPolicy": _of_policy,
    "PodDisruptionBudget": lambda spec: (spec["selector"]["matchLabels"], []),
    "Deployment": lambda spec: (spec["selector"]["matchLabels"], []),
    "StatefulSet": lambda spec: (spec["selector"]["matchLabels"], []),
}


def _leads_to(manifest: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """An Ingress and a ServiceMonitor find a Service with the port they name."""
    services = [one for one in manifests if one["kind"] == "Service"]
    if manifest["kind"] == "Ingress":
        (rule,) = manifest["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        found = [one for one in services if one["metadata"]["name"] == backend["name"]]
        port = backend["port"]["name"]
    else:
        wanted = manifest["spec"]["selector"]["matchLabels"]
        found = [one for one in services if _has(one, wanted)]
        port = manifest["spec"]["endpoints"][0]["port"]
    if not found:
        yield "it leads to no Service"
    elif port not in {one["name"] for one in found[0]["spec"]["ports"]}:
        yield f"its Service has no port {port}"


def _names(spec: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """Poolers are reached by names that their Service gives them, ready or not."""
    found = [m for m in manifests if m["kind"] == "Service"]
    service = {m["metadata"]["name"]: m["spec"] for m in found}.get(spec["serviceName"], {})
    if service.get("clusterIP") != "None" or not service.get("publishNotReadyAddresses"):
        yield "its Service does not name each of its pods"
    for container in spec["template"]["spec"]["containers"]:
        host = environment(container)["TENANTRY_POOLER_HOST"]
        if host != f"$(TENANTRY_POOLER_NAME).{spec['serviceName']}.saas.svc.cluster.local":
            yield f"{host} is not the name of a pod"


def _budgets(manifests: list[Manifest], templates: dict[str, Manifest]) -> Iterator[str]:
    budgets = [m["spec"] for m in manifests if m["kind"] == "PodDisruptionBudget"]
    for name, pod in templates.items():
        covered = [b for b in budgets if _has(pod, b["selector"]["matchLabels"])]
        if name.startswith(("Deployment", "StatefulSet")) and len(covered) != 1:
            yield f"{name}: {len(covered)} budgets say how many may be away"
        if any(budget.get("maxUnavailable") != 1 for budget in covered):
            yield f"{name}: its budget may stop a machine from being drained"


def _has(thing: Manifest, wanted: Mapping[str, str]) -> bool:
    return bool(wanted.items() <= thing["metadata"]["labels"].items())


def _ports(pod: Manifest) -> set[str]:
    return {port["name"] for c in pod["spec"]["containers"] for port in c.get("ports", [])}
