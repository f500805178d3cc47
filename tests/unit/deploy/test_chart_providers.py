"""The Helm chart with providers: each account may do what is asked in its name, and no more.

What is asked is what the adapter sends to the tests' API server, which counts rights as RBAC does.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from control_plane.adapters.providers.cnpg import RIGHTS, CnpgProvider
from control_plane.adapters.providers.provider import Wanted
from control_plane.config import KubernetesSettings, Secret
from control_plane.domain.errors import ProviderRefused
from control_plane.domain.providers import ServerWish
from tests.fakes.kubernetes_api import TOKEN, FakeKubernetes, fake_kubernetes, make_certificate
from tests.unit.deploy.chart import (
    CHART,
    VALUES,
    Manifest,
    NotRendered,
    faults,
    helm,
    pods,
    render,
)
from tests.unit.deploy.granted import rights, tokens, told

pytestmark = pytest.mark.skipif(
    not Path(sys.executable).with_name("helm").exists(),
    reason="Helm has no wheel for this platform",
)

KEY = UUID(int=7)
ROLE = "arn:aws:iam::123456789012:role/"
CNPG: dict[str, Any] = {"enabled": True, "namespace": "clinic-servers"}
RDS: dict[str, Any] = {
    "enabled": True,
    "region": "eu-west-1",
    "subnetGroup": "clinics",
    "securityGroups": ["sg-0a1b", "sg-2c3d"],
    "authorities": "rds-authorities",
    "roles": {"workers": f"{ROLE}workers", "api": f"{ROLE}api"},
}
WITH: dict[str, Any] = {**VALUES, "providers": {"cnpg": CNPG, "rds": RDS}}
ASKING = {"Deployment clinic-api", "Deployment clinic-worker-control"} | {
    "Deployment clinic-worker-transfer"
}


def of(kind: str, manifests: list[Manifest]) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


@pytest.mark.parametrize(
    "given", [{"cnpg": CNPG}, {"rds": RDS}, {"cnpg": CNPG, "rds": RDS}], ids=["cnpg", "rds", "both"]
)
@pytest.mark.parametrize("policies", [{"enabled": True}, {"enabled": False}])
def test_everything_fits_and_helm_has_no_complaint(
    tmp_path: Path, given: dict[str, Any], policies: dict[str, bool]
) -> None:
    values = {**VALUES, "providers": given, "networkPolicy": policies}
    assert faults(render(tmp_path, values)) == []
    helm("lint", "--strict", "--quiet", str(CHART), "--values", str(tmp_path / "values.yaml"))


def test_without_providers_nobody_is_known_to_kubernetes(tmp_path: Path) -> None:
    found = render(tmp_path, VALUES)
    assert set(of("ServiceAccount", found)) == {"clinic"}
    assert {*of("Role", found), *of("RoleBinding", found)} == set()
    assert not any(tokens(pod) for pod in pods(found).values())


def test_only_who_asks_is_told_and_has_a_token(tmp_path: Path) -> None:
    found = pods(render(tmp_path, WITH))
    accounts = {name: pod["spec"]["serviceAccountName"] for name, pod in found.items()}
    assert accounts["Deployment clinic-api"] == "clinic-api"
    for queue in ("control", "transfer"):
        assert accounts[f"Deployment clinic-worker-{queue}"] == "clinic-workers"
    assert {name for name, account in accounts.items() if account != "clinic"} == ASKING
    assert {name for name, pod in found.items() if tokens(pod)} == ASKING
    assert {
        name for name, pod in found.items() if "TENANTRY_RDS_REGION" in str(told(pod))
    } == ASKING


def test_roles_of_aws_are_annotations_and_no_key_is_anywhere(tmp_path: Path) -> None:
    shared = {"example.org/team": "platform", "eks.amazonaws.com/role-arn": f"{ROLE}store"}
    found = render(tmp_path, {**WITH, "serviceAccount": {"annotations": shared}})
    accounts = of("ServiceAccount", found)
    for name, role in (("clinic-workers", "workers"), ("clinic-api", "api")):
        assert accounts[name]["metadata"]["annotations"] == {
            "example.org/team": "platform",
            "eks.amazonaws.com/role-arn": f"{ROLE}{role}",
        }
    kept = accounts["clinic"]["metadata"]["annotations"]
    assert kept["eks.amazonaws.com/role-arn"] == f"{ROLE}store"
    assert "AWS_" not in yaml.safe_dump_all(found)


@pytest.mark.parametrize(
    ("provider", "what", "words"),
    [
        ("cnpg", {"namespace": ""}, "providers.cnpg.namespace"),
        ("cnpg", {"namespace": "Clinics"}, "providers.cnpg.namespace"),
        ("cnpg", {"namespace": "saas"}, "namespace of their own"),
        ("cnpg", {"enabled": False}, "providers.cnpg.namespace"),
        ("cnpg", {"storageGb": 0}, "providers.cnpg.storageGb"),
        ("cnpg", {"storageClass": "Fast!"}, "providers.cnpg.storageClass"),
        ("cnpg", {"apiServerPorts": []}, "providers.cnpg.apiServerPorts"),
        ("cnpg", {"apiServerPorts": None}, "apiServerPorts is required"),
        ("cnpg", {"namespace": None}, "namespace is required"),
        ("cnpg", {"token": "x"}, "token"),
        ("rds", {"region": ""}, "providers.rds.region"),
        ("rds", {"authorities": ""}, "providers.rds.authorities"),
        ("rds", {"roles": {"workers": f"{ROLE}a", "api": ""}}, "providers.rds.roles.api"),
        ("rds", {"roles": {"workers": "", "api": f"{ROLE}a"}}, "providers.rds.roles.workers"),
        ("rds", {"roles": {"workers": "admin", "api": f"{ROLE}a"}}, "providers.rds.roles.workers"),
        ("rds", {"securityGroups": ["default"]}, "providers.rds.securityGroups"),
        ("rds", {"endpoint": "rds.example.org"}, "providers.rds.endpoint"),
        ("rds", {"endpoint": None}, "endpoint is required"),
        ("rds", {"region": None}, "region is required"),
        ("rds", {"authorities": None}, "authorities is required"),
        ("rds", {"roles": None}, "roles is required"),
        ("rds", {"enabled": False}, "providers.rds.region"),
        ("rds", {"accessKey": "x"}, "accessKey"),
    ],
)
def test_a_half_or_wrong_provider_is_refused_and_named(
    tmp_path: Path, provider: str, what: dict[str, Any], words: str
) -> None:
    given = {"cnpg": CNPG, "rds": RDS}
    given[provider] = {**given[provider], **what}
    with pytest.raises(NotRendered, match=words.replace(".", r"\.")):
        render(tmp_path, {**VALUES, "providers": given})


@pytest.mark.parametrize(
    ("endpoint", "opened"),
    [
        ("", {443}),
        ("https://rds.example.org", {443}),
        ("https://rds.example.org:8443/", {443, 8443}),
        ("http://rds.example.org", {80, 443}),
        ("http://[2001:db8::1]:4566", {443, 4566}),
        ("https://[2001:db8::1]", {443}),
    ],
)
def test_the_port_of_the_endpoint_is_opened(
    tmp_path: Path, endpoint: str, opened: set[int]
) -> None:
    given = {"rds": {**RDS, "endpoint": endpoint}}
    found = of("NetworkPolicy", render(tmp_path, {**VALUES, "providers": given}))
    ways = found["clinic-providers"]["spec"]["egress"]
    assert {port["port"] for way in ways for port in way["ports"]} == opened


@pytest.mark.parametrize("name", ["RDS_REGION", "CNPG_NAMESPACE", "KUBERNETES_URL"])
def test_settings_of_providers_are_said_in_one_place(tmp_path: Path, name: str) -> None:
    settings = {**VALUES["settings"], f"TENANTRY_{name}": "x"}
    with pytest.raises(NotRendered, match=f"TENANTRY_{name}"):
        render(tmp_path, {**VALUES, "settings": settings})


@pytest.mark.parametrize(
    ("file", "right", "wrong", "fault"),
    [
        ("providers.yaml", "rules:\n", "rule:\n", "Kubernetes 1.29"),
        ("providers.yaml", "verbs: [list]", "verb: [list]", "Kubernetes 1.37"),
        ("providers.yaml", "name: {{ $name }}}", "name: tenantry}", "there is no Role tenantry"),
        (
            "providers.yaml",
            "namespace: {{ $.Release.Namespace }}",
            "namespace: default",
            "there is no ServiceAccount clinic-workers",
        ),
        (
            "providers.yaml",
            "automountServiceAccountToken: false",
            "automountServiceAccountToken: true",
            "every pod of it is given a token",
        ),
        (
            "providers.yaml",
            "  {{- with $given }}\n  annotations:",
            "  {{- with $given }}\n  annotations:\n    helm.sh/hook: pre-install",
            "an upgrade would end its tokens",
        ),
        (
            "providers.yaml",
            "namespace: {{ $.Values.providers.cnpg.namespace }}",
            "namespace: clinics",
            "the roles are not of the namespace clinic-servers",
        ),
        ("workers.yaml", '"asks" "workers"', '"asks" "worker"', "no ServiceAccount clinic-worker"),
        ("workers.yaml", '"asks" "workers"', "", "against its part"),
        ("beat.yaml", '"1Gi" }}', '"1Gi" "asks" "api" }}', "beat: it is told of providers"),
        (
            "_providers.tpl",
            "{name: kubernetes, mountPath",
            "{name: tmp, mountPath",
            "a token is given to []",
        ),
        ("_providers.tpl", "serviceAccountToken: {path", "serviceAccountTokens: {path", "1.29"),
        ("_providers.tpl", "TENANTRY_CNPG_STORAGE_GB", "TENANTRY_CNPG_SIZE", "nobody reads"),
        (
            "_providers.tpl",
            "value: /etc/tenantry/rds/ca.pem",
            "value: /etc/rds/ca.pem",
            "is in no volume",
        ),
        (
            "networkpolicies.yaml",
            "[api, worker-control, worker-transfer]",
            "[api, worker-control]",
            "worker-transfer: it does not reach the API server",
        ),
        (
            "networkpolicies.yaml",
            "worker-transfer, pooler]",
            "worker-transfer]",
            "pooler: it does not reach the Clusters",
        ),
        (
            "networkpolicies.yaml",
            "worker-transfer, pooler]",
            "worker-transfer, pooler, beat]",
            "beat: it has nothing to do with Clusters",
        ),
        (
            "networkpolicies.yaml",
            "metadata.name: {{ .cnpg.namespace }}",
            "metadata.name: {{ $.Release.Namespace }}",
            "it does not reach the Clusters in clinic-servers",
        ),
    ],
)
def test_each_rule_finds_what_breaks_it(
    tmp_path: Path, file: str, right: str, wrong: str, fault: str
) -> None:
    chart = tmp_path / "tenantry"
    shutil.copytree(CHART, chart)
    template = chart / "templates" / file
    assert right in template.read_text()
    template.write_text(template.read_text().replace(right, wrong))
    values = {**WITH, "serviceAccount": {"annotations": {"example.org/team": "platform"}}}
    found = faults(render(tmp_path, values, chart))
    assert any(fault in line for line in found), found


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeKubernetes]:
    with fake_kubernetes(*make_certificate(tmp_path)) as running:
        yield running


@pytest.fixture
def cnpg(api: FakeKubernetes, tmp_path: Path) -> CnpgProvider:
    (tmp_path / "token").write_text(TOKEN)
    space: str = CNPG["namespace"]
    settings = KubernetesSettings(space, api.url, tmp_path / "token", tmp_path / "ca.crt")
    return CnpgProvider(settings, "here")


@pytest.fixture
def granted(tmp_path: Path) -> dict[str, set[tuple[str, str, str]]]:
    found = of("Role", render(tmp_path, WITH))
    return {name.removeprefix("saas-clinic-"): rights(role) for name, role in found.items()}


async def live(cnpg: CnpgProvider, api: FakeKubernetes) -> None:
    """A server from its creation, repeated, to its end, and a look at all of them."""
    for _ in range(2):
        await cnpg.create(Wanted(KEY, "pg-c", Secret("a-password-of-ours"), ServerWish()))
    cluster = next(path for path in api.objects if "/clusters/" in path)
    api.status(cluster, conditions=[{"type": "Ready", "status": "True"}])
    await cnpg.look(KEY)
    await cnpg.every()
    await cnpg.delete(KEY)
    assert api.objects == {}


async def test_workers_may_do_all_that_they_ask_for(
    cnpg: CnpgProvider, api: FakeKubernetes, granted: dict[str, set[tuple[str, str, str]]]
) -> None:
    assert granted["workers"] == set(RIGHTS)
    api.allowed = granted["workers"]
    await live(cnpg, api)


@pytest.mark.parametrize("right", RIGHTS, ids="-".join)
async def test_workers_may_do_nothing_that_they_do_not_ask_for(
    cnpg: CnpgProvider, api: FakeKubernetes, right: tuple[str, str, str]
) -> None:
    """Without any one of their rights a server does not live."""
    api.allowed = set(RIGHTS) - {right}
    with pytest.raises(ProviderRefused, match=f"cannot {right[0]} resource {right[2]}"):
        await live(cnpg, api)


async def test_the_api_may_look_and_do_nothing_else(
    cnpg: CnpgProvider, api: FakeKubernetes, granted: dict[str, set[tuple[str, str, str]]]
) -> None:
    api.allowed = granted["api"]
    assert await cnpg.every() == []
    assert (await cnpg.examine()).looks_only
    with pytest.raises(ProviderRefused, match="403"):
        await live(cnpg, api)
