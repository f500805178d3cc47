"""An API server that speaks as much of Kubernetes as servers are made with, over real TLS.

It keeps objects, applies, gets, lists by label and deletes them, and refuses wrong tokens and what
the account may not do, counted as RBAC counts it. States are injected by ``status``, refusals by
``refuse``. It is no Kubernetes: nothing is run, and no operator acts on what is applied.
"""

import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "token-of-the-service-account"
APPLY = "application/apply-patch+yaml"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
Right = tuple[str, str, str]


@dataclass
class FakeKubernetes:
    """Objects by path. ``refusals`` are answers for the next requests, in their order.

    ``allowed`` are the verb, group and resource of all that the account may do; ``None``: anything.
    """

    url: str = ""
    token: str = TOKEN
    allowed: set[Right] | None = None
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)
    keeps_what_is_deleted: bool = False

    def status(self, path: str, **status: Any) -> None:
        """What the operator would write into the status of this object."""
        self.objects[path]["status"] = status

    def refuse(self, status: int, message: str) -> None:
        self.refusals.append((status, message))

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        self.asked.append((method, path, query))
        if self.refusals:
            return self._status(*self.refusals.pop(0))
        if path == REVIEWS:
            return 201, self._review(body["spec"]["resourceAttributes"])
        for verb in self._verbs(method, path):
            if not self._may((verb, *_resource(path))):
                return self._status(403, f"cannot {verb} resource {_resource(path)[1]}")
        return self._act(method, path, query, body)

    def _act(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if method == "PATCH":
            return self._apply(path, query, body)
        if path.rsplit("/", 1)[-1] in ("clusters", "secrets"):
            return 200, {"items": self._listed(path, query)}
        if path not in self.objects:
            return self._status(404, "not found")
        return 200, self._delete(path) if method == "DELETE" else self.objects[path]

    def _may(self, right: Right) -> bool:
        return self.allowed is None or right in self.allowed

    def _review(self, wanted: dict[str, str]) -> dict[str, Any]:
        right = (wanted["verb"], wanted["group"], wanted["resource"])
        return {"kind": "SelfSubjectAccessReview", "status": {"allowed": self._may(right)}}

    def _verbs(self, method: str, path: str) -> list[str]:
        """What Kubernetes asks RBAC for: an apply of what is not there creates it as well."""
        if method == "PATCH":
            return ["patch"] if path in self.objects else ["patch", "create"]
        listing = path.rsplit("/", 1)[-1] in ("clusters", "secrets")
        return ["delete" if method == "DELETE" else "list" if listing else "get"]

    def _apply(
        self, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if "fieldManager" not in query:
            return self._status(400, "fieldManager is required for apply patch")
        if body["metadata"]["name"] != path.rsplit("/", 1)[-1]:
            return self._status(400, "the name of the object does not match the URL")
        made = path not in self.objects
        self.objects[path] = {**self.objects.get(path, {}), **body}
        return (201 if made else 200), self.objects[path]

    def _listed(self, path: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        label, _, value = query.get("labelSelector", ["="])[0].partition("=")
        return [
            one
            for place, one in self.objects.items()
            if place.rsplit("/", 1)[0] == path
            and (not label or one["metadata"].get("labels", {}).get(label) == value)
        ]

    def _delete(self, path: str) -> dict[str, Any]:
        if self.keeps_what_is_deleted:
            self.objects[path]["metadata"]["deletionTimestamp"] = "2026-01-31T08:00:00Z"
            return self.objects[path]
        return self.objects.pop(path)

    @staticmethod
    def _status(code: int, message: str) -> tuple[int, dict[str, Any]]:
        return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}


def _resource(path: str) -> tuple[str, str]:
    """Group and resource: /api/v1/namespaces/N/secrets, /apis/GROUP/v1/namespaces/N/clusters."""
    words = path.strip("/").split("/")
    group = words[1] if words[0] == "apis" else ""
    return group, words[words.index("namespaces") + 2]


def make_certificate(place: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    today = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (place / "ca.crt").write_bytes(made.public_bytes(pem))
    (place / "key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return place / "ca.crt", place / "key"


@contextmanager
def fake_kubernetes(certificate: Path, key: Path) -> Iterator[FakeKubernetes]:
    """Runs on a free port of 127.0.0.1 until the block ends."""
    fake = FakeKubernetes()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            code, document = 401, {"kind": "Status", "message": "Unauthorized"}
            if self.headers.get("Authorization") == f"Bearer {fake.token}":
                code, document = 415, {"kind": "Status", "message": "unsupported media type"}
                if self.command != "PATCH" or self.headers["Content-Type"] == APPLY:
                    query = parse_qs(parts.query)
                    code, document = fake.answer(self.command, parts.path, query, body)
            raw = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PATCH = do_POST = do_DELETE = _answer  # noqa: N815 - the names http.server calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its signature
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    fake.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
