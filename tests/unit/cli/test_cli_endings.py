"""``tenantry tenants archive … certificate`` and ``export``: what is asked, and what is told."""

import base64
import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest

from control_plane.adapters import signatures
from control_plane.adapters.signatures import Signer
from tests.unit.cli.canned_api import (
    NOW,
    Answer,
    CannedApi,
    Json,
    events,
    operation,
    page,
    problem,
    step,
    tenant,
)
from tests.unit.cli.conftest import Run

ACCEPTED = Answer(202, operation("pending", step("withdraw_route"), kind="archive"))
HERE = "/v1/tenants/acme"
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudrk4e4qkzh9m0"
SEALED = b"age-encryption.org/v1 and so on"


@pytest.mark.parametrize(
    ("typed", "method", "path", "query"),
    [
        ("archive acme", "POST", f"{HERE}/archives", {}),
        ("archive acme --dry-run", "POST", f"{HERE}/archives", {"dry_run": "true"}),
        ("unarchive acme", "DELETE", f"{HERE}/archives", {}),
        (
            "unarchive acme --server pg-b --region eu --from bk_1",
            "DELETE",
            f"{HERE}/archives",
            {"server": "pg-b", "region": "eu", "backup_id": "bk_1"},
        ),
        ("delete acme --confirm acme", "DELETE", HERE, {"confirm": "acme"}),
        ("delete acme --dry-run", "DELETE", HERE, {"confirm": "acme", "dry_run": "true"}),
        (
            "delete acme --confirm acme --grace 7d --keep-backups 0 --no-final-backup",
            "DELETE",
            HERE,
            {
                "confirm": "acme",
                "grace_seconds": "604800",
                "keep_backups_days": "0",
                "final_backup": "false",
            },
        ),
        (
            "delete acme --confirm acme --final-backup",
            "DELETE",
            HERE,
            {"confirm": "acme", "final_backup": "true"},
        ),
        ("undelete acme", "POST", f"{HERE}/undelete", {}),
    ],
)
def test_what_was_typed_is_asked_for(
    run: Run, canned: CannedApi, typed: str, method: str, path: str, query: dict[str, str]
) -> None:
    plan = {"dry_run": True, "kind": "archive", "tenant": "acme", "steps": ["withdraw_route"]}
    canned.on(method, path, plan if "--dry-run" in typed else ACCEPTED)

    result = run("tenants", *typed.split())

    assert result.code == 0, result.stderr
    assert [(one.query, one.body) for one in canned.asked] == [(query, None)]


def test_nobody_deletes_by_a_slip(run: Run, canned: CannedApi) -> None:
    result = run("tenants", "delete", "acme")

    assert result.code == 2
    assert "--confirm acme" in result.stderr
    assert canned.asked == []


def test_a_hold_is_put_and_released(run: Run, canned: CannedApi) -> None:
    hold = f"{HERE}/legal-hold"
    canned.on("PUT", hold, tenant("acme", legal_hold=True))
    canned.on("DELETE", hold, tenant("acme", legal_hold=False))

    held = run("tenants", "hold", "acme", "--reason", "case 12")
    free = run("tenants", "release", "acme", "--json")

    assert (held.code, held.stdout) == (0, "acme is under legal hold\n")
    assert free.json["legal_hold"] is False
    assert canned.asked[0].body == {"reason": "case 12"}
    assert canned.asked[1].query == {}
    assert run("tenants", "hold", "acme").code == 2


def test_show_tells_of_the_end(run: Run, canned: CannedApi) -> None:
    ending = tenant("acme", state="deleting", legal_hold=True, delete_after=NOW, shred_after=None)
    canned.on("GET", HERE, ending)

    told = run("tenants", "show", "acme", "--utc").stdout

    assert "legal hold    nothing of it may be destroyed" in told
    assert "databases go  2026-01-31 08:00:00Z" in told
    assert "backups go" not in told


def signed(**changes: Any) -> Json:
    signer = Signer.generate()
    document: Json = {
        "tenant": {"slug": "acme", "name": "Acme"},
        "requested": {"by": "olga", "at": NOW},
        "effective_at": "2026-03-07T08:00:00Z",
        "counts": {"backups": 2, "key_versions": 1},
        "not_reached": [
            {"what": "copies of the keystore", "form": "wrapped", "until": "2026-03-07T08:00:00Z"},
            {"what": "exports that were taken away", "form": "in full", "until": None},
        ],
    }
    return {
        "id": "ce_1",
        "tenant": "tn_1",
        "issued_at": NOW,
        "document": document | changes,
        "signature": base64.b64encode(signer.sign(signatures.canonical(document))).decode(),
        "public_key": base64.b64encode(signer.public_key).decode(),
        "key_fingerprint": signatures.fingerprint(signer.public_key),
    }


def test_a_certificate_is_shown_and_its_signature_looked_at(run: Run, canned: CannedApi) -> None:
    canned.on("GET", f"{HERE}/certificate", signed())

    result = run("tenants", "certificate", "acme", "--utc")

    assert result.code == 0
    assert "signature     right" in result.stdout
    assert "2 backups, 1 key versions" in result.stdout
    assert "2026-03-07 08:00:00Z" in result.stdout
    assert "exports that were taken away" in result.stdout


def test_a_forged_certificate_is_told(run: Run, canned: CannedApi) -> None:
    canned.on("GET", f"{HERE}/certificate", signed(counts={"backups": 3}))

    shown = run("tenants", "certificate", "acme")
    as_json = run("tenants", "certificate", "acme", "--json")

    assert (shown.code, as_json.code) == (1, 1)
    assert "WRONG" in shown.stdout
    assert "not that of this document" in as_json.stderr
    assert as_json.json["document"]["counts"] == {"backups": 3}


def exported(canned: CannedApi, sealed: bytes = SEALED, **link: Any) -> None:
    """An export that succeeds, and an object store that hands it out."""
    ended = operation("succeeded", step("record_export", "done"), kind="export")
    canned.on("POST", f"{HERE}/exports", Answer(202, operation("pending", kind="export")))
    canned.on("GET", "/v1/operations/op_1/events", events(ended))
    bundle = {
        "id": "ex_1",
        "operation": "op_1",
        "tenant": "tn_1",
        "sha256": hashlib.sha256(SEALED).hexdigest(),
        "rows": 17,
        "tables": 3,
    }
    canned.on("GET", f"{HERE}/exports", page({**bundle, "id": "ex_0", "operation": "op_0"}, bundle))
    url = f"{canned.url}/bucket/object?X-Amz-Signature=1"
    canned.on("POST", "/v1/exports/ex_1/links", {"url": url} | link)
    canned.on("GET", "/bucket/object", Answer(chunks=(sealed[:9], sealed[9:])))


def test_an_export_is_fetched_without_our_key(run: Run, canned: CannedApi, tmp_path: Path) -> None:
    exported(canned)

    result = run("export", "acme", "--to", str(tmp_path), "--recipient", RECIPIENT, "--keep", "5h")

    assert result.code == 0, result.stderr
    assert canned.asked[0].body == {"recipient": RECIPIENT, "keep_hours": 5}
    (fetched,) = canned.requests("GET", "/bucket/object")
    assert "authorization" not in fetched.headers
    (file,) = tmp_path.iterdir()
    assert file.name == "acme-ex_1.zip.age"
    assert file.read_bytes() == SEALED
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "17 rows of 3 tables" in result.stdout


def test_without_a_recipient_a_key_is_made(run: Run, canned: CannedApi, tmp_path: Path) -> None:
    exported(canned)

    result = run("export", "acme", "--to", str(tmp_path), "--json")

    assert result.code == 0, result.stderr
    key = Path(result.json["key_file"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().startswith("AGE-SECRET-KEY-1")
    assert canned.asked[0].body["recipient"].startswith("age1")
    assert key.read_text().strip() not in str([one.body for one in canned.asked])


def test_what_came_damaged_is_not_kept(run: Run, canned: CannedApi, tmp_path: Path) -> None:
    exported(canned, b"age-encryption.org/v1 and something else")

    result = run("export", "acme", "--to", str(tmp_path), "--recipient", RECIPIENT)

    assert result.code == 1
    assert "not the bundle" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_refuses_is_told(run: Run, canned: CannedApi, tmp_path: Path) -> None:
    exported(canned)
    canned.on("GET", "/bucket/object", Answer(403, "<Error/>", "application/xml"))

    result = run("export", "acme", "--to", str(tmp_path), "--recipient", RECIPIENT)

    assert result.code == 1
    assert "the object store answered 403" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(run: Run, canned: CannedApi, tmp_path: Path) -> None:
    failed = operation("failed", kind="export", error={"code": "dump_failed", "message": "no"})
    canned.on("POST", f"{HERE}/exports", Answer(202, operation("pending", kind="export")))
    canned.on("GET", "/v1/operations/op_1/events", events(failed))

    shown = run("export", "acme", "--to", str(tmp_path))
    as_json = run("export", "acme", "--to", str(tmp_path), "--json")

    assert (shown.code, as_json.code) == (1, 1)
    assert as_json.json["error"]["code"] == "dump_failed"
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_told(run: Run, canned: CannedApi, tmp_path: Path) -> None:
    canned.on("POST", f"{HERE}/exports", problem(409, "wrong_state", "acme is archived"))

    result = run("export", "acme", "--to", str(tmp_path), "--recipient", RECIPIENT)

    assert (result.code, result.stderr) == (4, "error: acme is archived\n")
    assert run("export", "acme", "--to", str(tmp_path / "nowhere")).code == 2
