"""The S3 server of the local stack, started as the stack starts it, on a free port."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.object_stores.patience import Patience
from control_plane.adapters.object_stores.s3 import S3Store
from control_plane.adapters.object_stores.s3_requests import S3Place
from control_plane.config import Secret
from deploy.local import object_store
from deploy.local.binaries import rclone
from deploy.local.layout import Layout
from deploy.local.ports import choose_ports
from tests.fakes.scripted_s3 import Server

_START_SECONDS = 30.0
AnyStore = S3Store | FileStore
# As many attempts as usual, without the pauses between them.
HASTY = Patience(pauses=(0.01,) * 5)


@dataclass(frozen=True)
class S3Server(Server):
    """A running server of the local stack's kind."""

    def store(self, prefix: str, endpoint: str | None = None, **changes: float) -> S3Store:
        """The store under a prefix, asked through ``endpoint`` if that is not the server."""
        place = S3Place(
            bucket=object_store.BUCKET,
            prefix=prefix,
            endpoint=endpoint or self.url,
            region="us-east-1",
            access_key=self.access_key,
            secret_key=Secret(self.secret_key),
            **changes,
        )
        return S3Store(place, HASTY)


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server that is stopped, and its objects forgotten, at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="tenantry-s3-") as home:
        layout = Layout(Path(home))
        layout.objects.mkdir()
        layout.secret("").mkdir()
        port = choose_ports(layout.ports, [object_store.NAME])[object_store.NAME]
        binary = rclone(layout.home, None, Path(sys.executable).parent)
        service = object_store.service(binary, port, layout, None)
        with (
            (layout.home / "log").open("wb") as log,
            subprocess.Popen(
                service.program.argv, env=dict(service.program.environment), stdout=log, stderr=log
            ) as process,
        ):
            try:
                url = f"http://127.0.0.1:{port}"
                _wait_until_it_answers(process, url, layout.home / "log")
                keys = object_store.make_credentials(layout)
                yield S3Server(url, keys["access_key"], keys["secret_key"])
            finally:
                process.terminate()


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")
