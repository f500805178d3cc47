"""Who in the Helm chart is known to Kubernetes and to providers, and what that lets them do."""

from collections.abc import Iterator, Mapping
from typing import Any

Manifest = dict[str, Any]
_COMPONENT = "app.kubernetes.io/component"
_ASKING = ("api", "worker-control", "worker-transfer")
_TO_CLUSTERS = (*_ASKING, "pooler")


def grants(manifests: list[Manifest], templates: Mapping[str, Manifest]) -> Iterator[str]:
    """What does not fit between accounts, their rights, and the pods that have them."""
    accounts = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "ServiceAccount"}
    for name, account in accounts.items():
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {name}: every pod of it is given a token"
    for name, pod in templates.items():
        yield from (f"{name}: {fault}" for fault in _pod(pod, accounts))
    yield from _roles(manifests, accounts)
    spaces = {env.get("TENANTRY_CNPG_NAMESPACE") for pod in templates.values() for env in told(pod)}
    for space in sorted(filter(None, spaces)):
        yield from _reached(space, manifests, templates)


def told(pod: Manifest) -> list[dict[str, str]]:
    """The environment of each of its containers."""
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return [{e["name"]: str(e.get("value", "")) for e in c.get("env", [])} for c in containers]


def tokens(pod: Manifest) -> set[str]:
    """The volumes of a pod that hold a token of its account."""
    return {
        volume["name"]
        for volume in pod["spec"].get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }


def _pod(pod: Manifest, accounts: Mapping[str, Manifest]) -> Iterator[str]:
    spec, component = pod["spec"], pod["metadata"]["labels"][_COMPONENT]
    if spec["serviceAccountName"] not in accounts:
        yield f"there is no ServiceAccount {spec['serviceAccountName']}"
    asks = any(name.startswith(_OF_PROVIDERS) for env in told(pod) for name in env)
    if asks != (component in _ASKING and len(accounts) > 1):
        yield "it is told of providers, or is not, against its part"
    given = [
        container["name"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]
        for mount in container.get("volumeMounts", [])
        if mount["name"] in tokens(pod)
    ]
    wanted = any("TENANTRY_CNPG_NAMESPACE" in env for env in told(pod))
    if given != ([spec["containers"][0]["name"]] if wanted else []):
        yield f"a token is given to {given}"


_OF_PROVIDERS = ("TENANTRY_CNPG_", "TENANTRY_RDS_", "TENANTRY_KUBERNETES_")


def _roles(manifests: list[Manifest], accounts: Mapping[str, Manifest]) -> Iterator[str]:
    roles = {_place(m): m for m in manifests if m["kind"] == "Role"}
    bound = set()
    for binding in (m for m in manifests if m["kind"] == "RoleBinding"):
        space, name = _place(binding)
        if (space, binding["roleRef"]["name"]) not in roles:
            yield f"RoleBinding {name}: there is no Role {binding['roleRef']['name']} in {space}"
        bound.add((space, binding["roleRef"]["name"]))
        for subject in binding["subjects"]:
            account = accounts.get(subject["name"])
            if account is None or subject["namespace"] != "saas":
                yield f"RoleBinding {name}: there is no ServiceAccount {subject['name']}"
            elif "helm.sh/hook" in account["metadata"].get("annotations", {}):
                yield f"ServiceAccount {subject['name']}: an upgrade would end its tokens"
    yield from (f"nobody is bound to Role {name}" for _, name in sorted(set(roles) - bound))


def rights(role: Manifest) -> set[tuple[str, str, str]]:
    """Verb, group and resource of everything that a role allows."""
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _reached(
    space: str, manifests: list[Manifest], templates: Mapping[str, Manifest]
) -> Iterator[str]:
    """Those who ask reach the API server, and all who connect the Clusters."""
    roles = [m for m in manifests if m["kind"] == "Role"]
    if {role["metadata"]["namespace"] for role in roles} != {space}:
        yield f"the roles are not of the namespace {space}"
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    if not policies:
        return
    for name, pod in templates.items():
        component = pod["metadata"]["labels"][_COMPONENT]
        ways = [rule for p in policies if _selected(component, p) for rule in p.get("egress", [])]
        if component in _ASKING and not any(6443 in _ports(way) for way in ways):
            yield f"{name}: it does not reach the API server"
        if component in _TO_CLUSTERS and not any(_leads_to(space, way) for way in ways):
            yield f"{name}: it does not reach the Clusters in {space}"
        if component not in _TO_CLUSTERS and any("to" in w and _leads_to(space, w) for w in ways):
            yield f"{name}: it has nothing to do with Clusters"


def _selected(component: str, policy: Manifest) -> bool:
    """By its expressions; a policy without any may still name one component."""
    selector = policy["podSelector"]
    for expression in selector.get("matchExpressions", []):
        if (expression["key"], expression["operator"]) != (_COMPONENT, "In"):
            return False
        if component not in expression["values"]:
            return False
    return bool(selector["matchLabels"].get(_COMPONENT, component) == component)


def _ports(way: Manifest) -> set[int]:
    return {port["port"] for port in way.get("ports", [])}


def _leads_to(space: str, way: Manifest) -> bool:
    peers = [peer.get("namespaceSelector", {}).get("matchLabels", {}) for peer in way.get("to", [])]
    return {"kubernetes.io/metadata.name": space} in peers and 5432 in _ports(way)


def _place(manifest: Manifest) -> tuple[str, str]:
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]
