"""``tenantry admin test-store``, as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.object_store.s3_server import S3Server


def test_store(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TENANTRY_", "AWS_"))}
    return subprocess.run(
        [str(Path(sys.executable).with_name("tenantry")), "admin", "test-store", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=kept | settings,
    )


test_store.__test__ = False  # type: ignore[attr-defined]  # a command, and no test


def s3_settings(server: S3Server, directory: Path, **changes: str) -> dict[str, str]:
    keys = {"access_key": server.access_key, "secret_key": server.secret_key, **changes}
    file = directory / "keys.json"
    file.write_text(json.dumps(keys))
    return {
        "TENANTRY_S3_ENDPOINT": server.url,
        "TENANTRY_S3_CREDENTIALS_FILE": str(file),
        "TENANTRY_BACKUP_STORE": "s3://tenantry/command",
    }


def test_it_says_what_was_done(s3_server: S3Server, tmp_path: Path) -> None:
    ended = test_store(**s3_settings(s3_server, tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "s3://tenantry/command can be relied on:"
    assert len(lines) == 7
    assert "- uploaded 10485760 bytes in parts, and read them back" in lines


def test_the_place_of_the_keys_is_tested_too(s3_server: S3Server, tmp_path: Path) -> None:
    keys = tmp_path / "keystore"
    keys.mkdir()
    settings = s3_settings(s3_server, tmp_path)
    ended = test_store("--json", **settings, TENANTRY_KEYSTORE=f"file://{keys}")
    assert ended.returncode == 0, ended.stderr
    tested = json.loads(ended.stdout)
    assert [one["store"] for one in tested] == ["s3://tenantry/command", f"file://{keys}"]
    assert all(len(one["done"]) == 6 for one in tested)


def test_what_is_wrong_is_one_line_without_a_secret(s3_server: S3Server, tmp_path: Path) -> None:
    settings = s3_settings(s3_server, tmp_path, secret_key="canary-3e5f")
    refused = test_store(**settings)
    assert refused.returncode == 1
    assert "SignatureDoesNotMatch" in refused.stderr
    missing = test_store(**{**settings, "TENANTRY_BACKUP_STORE": f"file://{tmp_path}/not-there"})
    assert missing.returncode == 1
    assert "mount its disk" in missing.stderr
    wrong = test_store(**{**settings, "TENANTRY_BACKUP_STORE": "s3://x"})
    assert wrong.returncode == 2
    assert "3 to 63" in wrong.stderr
    none = test_store()
    assert none.returncode == 2
    assert "TENANTRY_BACKUP_STORE is not set" in none.stderr
    for ended in (refused, missing, wrong, none):
        assert len(ended.stderr.splitlines()) == 1
        assert "canary" not in ended.stderr + ended.stdout
