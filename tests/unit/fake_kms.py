"""An endpoint that answers as AWS KMS does on a bad day, and on a good one."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ARN = "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555"


@dataclass
class FakeKms:
    """Refuses with ``refusal`` (a status and an error code) until that is ``None``.

    A wrapped key is the plain one backwards; ``asked`` are the requests that came.
    """

    url: str = ""
    refusal: tuple[int, str] | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, action: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append((action, request))
        if self.refusal is not None:
            status, code = self.refusal
            return status, {"__type": code, "message": "no"}
        turned = {
            name: base64.b64encode(base64.b64decode(request[name])[::-1]).decode()
            for name in ("Plaintext", "CiphertextBlob")
            if name in request
        }
        if action == "Encrypt":
            return 200, {"KeyId": ARN, "CiphertextBlob": turned["Plaintext"]}
        return 200, {"KeyId": ARN, "Plaintext": turned["CiphertextBlob"]}


@contextmanager
def fake_kms() -> Iterator[FakeKms]:
    """A running endpoint on a free port."""
    fake = FakeKms()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            action = self.headers["X-Amz-Target"].partition(".")[2]
            status, answer = fake.answer(action, json.loads(body))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        running = threading.Thread(target=server.serve_forever)
        running.start()
        try:
            yield fake
        finally:
            server.shutdown()
            running.join()
