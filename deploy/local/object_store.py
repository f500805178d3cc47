"""An S3 server for backups: rclone over a directory, with SigV4 and its own key pair."""

import json
import secrets
from pathlib import Path

from deploy.local.account import Account, give
from deploy.local.files import secret_once
from deploy.local.keeper import Service
from deploy.local.layout import Layout
from deploy.local.ports import LOOPBACK
from deploy.local.ready import http
from deploy.local.spawn import Program

NAME = "object-store"
BUCKET = "tenantry"
TIER = 1
# Otherwise rclone hashes an object two more times as it comes, which costs more than all the rest,
# reads it through for a HEAD, and again after each GET. Who keeps a backup here hashes it anyway.
NO_HASHES = ("--etag-hash=", "--no-checksum", "--ignore-checksum")
REFUSES_STRANGERS = frozenset({400, 403})


def credentials_file(layout: Layout) -> Path:
    """JSON with ``access_key`` and ``secret_key``, mode 0600."""
    return layout.secret("object-store.json")


def make_credentials(layout: Layout) -> dict[str, str]:
    """The key pair, made when there is none yet."""
    keys: dict[str, str] = json.loads(secret_once(credentials_file(layout), _key_pair))
    return keys


def service(binary: str, port: int, layout: Layout, account: Account | None) -> Service:
    """The S3 server; its key pair goes by the environment, its bucket is a directory."""
    bucket = layout.objects / BUCKET
    bucket.mkdir(exist_ok=True)
    give(bucket, account, 0o700)
    keys, root = make_credentials(layout), str(layout.objects)
    return Service(
        name=NAME,
        program=Program(
            argv=(binary, "serve", "s3", "--addr", f"{LOOPBACK}:{port}", *NO_HASHES, root),
            home=layout.home,
            account=account,
            environment={
                # rclone reads a list of comma-separated fields, so the pair needs its quotes
                "RCLONE_AUTH_KEY": f'"{keys["access_key"]},{keys["secret_key"]}"',
                "RCLONE_CONFIG": "/dev/null",
            },
        ),
        ready=http(port, "/", REFUSES_STRANGERS),
        tier=TIER,
        port=port,
    )


def _key_pair() -> str:
    pair = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_hex(20)}
    return json.dumps(pair)
