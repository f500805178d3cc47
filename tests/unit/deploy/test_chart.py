"""The Helm chart: right for Helm and Kubernetes, and every part fits every other and the code.

Each rule is shown to work on a chart that breaks it.
"""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.catalog.primary import hosts_of
from control_plane.config import REPOSITORY
from tests.unit.deploy.chart import (
    CHART,
    SECRETS,
    VALUES,
    NotRendered,
    environment,
    faults,
    helm,
    pods,
    render,
)
from tests.unit.test_configuration_page import PAGE, rows

pytestmark = pytest.mark.skipif(
    not Path(sys.executable).with_name("helm").exists(),
    reason="Helm has no wheel for this platform",
)


DSN = VALUES["settings"]["TENANTRY_CATALOG_DSN"]


def changed(place: str, value: Any) -> dict[str, Any]:
    """The values with one of them, named by its path, replaced."""
    found = yaml.safe_load(yaml.safe_dump(VALUES))
    *path, last = place.split(".")
    inner = found
    for word in path:
        inner = inner.setdefault(word, {})
    inner[last] = value
    return dict(found)


def test_helm_has_no_complaint_and_everything_fits(tmp_path: Path) -> None:
    assert faults(render(tmp_path, VALUES)) == []
    helm("lint", "--strict", "--quiet", str(CHART), "--values", str(tmp_path / "values.yaml"))


def test_what_nobody_asked_for_is_not_there(tmp_path: Path) -> None:
    least = {"settings": VALUES["settings"], "networkPolicy": {"enabled": False}}
    found = render(tmp_path, least)
    assert faults(found) == []
    kinds = {manifest["kind"] for manifest in found}
    assert kinds & {"Ingress", "NetworkPolicy", "ServiceMonitor", "Secret", "ConfigMap"} == set()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("settings", {}, "TENANTRY_CATALOG_DSN is required"),
        ("settings.TENANTRY_CATALOG_DSN", "postgresql://a:pw@h:5432/t", "TENANTRY_CATALOG_DSN"),
        ("settings.TENANTRY_CATALOG_DSN", f"{DSN}?password=pw", "TENANTRY_CATALOG_DSN"),
        ("settings.TENANTRY_CATALOG_DSN", f"{DSN}?sslpassword=pw", "TENANTRY_CATALOG_DSN"),
        (
            "settings.TENANTRY_CATALOG_DSN",
            f"{DSN}?sslmode=require&password=pw",
            "TENANTRY_CATALOG_DSN",
        ),
        ("settings.TENANTRY_CATALOG_DSN", f"{DSN}?sslmode=a@h", "TENANTRY_CATALOG_DSN"),
        ("settings.TENANTRY_REDIS_URL", "redis://:pw@h:6379/0", "TENANTRY_REDIS_URL"),
        ("settings.TENANTRY_REDIS_URL", "redis://h:6379/0?password=pw", "TENANTRY_REDIS_URL"),
        ("settings.TENANTRY_REDIS_PASSWORD_FILE", "/x", "TENANTRY_REDIS_PASSWORD_FILE"),
        ("settings.TENANTRY_KEYRING_FILE", "/x", "TENANTRY_KEYRING_FILE"),
        ("settings.tenantry_home", "/x", "tenantry_home"),
        ("image.tag", "latest", "image.tag"),
        ("workers.control.replicas", 0, "workers.control.replicas"),
        ("workers.transfer.spool", "much", "workers.transfer.spool"),
        ("workers.reports", {"replicas": 1, "processes": 1, "spool": "1Gi"}, "reports"),
        ("api.ingress.tlsSecret", "", "api.ingress.tlsSecret"),
        ("api.replica", 3, "replica"),
        ("networkPolicy.egressPorts", [0], "networkPolicy.egressPorts"),
        # What is set to nothing in a file of values is taken away from the chart's own.
        ("networkPolicy", None, "networkPolicy is required"),
        ("serviceMonitor", None, "serviceMonitor is required"),
        ("serviceMonitor.interval", None, "interval is required"),
        ("serviceAccount", None, "serviceAccount is required"),
        ("serviceAccount.annotations", None, "annotations is required"),
        ("api.ingress", None, "ingress is required"),
        ("api.ingress.host", None, "host is required"),
    ],
)
def test_a_wrong_value_is_refused_and_named(
    tmp_path: Path, place: str, value: object, words: str
) -> None:
    with pytest.raises(NotRendered, match=words.replace(".", r"\.")):
        render(tmp_path, changed(place, value))


@pytest.mark.parametrize(
    "query",
    ["sslmode=require", "sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt"],
)
def test_the_catalog_may_be_verified(tmp_path: Path, query: str) -> None:
    """In a DSN that names two servers, and that the code reads."""
    dsn = f"postgresql://tenantry@c1.example.org:5432,c2.example.org:5433/tenantry?{query}"
    assert faults(render(tmp_path, changed("settings.TENANTRY_CATALOG_DSN", dsn))) == []
    assert hosts_of(dsn) == [("c1.example.org", 5432), ("c2.example.org", 5433)]


def policy(name: str, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    (found,) = [
        manifest["spec"]
        for manifest in render(folder, values)
        if (manifest["kind"], manifest["metadata"]["name"]) == ("NetworkPolicy", name)
    ]
    return dict(found)


@pytest.mark.parametrize("ports", [[], None, [5432]])
def test_no_port_is_not_every_port(tmp_path: Path, ports: list[int] | None) -> None:
    """A rule that names neither ports nor peers allows everything."""
    found = policy("clinic-all", changed("networkPolicy.egressPorts", ports), tmp_path)
    assert all(rule.get("ports") or rule.get("to") for rule in found["egress"])
    opened = {port["port"] for rule in found["egress"] for port in rule.get("ports", [])}
    assert opened == {53, *(ports or [])}


def test_whoever_may_ask_the_api_its_own_test_may(tmp_path: Path) -> None:
    ingress = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
    values = changed("networkPolicy.apiFrom", [ingress])
    (rule,) = policy("clinic-api", values, tmp_path)["ingress"]
    first, ours = rule["from"]
    assert first == ingress
    wanted = ours["podSelector"]["matchLabels"].items()
    let_in = {
        name
        for name, pod in pods(render(tmp_path, values)).items()
        if wanted <= pod["metadata"]["labels"].items()
    }
    assert let_in == {"Pod clinic-test"}


@pytest.mark.parametrize(
    ("file", "right", "wrong", "fault"),
    [
        ("api.yaml", "replicas:", "replica:", "Kubernetes 1.29"),
        (
            "api.yaml",
            "terminationGracePeriodSeconds: 30",
            "terminationGracePeriodSeconds: soon",
            "1.37",
        ),
        ("api.yaml", "[api, --port,", "[apis, --port,", "the command is refused"),
        ("api.yaml", "containerPort: 8000", "containerPort: 8080", "the readinessProbe asks"),
        ("api.yaml", "/health/ready", "/health/live", "the readinessProbe asks /health/live"),
        ("api.yaml", "targetPort: http", "targetPort: web", "its pods have no port web"),
        ("api.yaml", "port: {name: http}", "port: {name: web}", "its Service has no port web"),
        (
            "api.yaml",
            'name: {{ include "tenantry.name" $it }}\n                port',
            "name: api\n                port",
            "it leads to no Service",
        ),
        ("api.yaml", '{{ include "tenantry.budget" $it }}', "", "0 budgets say"),
        (
            "workers.yaml",
            "[worker, {{ $queue }}",
            "[worker, all-{{ $queue }}",
            "the command is refused",
        ),
        (
            "workers.yaml",
            'tenantry.health" "worker"',
            'tenantry.health" "beat"',
            "says nothing of worker",
        ),
        ("beat.yaml", 'tenantry.health" "beat"', 'tenantry.health" "beats"', "Probe is refused"),
        ("poolers.yaml", "clusterIP: None", "type: ClusterIP", "does not name each of its pods"),
        (
            "poolers.yaml",
            "publishNotReadyAddresses: true",
            "sessionAffinity: None",
            "does not name each",
        ),
        ("poolers.yaml", "$(TENANTRY_POOLER_NAME).%s", "%s", "is not the name of a pod"),
        ("poolers.yaml", "TENANTRY_POOLER_CELL", "TENANTRY_POOLER_CELLS", "nobody reads"),
        (
            "poolers.yaml",
            "secrets/console.password",
            "secrets/root.keys",
            "no Secret has /etc/tenantry/secrets/root",
        ),
        ("poolers.yaml", "mountPath: /run/tenantry", "mountPath: /run/socket", "is in no volume"),
        ("poolers.yaml", "name: agent-tmp", "name: agents-tmp", "nobody mounts agents-tmp"),
        ("_helpers.tpl", "mountPath: /tmp", "mountPath: /var/tmp", "no place for its pulse"),
        (
            "_helpers.tpl",
            "mountPath: /etc/tenantry/secrets",
            "mountPath: /run/secrets",
            "a volume at /run/secrets is in the way of tokens",
        ),
        (
            "_helpers.tpl",
            "secrets/store.json",
            "secrets/s3.json",
            "no Secret has /etc/tenantry/secrets/s3.json",
        ),
        (
            "_helpers.tpl",
            "name: spool, mountPath",
            "name: spol, mountPath",
            "there is no volume spol",
        ),
        ("_helpers.tpl", "runAsNonRoot: true", "runAsNonRoot: false", "it may run as root"),
        (
            "_helpers.tpl",
            "automountServiceAccountToken: false",
            "hostIPC: false",
            "a token of the cluster",
        ),
        ("_helpers.tpl", "drop: [ALL]", "drop: [CHOWN]", "it keeps capabilities"),
        (
            "_helpers.tpl",
            "readOnlyRootFilesystem: true",
            "privileged: false",
            "it may change its image",
        ),
        (
            "_helpers.tpl",
            "allowPrivilegeEscalation: false",
            "privileged: false",
            "it may gain rights",
        ),
        ("_helpers.tpl", "maxUnavailable: 1", "minAvailable: 1", "a machine from being drained"),
        ("_helpers.tpl", "{{ .repository }}:", "docker.io/{{ .repository }}:", "no image of ours"),
        ("networkpolicies.yaml", "port: postgres", "port: pgsql", "its pods have no port pgsql"),
        (
            "networkpolicies.yaml",
            '"component" "pooler") | nindent 6',
            '"component" "pool") | nindent 6',
            "it selects no pod",
        ),
        ("servicemonitor.yaml", "{port: http", "{port: metrics", "its Service has no port metrics"),
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
    found = faults(render(tmp_path, VALUES, chart))
    assert any(fault in line for line in found), found


def test_a_pooler_is_told_what_the_page_says_an_agent_reads(tmp_path: Path) -> None:
    """Whatever API and workers must agree on with it, if it is set at all; and nothing else."""
    documented = rows(PAGE.read_text())
    shared = {name for name, (_, readers, _) in documented.items() if readers == "all, agent"}
    of_chart = {name for name in shared if not name.endswith(("_FILE", "PULSE_PATH"))}
    others = ("TENANTRY_SERVER_NETWORKS", "TENANTRY_TEMPLATES", "TENANTRY_POOL_TARGET")
    given = dict.fromkeys((*of_chart, *others), "x") | dict(VALUES["settings"])
    found = pods(render(tmp_path, {"settings": given}))["StatefulSet clinic-pooler"]
    for container in found["spec"]["containers"]:
        told = set(environment(container))
        assert of_chart <= told
        assert not {"TENANTRY_BACKUP_STORE", *others} & told


def test_poolers_do_not_see_the_root_key(tmp_path: Path) -> None:
    for name, pod in pods(render(tmp_path, VALUES)).items():
        volumes = pod["spec"].get("volumes", [])
        assert [v["secret"]["secretName"] for v in volumes if "secret" in v] == {
            "StatefulSet clinic-pooler": ["tenantry-pooler"],
            "Pod clinic-test": [],
        }.get(name, ["tenantry"]), name


def test_the_catalog_is_migrated_before_anything_new_starts(tmp_path: Path) -> None:
    hooks = {
        (manifest["kind"], manifest["metadata"]["name"]): int(
            manifest["metadata"]["annotations"]["helm.sh/hook-weight"]
        )
        for manifest in render(tmp_path, VALUES)
        if "pre-upgrade" in str(manifest["metadata"].get("annotations", {}))
    }
    assert hooks == {("ServiceAccount", "clinic"): -10, ("Job", "clinic-migrate"): 0}


def test_the_chart_is_of_this_version_and_the_page_says_how_to_install_it() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version("tenantry")
    page = (REPOSITORY / "docs" / "install.md").read_text()
    assert "helm install" in page
    for secret in sorted(set().union(*SECRETS.values())):
        assert f"--from-file={secret}" in page
