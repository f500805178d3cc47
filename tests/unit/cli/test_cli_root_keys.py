"""``tenantry admin keys``: made, escrowed, drilled, rebuilt elsewhere, replaced."""

import re
import stat
from pathlib import Path
from uuid import UUID

import pytest

from control_plane.adapters import escrow, key_file
from control_plane.adapters.aws_kms import AwsKms
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import Keystore
from control_plane.adapters.kms import LocalKms
from control_plane.adapters.object_stores.files import FileStore
from tests.unit.cli.canned_api import Answer, CannedApi, events, operation
from tests.unit.cli.conftest import Run
from tests.unit.fake_kms import ARN, fake_kms

OWN = UUID(int=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "root.keys"


@pytest.fixture
def made(run: Run, path: Path) -> Path:
    assert run("admin", "keys", "init").code == 0
    return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    monkeypatch.setenv("TENANTRY_KEYSTORE", f"file://{directory}")
    return directory


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has nothing."""
    home = tmp_path / "elsewhere"
    monkeypatch.setenv("TENANTRY_HOME", str(home))
    return home / "keys" / "root.keys"


def escrowed(run: Run, directory: Path) -> list[str]:
    """The options that name two of the three shares."""
    assert run("admin", "keys", "escrow", "--to", str(directory)).code == 0
    shares = [directory / "share-3.txt", directory / "share-1.txt"]
    return [word for share in shares for word in ("--from-shares", str(share))]


@pytest.mark.parametrize("command", [["keys", "init"], ["init-keyring"]])
def test_a_key_file_is_made_once(run: Run, path: Path, command: list[str]) -> None:
    result = run("admin", *command)
    assert (result.code, result.stdout) == (0, f"{path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    again = run("admin", *command)
    assert again.code == 1
    assert "cannot create the key file" in again.stderr
    assert path.read_bytes() == before


def test_a_key_file_does_not_lie_in_a_store_or_in_a_database(
    run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_KEYRING_FILE", str(store / "root.keys"))
    assert "which it protects" in run("admin", "keys", "init").stderr
    monkeypatch.setenv("TENANTRY_BACKUP_STORE", f"file://{tmp_path}/backups")
    monkeypatch.setenv("TENANTRY_KEYRING_FILE", str(tmp_path / "backups" / "root.keys"))
    assert "which it protects" in run("admin", "init-keyring").stderr
    (tmp_path / "PG_VERSION").write_text("15\n")
    monkeypatch.setenv("TENANTRY_KEYRING_FILE", str(tmp_path / "root.keys"))
    assert "data of a Postgres server" in run("admin", "keys", "init").stderr
    assert not list(tmp_path.rglob("root.keys"))


def test_status_insists_on_a_proven_escrow(run: Run, made: Path, tmp_path: Path) -> None:
    first = run("admin", "keys", "status")
    assert first.code == 1
    assert "no proven escrow: epoch 1" in first.stderr
    assert key_file.read(made).epochs["1"].key not in first.stdout + first.stderr
    shares = escrowed(run, tmp_path / "paper")
    assert run("admin", "keys", "status").code == 1
    drilled = run("admin", "keys", "restore-drill", *shares)
    assert (drilled.code, drilled.stdout) == (0, "the shares give every root key of the key file\n")
    assert run("admin", "keys", "status").code == 0
    run("admin", "keys", "new-epoch")
    assert "no proven escrow: epoch 2" in run("admin", "keys", "status").stderr


def test_shares_are_printed_once_and_give_every_epoch(run: Run, made: Path) -> None:
    run("admin", "keys", "new-epoch")
    printed = run("admin", "keys", "escrow")
    shares = re.split(r"\n(?=Tenantry root keys)", printed.stdout)
    assert len(shares) == 3
    assert escrow.join(shares[1:]) == key_file.read(made).keys()
    document = run("admin", "keys", "escrow", "--json").json
    assert escrow.join(document["shares"][:2]) == key_file.read(made).keys()


def test_shares_in_files_are_for_their_owner_and_overwrite_nothing(
    run: Run, made: Path, tmp_path: Path
) -> None:
    del made
    escrowed(run, tmp_path / "paper")
    files = sorted((tmp_path / "paper").iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    before = [file.read_bytes() for file in files]
    again = run("admin", "keys", "escrow", "--to", str(tmp_path / "paper"))
    assert again.code == 1
    assert "share-1.txt" in again.stderr
    assert [file.read_bytes() for file in files] == before


def test_a_drill_with_the_wrong_shares_fails(run: Run, made: Path, tmp_path: Path) -> None:
    shares = escrowed(run, tmp_path / "paper")
    alone = run("admin", "keys", "restore-drill", *shares[:2])
    assert (alone.code, "one share only" in alone.stderr) == (1, True)
    run("admin", "keys", "new-epoch")
    stale = run("admin", "keys", "restore-drill", *shares)
    assert (stale.code, "epoch 2 is in the key file" in stale.stderr) == (1, True)
    made.unlink()
    run("admin", "keys", "init")
    other = run("admin", "keys", "restore-drill", *shares)
    assert (other.code, "another key than epoch 1" in other.stderr) == (1, True)
    assert key_file.read(made).epochs["1"].drilled is None


def test_a_drill_needs_something_to_prove_the_shares_with(
    run: Run, made: Path, tmp_path: Path
) -> None:
    shares = escrowed(run, tmp_path / "paper")
    made.unlink()
    refused = run("admin", "keys", "restore-drill", *shares)
    assert (refused.code, refused.stdout) == (1, "")
    assert "no key file and no key in a keystore to prove the shares with" in refused.stderr


def test_what_a_key_service_wrapped_proves_nothing_about_the_shares(
    run: Run, made: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    shares = escrowed(run, tmp_path / "paper")
    with fake_kms() as service:
        aws = AwsKms([ARN], region="eu-west-1", endpoint=service.url)
        Keystore(FileStore(store), aws).create(OWN, 1)
        monkeypatch.setenv("TENANTRY_KMS", f"aws-kms:{ARN}")
        monkeypatch.setenv("TENANTRY_KMS_ENDPOINT", service.url)
        made.unlink()
        refused = run("admin", "keys", "restore-drill", *shares)
    assert (refused.code, "to prove the shares with" in refused.stderr) == (1, True)


def test_another_machine_with_shares_and_the_store_opens_a_tenants_key(
    run: Run, made: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-28: the paper and the store are all that is left."""
    kept = Keystore(FileStore(store), LocalKms(Keyring.load(made)))
    kept.create(OWN, 1)
    run("admin", "keys", "new-epoch")
    kept.create(OWN, 2)
    keys = [kept.open(OWN, version) for version in (1, 2)]
    shares = escrowed(run, tmp_path / "paper")
    made.unlink()
    fresh = elsewhere(monkeypatch, tmp_path)

    drilled = run("admin", "keys", "restore-drill", *shares, "--json")
    assert drilled.json["epochs"] == [1, 2]
    assert drilled.json["proofs"] == [f"version 1 of the key of tenant {OWN} opens"]
    assert not fresh.exists()
    assert run("admin", "keys", "rebuild", *shares).code == 0
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
    found = Keystore(FileStore(store), LocalKms(Keyring.load(fresh)))
    assert [found.open(OWN, version) for version in (1, 2)] == keys
    assert Keyring.load(fresh).active == 2
    again = run("admin", "keys", "rebuild", *shares)
    assert (again.code, "cannot create" in again.stderr) == (1, True)


def test_shares_of_another_installation_do_not_become_a_key_file(
    run: Run, made: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = escrowed(run, tmp_path / "paper")
    made.unlink()
    run("admin", "keys", "init")
    Keystore(FileStore(store), LocalKms(Keyring.load(made))).create(OWN, 1)
    fresh = elsewhere(monkeypatch, tmp_path)
    for command in ("restore-drill", "rebuild"):
        refused = run("admin", "keys", command, *shares)
        assert (refused.code, "does not open" in refused.stderr) == (1, True)
    assert not fresh.exists()


def test_shares_can_be_typed(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    escrowed(run, tmp_path / "paper")
    typed = tmp_path / "typed"
    typed.write_text("".join((tmp_path / "paper" / f"share-{n}.txt").read_text() for n in (2, 3)))
    with typed.open() as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        result = run("admin", "keys", "restore-drill")
    assert result.code == 0
    assert "Ctrl-D" in result.stderr
    assert key_file.read(made).epochs["1"].drilled


def test_a_new_epoch_says_what_comes_next(run: Run, made: Path) -> None:
    result = run("admin", "keys", "new-epoch")
    assert (result.code, result.stdout) == (0, "epoch 2 seals from now on\n")
    assert "tenantry keys rekey --wait" in result.stderr
    assert run("admin", "keys", "new-epoch", "--json").json == {"active": 3}
    assert key_file.read(made).active == 3


def test_without_a_key_file_it_says_how_to_make_one(run: Run) -> None:
    for command in (["escrow"], ["status"], ["new-epoch"], ["retire-epoch", "1"]):
        refused = run("admin", "keys", *command)
        assert refused.code == 1, command
        assert "key file" in refused.stderr, command


def test_rekey_follows_the_work(run: Run, canned: CannedApi) -> None:
    begun = operation("pending", kind="rekey", tenant=None, subject="root key")
    ended = operation("succeeded", kind="rekey", tenant=None, subject="root key")
    canned.on("POST", "/v1/keys/rekeys", Answer(202, begun))
    canned.on("GET", "/v1/operations/op_1/events", events(ended))
    assert run("keys", "rekey", "--wait").code == 0


def test_a_rotated_key_tells_its_version(run: Run, canned: CannedApi) -> None:
    done = {"tenant": "acme", "version": 2, "versions": [1, 2]}
    canned.on("POST", "/v1/tenants/acme/key-rotations", done)
    assert run("tenants", "rotate-key", "acme").stdout == (
        "acme encrypts under version 2 of its key now\n"
    )
    assert run("tenants", "rotate-key", "acme", "--json").json == done
