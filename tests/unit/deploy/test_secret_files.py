"""The secrets of a composition: made once, put right when a reader's copy is not."""

import json
import os
from pathlib import Path

import pytest

from deploy.secret_files import DIRECTORIES, make_secrets
from deploy.server_argument import ServerToEnrol

ME = (os.geteuid(), os.getegid())


def test_every_reader_has_its_files_and_they_agree(tmp_path: Path) -> None:
    assert len(make_secrets(tmp_path, ME)) == 10
    assert sorted(place.name for place in tmp_path.iterdir()) == sorted(DIRECTORIES)
    text = {str(f.relative_to(tmp_path)): f.read_text() for f in tmp_path.glob("*/*")}
    assert text["agent/catalog.password"] == text["application/catalog.password"]
    assert text["agent/catalog.password"] == text["own/catalog"]
    redis = text["application/redis.password"].strip()
    assert text["redis/valkey.conf"] == f"requirepass {redis}\n"
    keys = json.loads(text["application/store.json"])
    assert text["store/auth-key"] == f'"{keys["access_key"]},{keys["secret_key"]}"\n'
    secrets = [text[f"own/{name}"] for name in ("catalog-admin", "pg-a", "pg-b", "console")]
    assert len(set(secrets)) == 4
    assert all(len(secret.strip()) == 40 for secret in secrets)


def test_a_second_time_changes_nothing_and_mends_what_is_lacking(tmp_path: Path) -> None:
    make_secrets(tmp_path, ME)
    before = {f: f.read_text() for f in tmp_path.glob("*/*")}
    assert make_secrets(tmp_path, ME) == []
    lost = tmp_path / "agent" / "console.password"
    lost.unlink()
    (tmp_path / "pg-a" / "admin.password").write_text("")
    assert sorted(make_secrets(tmp_path, ME)) == [lost, tmp_path / "pg-a" / "admin.password"]
    assert {f: f.read_text() for f in tmp_path.glob("*/*")} == before


def test_what_is_ours_is_private(tmp_path: Path) -> None:
    make_secrets(tmp_path, ME)
    for directory, mode in (("own", 0o600), ("application", 0o600), ("redis", 0o444)):
        modes = {f.stat().st_mode & 0o777 for f in (tmp_path / directory).iterdir()}
        assert modes == {mode}, directory


@pytest.mark.parametrize("text", ["pg-a", "pg-a=", "=host:1", "pg-a=host", "pg-a=host:", "a=:1"])
def test_a_server_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=HOST:PORT"):
        ServerToEnrol.parse(text)
