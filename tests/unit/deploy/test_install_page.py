"""docs/install.md and docs/providers.md: what they tell people to type and to set is right."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from moto import mock_aws

from control_plane.adapters.providers.provider import Wanted
from control_plane.adapters.providers.rds import RdsProvider
from control_plane.config import REPOSITORY, RdsSettings, Secret
from control_plane.domain.errors import ProviderUnavailable
from control_plane.domain.providers import ServerWish
from tests.fakes.moto_rds import REGION, moto_instance
from tests.unit.deploy.chart import VALUES, Manifest, faults, pods, render
from tests.unit.deploy.composition import taken
from tests.unit.deploy.units import FOLDER, WITH_RDS

TEXT = (REPOSITORY / "docs" / "install.md").read_text()
PROVIDERS = (REPOSITORY / "docs" / "providers.md").read_text()
needs_helm = pytest.mark.skipif(
    not Path(sys.executable).with_name("helm").exists(),
    reason="Helm has no wheel for this platform",
)
# The release and its namespace, in the page and in what is rendered here.
RELEASE = ("clinics", "clinic")


def section(text: str, title: str) -> str:
    found = re.search(rf"^##+ {title}\n(.+?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    """The code of this language, without the indentation of the list that it is in."""
    pattern = rf"^( *)```{language}\n(.+?)^ *```$"
    found = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def commands(text: str) -> list[list[str]]:
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def values_of(text: str) -> dict[str, Any]:
    (block,) = blocks(text, "yaml")
    return {**VALUES, **yaml.safe_load(block)}


def check_kubernetes(folder: Path, text: str) -> None:
    """Everything that a section about a provider says, against the chart with its values."""
    values = values_of(text)
    made = render(folder, values)
    assert faults(made) == []
    told = commands(text)
    for words in told:
        _check_command(words, values, made)
    assert {words[0] for words in told} >= {"helm", "kubectl", "tenantry"}
    accounts = {m["metadata"]["name"] for m in made if m["kind"] == "ServiceAccount"}
    for name in re.findall(r"clinics-(?:workers|api)[a-z-]*", text):
        assert name.replace(*RELEASE) in accounts, name
    # Roles of AWS trust accounts by their names, which are others than without a provider.
    for name in accounts - {RELEASE[1]}:
        assert f"system:serviceaccount:saas:{name.replace(RELEASE[1], RELEASE[0])}`" in text


def _check_command(words: list[str], values: dict[str, Any], made: list[Manifest]) -> None:
    if words[0] == "helm":
        assert (REPOSITORY / words[3] / "Chart.yaml").is_file()
        assert words[words.index("-n") + 1] == "saas"
        assert {"--wait", "--timeout"} <= set(words)
    if words[:3] == ["kubectl", "create", "namespace"]:
        assert words[3] == values["providers"]["cnpg"]["namespace"]
    if "configmap" in words:
        assert words[words.index("configmap") + 1] == values["providers"]["rds"]["authorities"]
        (file,) = [word for word in words if word.startswith("--from-file=")]
        assert file.startswith("--from-file=ca.pem=")
    if "exec" in words:
        name = words[words.index("exec") + 1].replace("deploy/clinics-", "Deployment clinic-")
        assert name in pods(made)
    if "tenantry" in words:
        assert taken(words[words.index("tenantry") + 1 :]), words


@needs_helm
@pytest.mark.parametrize("title", ["Beside CloudNativePG", "Beside RDS"])
def test_a_provider_is_set_up_by_what_the_page_says(tmp_path: Path, title: str) -> None:
    check_kubernetes(tmp_path, section(TEXT, title))


@needs_helm
@pytest.mark.parametrize(
    ("title", "right", "wrong"),
    [
        ("Beside CloudNativePG", "namespace clinic-servers", "namespace clinics"),
        ("Beside CloudNativePG", "deploy/clinics-worker-control", "deploy/clinics-worker"),
        ("Beside CloudNativePG", "storageClass: fast", "storageClas: fast"),
        ("Beside CloudNativePG", "clinics-workers", "clinics-api-workers"),
        ("Beside CloudNativePG", "saas:clinics-api", "saas:clinics"),
        ("Beside CloudNativePG", "--wait --timeout 10m", ""),
        ("Beside CloudNativePG", "servers create pg-c", "server create pg-c"),
        ("Beside CloudNativePG", "deploy/helm/tenantry", "deploy/chart"),
        ("Beside RDS", "configmap rds-authorities", "configmap authorities"),
        ("Beside RDS", "ca.pem=", "bundle.pem="),
        ("Beside RDS", "--class db", "--instance db"),
        ("Beside RDS", "region: eu-west-1", "regions: eu-west-1"),
    ],
)
def test_a_page_that_is_wrong_is_found(tmp_path: Path, title: str, right: str, wrong: str) -> None:
    text = section(TEXT, title)
    assert right in text
    assert not _holds(tmp_path, text.replace(right, wrong))


def _holds(folder: Path, text: str) -> bool:
    try:
        check_kubernetes(folder, text)
    except Exception:  # noqa: BLE001 - Helm's and YAML's refusals as well as ours
        return False
    return True


def test_the_chart_is_ready_before_it_is_tested() -> None:
    first, second = [words for words in commands(section(TEXT, "Kubernetes")) if "helm" in words]
    assert first[:2] == ["helm", "install"]
    assert {"--wait", "--timeout"} <= set(first)
    assert second[:2] == ["helm", "test"]


def test_the_composition_is_waited_for_as_the_smoke_test_does() -> None:
    """``up`` returns when containers are started, and servers may not be enrolled yet."""
    waiting = "docker wait {}compose ps --all --quiet enrol)"
    assert waiting.format('"$(') in (REPOSITORY / "deploy" / "smoke.sh").read_text()
    first, second, *_ = blocks(section(TEXT, "Docker Compose"), "console")[0].splitlines()
    assert " up " in first
    assert waiting.format("$(docker ") in second


def test_what_systemd_is_given_is_there() -> None:
    told = commands(section(TEXT, "Servers made by RDS, with systemd"))
    copied = [word for words in told for word in words if word.startswith("deploy/")]
    assert {REPOSITORY / name for name in copied} == {FOLDER / "rds.env", WITH_RDS}
    written = {word for words in told for word in words if word.startswith("/etc/tenantry/")}
    for path in ("/etc/tenantry/rds-ca.pem", "/etc/tenantry/secrets/aws.credentials"):
        assert path in written
        assert path in WITH_RDS.read_text()


def test_the_composition_is_given_what_the_page_says() -> None:
    told = re.search(r"Servers made by RDS: `docker compose (.+?) up", TEXT)
    assert told is not None
    for file in re.findall(r"-f (\S+)", told[1]):
        assert (REPOSITORY / file).is_file()
    assert "TENANTRY_RDS_FILES" in (REPOSITORY / "deploy" / "compose.rds.yml").read_text()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RdsProvider, set[str]]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nothing")
    found: set[str] = set()
    with mock_aws():
        rds = RdsProvider(RdsSettings(region=REGION, ca_pem="PEM"), "here")
        events: Any = rds.client.meta.events
        events.register("before-call.rds", lambda model, **_: found.add(f"rds:{model.name}"))
        yield rds, found


async def test_the_policy_is_what_the_life_of_a_server_asks_for(
    asked: tuple[RdsProvider, set[str]],
) -> None:
    """Tags of an instance and its last snapshot are rights of their own, without a call."""
    rds, found = asked
    key = UUID(int=7)
    await rds.create(Wanted(key, "pg-c", Secret("a-password-of-ours"), ServerWish()))
    assert await rds.look(key) is not None
    moto_instance(key).status = "stopped"
    with pytest.raises(ProviderUnavailable):
        await rds.delete(key)
    moto_instance(key).status = "available"
    await rds.delete(key)
    (policy,) = blocks(PROVIDERS, "json")
    (statement,) = json.loads(policy)["Statement"]
    assert set(statement["Action"]) == found | {"rds:AddTagsToResource", "rds:CreateDBSnapshot"}


async def test_looking_asks_for_nothing_but_the_right_of_the_api(
    asked: tuple[RdsProvider, set[str]],
) -> None:
    rds, found = asked
    await rds.every()
    await rds.examine()
    assert found == {"rds:DescribeDBInstances"}
    assert "the API `rds:DescribeDBInstances` alone" in PROVIDERS
