"""The OpenAPI document says what is true, and nothing is forgotten in it."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, get

from control_plane.api import documents
from control_plane.domain.keys import PERMISSIONS
from tests.unit.api_app import offline_app

SUCCESSES = {"200", "201", "202", "204"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Litestar:
    return offline_app(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def document(app: Litestar) -> dict[str, Any]:
    return app.openapi_schema.to_schema()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if path.startswith("/v1/"):
                yield path, method, operation


def test_every_operation_has_a_row_in_the_table_of_permissions_and_the_reverse(
    document: dict[str, Any],
) -> None:
    documented = sorted(operation["operationId"] for _, _, operation in operations(document))
    assert documented == sorted(PERMISSIONS)


def test_a_handler_nobody_decided_about_stops_the_start() -> None:
    @get("/v1/secrets", operation_id="listSecrets")
    async def list_secrets() -> None:
        """Never served."""

    app = Litestar([list_secrets], openapi_config=documents.openapi_config())
    with pytest.raises(RuntimeError, match="no row in PERMISSIONS"):
        documents.finish(app)


def test_every_operation_declares_its_refusals_as_problem_documents(
    document: dict[str, Any],
) -> None:
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        answers = operation["responses"]
        assert {"400", "401", "403", "422", "429", "500", "503"} <= set(answers), where
        assert ("404" in answers) or "{" not in path, where
        assert SUCCESSES & set(answers), where
        for status, answer in answers.items():
            if status not in SUCCESSES:
                assert list(answer["content"]) == ["application/problem+json"], where
        assert operation["security"] == [{"apiKey": []}], where


def test_changes_take_an_idempotency_key_and_reads_do_not(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        headers = [p["name"] for p in operation.get("parameters", []) if p["in"] == "header"]
        assert headers == (["Idempotency-Key"] if method != "get" else []), path


def test_accepted_work_says_where_to_look(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        accepted = operation["responses"].get("202", {}).get("content", {})
        schema = accepted.get("application/json", {}).get("schema", {}).get("$ref", "")
        if schema.endswith("OperationView"):
            assert "Location" in operation["responses"]["202"]["headers"], path


def test_the_document_says_what_a_backup_cannot_do(document: dict[str, Any]) -> None:
    told = document["paths"]["/v1/tenants/{tenant}/backups"]["post"]["description"]
    assert "the RPO" in told
    assert "is the interval of" in " ".join(told.split())


def test_request_bodies_are_closed(document: dict[str, Any]) -> None:
    bodies = [name for name in document["components"]["schemas"] if name.endswith("Body")]
    assert len(bodies) == 23
    for name in bodies:
        assert document["components"]["schemas"][name]["additionalProperties"] is False


def test_parameters_are_never_null(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert isinstance(parameter["schema"]["type"], str), (path, parameter)
            assert parameter["in"] != "path" or "pattern" in parameter["schema"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert names == set(document["components"]["schemas"])


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    page = (documents.STATIC / "schema.html").read_text()
    assert "//" not in page.replace("<!DOCTYPE html>", "")
    assert 'load-fonts="false"' in page


def test_vendored_files_are_what_their_list_says() -> None:
    listed = re.findall(r"\| `(\S+)` \|.*\| `([0-9a-f]{64})` \|", readme())
    scripts = {path.name for path in documents.STATIC.glob("*.js")}
    assert {name for name, _ in listed} == scripts
    for name, digest in listed:
        assert hashlib.sha256((documents.STATIC / name).read_bytes()).hexdigest() == digest
        assert list(documents.STATIC.glob(f"{Path(name).stem.split('-')[0]}*LICENSE*"))


def readme() -> str:
    return (documents.STATIC / "README.md").read_text()
