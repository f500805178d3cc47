"""deploy/smoke-kubernetes.sh against programs that only write down what they are told.

That it fits the chart, Kubernetes and the command line is checked; no cluster is here to run it.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.config import REPOSITORY
from deploy.local.postgres import TENANT_SETTINGS
from tests.unit.deploy.chart import SECRETS, NotRendered, against_schemas, faults, pods, render
from tests.unit.deploy.composition import parsed, taken
from tests.unit.deploy.recorded import Ran, run

pytestmark = pytest.mark.skipif(
    not Path(sys.executable).with_name("helm").exists(),
    reason="Helm has no wheel for this platform",
)

SCRIPT = REPOSITORY / "deploy" / "smoke-kubernetes.sh"


@pytest.fixture(scope="module", params=["", "1"], ids=["plain", "cnpg"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(
        tmp_path_factory.mktemp("smoke"), SCRIPT.name, SCRIPT.read_text(), CNPG=request.param
    )


def test_it_comes_to_its_end_and_leaves_nothing(ran: Ran) -> None:
    assert ran.code == 0, ran.said
    assert "smoke: everything works" in ran.said.splitlines()
    assert ran.left == ["bin", "deploy", "log"]
    assert ran.of("kubectl", "delete", "namespace") == [
        ["delete", "namespace", "tenantry-smoke", "tenantry-smoke-servers", "--ignore-not-found"]
    ]
    assert [words[0] for words in ran.of("helm")] == [
        *("install", "test", "upgrade", "uninstall", "uninstall"),
    ]


def test_what_fails_ends_it_and_is_cleared_away(tmp_path: Path) -> None:
    ran = run(tmp_path, SCRIPT.name, SCRIPT.read_text(), refused="backup")
    assert ran.code == 1
    assert "failed; all pods" in ran.said
    assert len(ran.of("kubectl", "logs")) == 1
    assert ran.commands("kubectl", "exec")[-1][0] == "backup"
    assert ran.of("kubectl", "delete", "namespace") != []


def test_the_values_are_ones_that_the_chart_takes(ran: Ran, tmp_path: Path) -> None:
    for words, files in [(w, f) for p, w, _, f in ran.asked if p == "helm" and f]:
        assert {"deploy/helm/tenantry", "tenantry-smoke"} <= set(words)
        (values,) = files.values()
        given = yaml.safe_load(values)
        for setting in (w for w in words if w.startswith("settings.")):
            name, _, value = setting.removeprefix("settings.").partition("=")
            given["settings"][name] = int(value)
        assert faults(render(tmp_path, given)) == []


def test_the_names_are_those_of_the_chart(ran: Ran, tmp_path: Path) -> None:
    (values, *_) = [next(iter(f.values())) for p, _, _, f in ran.asked if p == "helm" and f]
    made = pods(render(tmp_path, yaml.safe_load(values)))
    for words in ran.of("kubectl", "exec"):
        place = words[words.index("exec") + 1 :]
        target = next(word for word in place if not word.startswith("--"))
        if target == "first":
            continue
        name = target.replace("deploy/smoke-", "Deployment clinic-")
        containers = [one["name"] for one in made[name]["spec"]["containers"]]
        assert place[place.index("--container") + 1] in containers
    for secret, keys in SECRETS.items():
        (words,) = [w for w in ran.of("kubectl", "secret", secret) if "create" in w]
        files = [word.removeprefix("--from-file=") for word in words if "--from-file" in word]
        assert {file.partition("=")[0] for file in files} == keys


def test_what_is_applied_is_right_for_kubernetes(ran: Ran) -> None:
    found = [one for _, w, told, _ in ran.asked if "apply" in w for one in yaml.safe_load_all(told)]
    assert [one["metadata"]["name"] for one in found if one["kind"] == "Deployment"] == [
        *("catalog", "pg-a", "pg-b", "redis", "store"),
    ]
    assert list(against_schemas(found)) == []
    secrets = {w[w.index("generic") + 1] for w in ran.of("kubectl", "generic")}
    for one in found:
        if one["kind"] != "Service":
            spec = one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
            assert spec["volumes"][0]["secret"]["secretName"] in secrets
    told = {one["metadata"]["name"]: _arguments(one) for one in found if one["kind"] != "Service"}
    for name in ("pg-a", "pg-b"):
        assert {f"-c{key}={value}" for key, value in TENANT_SETTINGS.items()} <= set(told[name])
    assert "rclone serve s3" in " ".join(told["store"])


def _arguments(one: dict[str, Any]) -> list[str]:
    spec = one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
    return [str(word) for word in spec["containers"][0].get("args", [])]


def test_every_command_is_one_that_there_is(ran: Ran) -> None:
    assert len(ran.commands("kubectl", "exec")) > 10
    for words in ran.commands("kubectl", "exec"):
        assert taken(words), words
    for words in ran.of("kubectl", "tenantry-run"):
        run_words = words[words.index("tenantry-run") + 1 :]
        assert not isinstance(parsed(run_words), str), run_words


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ('--from-file="root.keys=$work/root.keys"', "", "keys"),
        ("TENANTRY_KEYSTORE", "KEYSTORE", "KEYSTORE"),
        ("deploy/$release-api", "deploy/$release-web", "clinic-web"),
        ("restore smoke-clinic --in-place", "restore smoke-clinic --here", "--here"),
        ("readinessProbe:", "readyProbe:", "readyProbe"),
        ("-cwal_level=logical", "-cwal_level=replica", "wal_level"),
    ],
)
def test_a_script_that_is_wrong_is_found(
    tmp_path: Path, right: str, wrong: str, words: str
) -> None:
    text = SCRIPT.read_text()
    assert right in text
    ran = run(tmp_path, SCRIPT.name, text.replace(right, wrong))
    checks: tuple[Callable[[], None], ...] = (
        lambda: test_the_values_are_ones_that_the_chart_takes(ran, tmp_path),
        lambda: test_the_names_are_those_of_the_chart(ran, tmp_path),
        lambda: test_what_is_applied_is_right_for_kubernetes(ran),
        lambda: test_every_command_is_one_that_there_is(ran),
    )
    assert any(words in fault for check in checks for fault in _faults(check))


def _faults(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except (AssertionError, NotRendered, KeyError) as error:
        return [str(error)]
    return []


def test_the_image_is_built_as_it_says() -> None:
    told = re.findall(r"--target (\S+) -t (\S+) ", SCRIPT.read_text())
    assert told == [("tenantry", "tenantry:0.1.0"), ("pooler", "tenantry-pooler:0.1.0")]
