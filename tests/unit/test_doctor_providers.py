"""The doctor asks providers: moto's RDS and the tests' API server, with refusals of every kind."""

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from moto import mock_aws

from control_plane.adapters.providers import kubernetes as kubernetes_module
from control_plane.adapters.providers import rds as rds_module
from control_plane.adapters.providers.cnpg import RIGHTS
from control_plane.adapters.providers.cnpg_objects import GROUP
from control_plane.adapters.providers.rds import RdsProvider
from control_plane.config import KubernetesSettings, ProviderSettings, RdsSettings
from control_plane.domain.doctor import Diagnosis
from control_plane.services import doctor
from control_plane.services.doctor import examine_providers
from tests.fakes.kubernetes_api import TOKEN, FakeKubernetes, fake_kubernetes, make_certificate
from tests.fakes.moto_rds import REGION, Refusals

RDS = RdsSettings(region=REGION, ca_pem="PEM")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeKubernetes]:
    with fake_kubernetes(*make_certificate(tmp_path)) as running:
        yield running


@pytest.fixture
def kubernetes(api: FakeKubernetes, tmp_path: Path) -> KubernetesSettings:
    (tmp_path / "token").write_text(TOKEN)
    return KubernetesSettings("tenants", api.url, tmp_path / "token", tmp_path / "ca.crt")


async def only(settings: ProviderSettings) -> Diagnosis:
    (one,) = await examine_providers(settings)
    assert (one.remedy is None) == (one.level == "ok")
    return one


async def test_who_is_not_set_up_is_not_spoken_of() -> None:
    assert await examine_providers(ProviderSettings()) == []


@pytest.mark.usefixtures("aws")
async def test_all_that_are_set_up_answer(kubernetes: KubernetesSettings) -> None:
    found = await examine_providers(ProviderSettings(rds=RDS, kubernetes=kubernetes))
    assert [(one.part, one.level, one.found) for one in found] == [
        ("provider rds", "ok", f"answers in {REGION}, 0 instances of ours"),
        ("provider cnpg", "ok", "answers, 0 Clusters of ours in tenants"),
    ]


@pytest.mark.usefixtures("aws")
async def test_a_refusal_of_rds_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Refusals] = []

    class Refused(RdsProvider):
        def __init__(self, settings: RdsSettings, deployment: str) -> None:
            super().__init__(settings, deployment)
            made.append(Refusals(self, "DescribeDBInstances", 403, "AccessDenied", 9))

    monkeypatch.setattr(rds_module, "RdsProvider", Refused)
    one = await only(ProviderSettings(rds=RDS))
    assert (one.part, one.level) == ("provider rds", "problem")
    assert "permissions in docs/providers.md" in one.found
    assert made[0].asked == 1


@pytest.mark.usefixtures("aws")
async def test_servers_that_nobody_could_verify_are_a_problem() -> None:
    one = await only(ProviderSettings(rds=RdsSettings(region=REGION)))
    assert one.level == "problem"
    assert "TENANTRY_RDS_CA_PATH" in (one.remedy or "")


async def test_what_the_sdk_cannot_work_with_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = RdsSettings(region=REGION, endpoint="nowhere", ca_pem="PEM")
    one = await only(ProviderSettings(rds=wrong))
    assert (one.part, one.level) == ("providers", "problem")
    assert "Invalid endpoint: nowhere; correct TENANTRY_RDS" in one.found
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    one = await only(ProviderSettings(rds=RDS))
    assert "(elsewhere) could not be found" in one.found


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "TENANTRY_KUBERNETES_TOKEN_FILE"), (403, "permissions in docs"), (503, "503")],
)
async def test_a_refusal_of_kubernetes_is_a_finding(
    kubernetes: KubernetesSettings, api: FakeKubernetes, status: int, words: str
) -> None:
    api.refuse(status, "no")
    one = await only(ProviderSettings(kubernetes=kubernetes))
    assert (one.part, one.level) == ("provider cnpg", "problem")
    assert words in one.found


async def test_each_right_that_a_worker_lacks_is_named(
    kubernetes: KubernetesSettings, api: FakeKubernetes
) -> None:
    for verb, group, resource in RIGHTS:
        api.allowed = set(RIGHTS) - {(verb, group, resource)}
        one = await only(ProviderSettings(kubernetes=kubernetes))
        assert one.level == "problem"
        assert f"may not {verb} {resource}" in one.found


async def test_an_account_that_only_looks_is_told_to_be_asked_elsewhere_too(
    kubernetes: KubernetesSettings, api: FakeKubernetes
) -> None:
    api.allowed = {("list", GROUP, "clusters")}
    one = await only(ProviderSettings(kubernetes=kubernetes))
    assert (one.level, "tenantry admin doctor" in (one.remedy or "")) == ("advice", True)


async def test_files_that_are_missing_are_a_finding(
    kubernetes: KubernetesSettings, tmp_path: Path
) -> None:
    absent = msgspec.structs.replace(kubernetes, token_file=tmp_path / "absent")
    one = await only(ProviderSettings(kubernetes=absent))
    assert one.level == "problem"
    assert "cannot be read" in one.found


async def test_an_rds_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROVIDER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        one = await only(ProviderSettings(rds=msgspec.structs.replace(RDS, endpoint=place)))
    assert (one.part, one.level) == ("provider rds", "problem")
    assert one.found == "did not answer within 0 s"


async def test_an_api_server_that_says_nothing_is_given_up(
    kubernetes: KubernetesSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_module, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"https://127.0.0.1:{silent.getsockname()[1]}"
        given = msgspec.structs.replace(kubernetes, url=place)
        one = await only(ProviderSettings(kubernetes=given))
    assert (one.part, one.level) == ("provider cnpg", "problem")
    assert "ConnectTimeout" in one.found


async def test_a_local_stack_that_is_away_is_a_finding(tmp_path: Path) -> None:
    one = await only(ProviderSettings(local_supervisor=tmp_path / "none"))
    assert (one.part, one.level) == ("provider local", "problem")
    assert "./dev up" in one.found
