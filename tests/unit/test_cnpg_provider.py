"""CloudNativePG as a provider, against an API server that keeps objects and runs nothing."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import certifi
import msgspec
import pytest

from control_plane.adapters.providers.cnpg import RIGHTS, CnpgProvider
from control_plane.adapters.providers.cnpg_objects import GROUP
from control_plane.adapters.providers.provider import Standing, Wanted
from control_plane.config import KubernetesSettings, Secret
from control_plane.domain.errors import ProviderRefused, ProviderUnavailable
from control_plane.domain.names import encode
from control_plane.domain.providers import ServerWish, instance_name
from tests.fakes.kubernetes_api import TOKEN, FakeKubernetes, fake_kubernetes, make_certificate

KEY, OTHER = UUID(int=7), UUID(int=8)
NAME = instance_name(KEY)
CLUSTERS = "/apis/postgresql.cnpg.io/v1/namespaces/tenants/clusters"
SECRETS = "/api/v1/namespaces/tenants/secrets"
CLUSTER, LOGIN, AUTHORITY = (
    f"{CLUSTERS}/{NAME}",
    f"{SECRETS}/{NAME}-admin",
    f"{SECRETS}/{NAME}-ca",
)
READY = {"phase": "Cluster in healthy state", "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("kubernetes"))


@pytest.fixture
def api(certificate: tuple[Path, Path]) -> Iterator[FakeKubernetes]:
    with fake_kubernetes(*certificate) as running:
        yield running


@pytest.fixture
def settings(
    api: FakeKubernetes, certificate: tuple[Path, Path], tmp_path: Path
) -> KubernetesSettings:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    return KubernetesSettings("tenants", api.url, token, certificate[0])


@pytest.fixture
def cnpg(settings: KubernetesSettings) -> CnpgProvider:
    return CnpgProvider(settings, "here")


def wanted(key: UUID = KEY, **wish: Any) -> Wanted:
    return Wanted(key, "pg-c", Secret("a-password-of-ours"), ServerWish(**wish))


async def test_a_cluster_and_its_login_are_applied(cnpg: CnpgProvider, api: FakeKubernetes) -> None:
    await cnpg.create(wanted(version=17, storage_gb=50))
    cluster, login = api.objects[CLUSTER], api.objects[LOGIN]
    assert cluster["spec"]["imageName"].endswith(":17")
    assert cluster["spec"]["storage"] == {"size": "50Gi"}
    assert cluster["spec"]["superuserSecret"] == {"name": login["metadata"]["name"]}
    assert cluster["metadata"]["labels"]["tenantry.io/server"] == encode(KEY)
    assert base64.b64decode(login["data"]["password"]) == b"a-password-of-ours"
    applied = [path for method, path, _ in api.asked if method == "PATCH"]
    assert applied == [LOGIN, CLUSTER], "the operator would make up a login of its own"
    assert {query["fieldManager"][0] for method, _, query in api.asked if method == "PATCH"} == {
        "tenantry"
    }


async def test_volumes_are_as_the_settings_and_the_request_say(
    settings: KubernetesSettings, api: FakeKubernetes
) -> None:
    given = msgspec.structs.replace(settings, storage_class="fast", storage_gb=20)
    await CnpgProvider(given, "here").create(wanted())
    assert api.objects[CLUSTER]["spec"]["storage"] == {"size": "20Gi", "storageClass": "fast"}
    await CnpgProvider(given, "here").create(wanted(storage_gb=50))
    assert api.objects[CLUSTER]["spec"]["storage"] == {"size": "50Gi", "storageClass": "fast"}


async def test_applied_twice_there_is_one(cnpg: CnpgProvider, api: FakeKubernetes) -> None:
    await cnpg.create(wanted())
    before = dict(api.objects)
    await cnpg.create(wanted())
    assert api.objects == before


async def test_states_on_the_way(cnpg: CnpgProvider, api: FakeKubernetes) -> None:
    assert await cnpg.look(KEY) is None
    await cnpg.create(wanted())
    seen = await cnpg.look(KEY)
    assert seen is not None
    assert (seen.state, seen.place) == ("creating", None)
    api.status(CLUSTER, phase="Setting up primary", phaseReason="Creating primary instance")
    seen = await cnpg.look(KEY)
    assert seen is not None
    assert (seen.state, seen.detail) == (
        "creating",
        "Setting up primary: Creating primary instance",
    )
    api.status(CLUSTER, **READY)
    seen = await cnpg.look(KEY)
    assert seen is not None
    assert (seen.state, seen.detail) == ("creating", "its certificate is being made")
    api.objects[AUTHORITY] = {
        "metadata": {"name": f"{NAME}-ca"},
        "data": {"ca.crt": base64.b64encode(b"PEM").decode()},
    }
    seen = await cnpg.look(KEY)
    assert seen is not None
    assert seen.state == "available"
    assert seen.place is not None
    assert (seen.place.host, seen.place.user, seen.place.ca_pem) == (
        f"{NAME}-rw.tenants.svc",
        "postgres",
        "PEM",
    )


async def test_one_of_somebody_else_is_refused_and_left_alone(
    cnpg: CnpgProvider, api: FakeKubernetes
) -> None:
    api.objects[CLUSTER] = {"metadata": {"name": NAME, "labels": {}}, "spec": {"instances": 1}}
    before = dict(api.objects)
    for asking in (cnpg.create(wanted()), cnpg.look(KEY), cnpg.delete(KEY)):
        with pytest.raises(ProviderRefused, match="somebody else's"):
            await asking
    assert api.objects == before


async def test_deleted_with_its_login_and_twice(cnpg: CnpgProvider, api: FakeKubernetes) -> None:
    await cnpg.create(wanted())
    api.keeps_what_is_deleted = True
    await cnpg.delete(KEY)
    seen = await cnpg.look(KEY)
    assert seen is not None
    assert seen.state == "deleting"
    with pytest.raises(ProviderRefused, match="is being deleted"):
        await cnpg.create(wanted())
    api.keeps_what_is_deleted = False
    await cnpg.delete(KEY)
    await cnpg.delete(KEY)
    assert (await cnpg.look(KEY), api.objects) == (None, {})


async def test_every_cluster_of_this_deployment_is_listed(
    cnpg: CnpgProvider, settings: KubernetesSettings
) -> None:
    await cnpg.create(wanted())
    await CnpgProvider(settings, "elsewhere").create(wanted(OTHER))
    assert [one.key for one in await cnpg.every()] == [KEY]


async def test_without_the_operator_that_is_said(cnpg: CnpgProvider, api: FakeKubernetes) -> None:
    api.refuse(404, "the server could not find the requested resource")
    with pytest.raises(ProviderRefused, match="install CloudNativePG"):
        await cnpg.every()


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (409, ProviderUnavailable, "409"),
        (429, ProviderUnavailable, "429"),
        (500, ProviderUnavailable, "500"),
        (403, ProviderRefused, "permissions in docs/providers.md"),
        (422, ProviderRefused, "spec.storage is wrong"),
    ],
)
async def test_refusals_say_what_to_do(
    cnpg: CnpgProvider, api: FakeKubernetes, status: int, error: type[Exception], words: str
) -> None:
    api.refuse(status, "spec.storage is wrong")
    with pytest.raises(error, match=words):
        await cnpg.create(wanted())
    await cnpg.create(wanted())
    assert CLUSTER in api.objects


async def test_a_renewed_token_is_read_and_a_wrong_one_told(
    cnpg: CnpgProvider, settings: KubernetesSettings
) -> None:
    settings.token_file.write_text("expired")
    with pytest.raises(ProviderRefused, match="TENANTRY_KUBERNETES_TOKEN_FILE"):
        await cnpg.look(KEY)
    settings.token_file.write_text(TOKEN)
    assert await cnpg.look(KEY) is None


async def test_the_files_of_a_pod_are_read_again_when_the_kubelet_swaps_them(
    settings: KubernetesSettings,
    api: FakeKubernetes,
    certificate: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    """It writes a directory of the new files and turns one link; the paths in the pod stay."""
    pod = tmp_path / "serviceaccount"
    pod.mkdir()
    for file in ("token", "ca.crt"):
        (pod / file).symlink_to(Path("..data") / file)

    def turn(version: str, token: str, authority: str) -> None:
        (pod / version).mkdir()
        (pod / version / "token").write_text(token)
        (pod / version / "ca.crt").write_text(authority)
        (pod / "..new").symlink_to(version)
        (pod / "..new").replace(pod / "..data")

    right = certificate[0].read_text()
    turn("..1", TOKEN, right)
    mounted = msgspec.structs.replace(settings, token_file=pod / "token", ca_path=pod / "ca.crt")
    cnpg = CnpgProvider(mounted, "here")
    assert await cnpg.look(KEY) is None
    api.token = "the next token"
    with pytest.raises(ProviderRefused, match="the token is not accepted"):
        await cnpg.look(KEY)
    turn("..2", "the next token", right)
    assert await cnpg.look(KEY) is None
    turn("..3", "the next token", Path(certifi.where()).read_text())
    with pytest.raises(ProviderUnavailable, match="ConnectError"):
        await cnpg.look(KEY)


async def test_an_api_server_of_another_authority_is_not_talked_to(
    settings: KubernetesSettings,
) -> None:
    other = msgspec.structs.replace(settings, ca_path=Path(certifi.where()))
    with pytest.raises(ProviderUnavailable, match="ConnectError"):
        await CnpgProvider(other, "here").look(KEY)


async def test_examined_it_says_what_the_account_may_not_do(
    cnpg: CnpgProvider, api: FakeKubernetes
) -> None:
    await cnpg.create(wanted())
    there = dict(api.objects)
    assert await cnpg.examine() == Standing("answers, 1 Clusters of ours in tenants")
    api.allowed = set(RIGHTS) - {("delete", "", "secrets"), ("patch", GROUP, "clusters")}
    standing = await cnpg.examine()
    assert standing.missing == ("patch clusters.postgresql.cnpg.io", "delete secrets")
    assert not standing.looks_only
    api.allowed = {("list", GROUP, "clusters")}
    standing = await cnpg.examine()
    assert standing.looks_only
    assert len(standing.missing) == len(RIGHTS) - 1
    api.allowed = set()
    standing = await cnpg.examine()
    assert standing.seen == "answers, in the namespace tenants"
    assert len(standing.missing) == len(RIGHTS)
    assert api.objects == there, "nothing is made"


def test_classes_of_machines_are_not_had(cnpg: CnpgProvider) -> None:
    (one,) = cnpg.problems(ServerWish(instance_class="db.m7g.large"))
    assert one["field"] == "instance_class"
    assert cnpg.problems(ServerWish(storage_gb=10)) == []
