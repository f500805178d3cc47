"""One S3 server for all of these tests; each test has a prefix and a directory of its own."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from control_plane.adapters.object_stores.files import FileStore
from tests.fakes.scripted_s3 import ScriptedS3
from tests.integration.object_store.s3_server import AnyStore, S3Server, running_s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[ScriptedS3]:
    """A proxy that spoils nothing until it is told to."""
    with ScriptedS3(lambda: s3_server) as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex}/"


@pytest.fixture(params=["s3", "file"])
def store(
    request: pytest.FixtureRequest, s3_server: S3Server, prefix: str, tmp_path: Path
) -> AnyStore:
    """An empty store of each kind."""
    return s3_server.store(prefix) if request.param == "s3" else FileStore(tmp_path)
