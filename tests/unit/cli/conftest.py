"""A canned API, and a person who types commands against it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.main import main
from tests.unit.cli.canned_api import TOKEN, CannedApi, serving


@dataclass(frozen=True)
class Result:
    """What one command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.stdout)


Run = Callable[..., Result]


@pytest.fixture
def canned() -> Iterator[CannedApi]:
    with serving() as api:
        yield api


@pytest.fixture
def run(
    canned: CannedApi,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Runs one command line in this process, against the canned API."""
    monkeypatch.setenv("TENANTRY_URL", canned.url)
    monkeypatch.setenv("TENANTRY_TOKEN", TOKEN)
    monkeypatch.setenv("TENANTRY_HOME", str(tmp_path))
    for name in ("TENANTRY_SERVER_PASSWORD", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def typed(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        shown = capsys.readouterr()
        return Result(code, shown.out, shown.err)

    return typed
