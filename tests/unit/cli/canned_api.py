"""A small HTTP server over loopback that gives canned answers and remembers what was asked."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]
TOKEN = "tnk_lookup_secret"
NOW = "2026-01-31T08:00:00Z"


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """One answer; ``chunks`` are sent one by one with a short pause between them."""

    status: int = 200
    body: Any = None
    media_type: str = "application/json"
    chunks: tuple[bytes, ...] = ()
    pause: float = 0.0
    hang_up: bool = False


@dataclass
class CannedApi:
    """Answers by method and path, in order; the last one is given again and again."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Answer]] = field(default_factory=lambda: defaultdict(list))

    def on(self, method: str, path: str, *answers: Answer | Json) -> None:
        self.answers[method, path] = [
            answer if isinstance(answer, Answer) else Answer(body=answer) for answer in answers
        ]

    def next_answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        waiting = self.answers.get((asked.method, asked.path))
        if not waiting:
            return problem(404, "not_found", f"nothing canned for {asked.method} {asked.path}")
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def requests(self, method: str, path: str) -> list[Asked]:
        return [one for one in self.asked if (one.method, one.path) == (method, path)]


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    document = {
        "type": f"urn:tenantry:problem:{code}",
        "title": code.capitalize(),
        "status": status,
        "detail": detail,
        "instance": "/v1",
        "code": code,
        **more,
    }
    return Answer(status, document, "application/problem+json")


def page(*items: Json, next_cursor: str | None = None) -> Json:
    return {"items": list(items), "next_cursor": next_cursor}


def tenant(slug: str, **more: Any) -> Json:
    return {
        "id": f"tn_{slug}",
        "slug": slug,
        "name": slug.title(),
        "tier": "standard",
        "region": None,
        "labels": {},
        "state": "active",
        "server": "pg-a",
        "cell": "cell-1",
        "template": "clinic",
        "schema_revision": "0001",
        "placement_reason": "pg-a: least loaded of 2 that fit (0 of 500 places taken)",
        "created_at": NOW,
        "activated_at": NOW,
        "operation": None,
        **more,
    }


def step(name: str, state: str = "pending", **more: Any) -> Json:
    return {
        "name": name,
        "state": state,
        "attempts": 1,
        "started_at": None,
        "finished_at": None,
        "detail": None,
        "error": None,
        **more,
    }


def done(name: str, milliseconds: int, detail: str | None = None) -> Json:
    ended = f"2026-01-31T08:00:00.{milliseconds:03d}Z"
    return step(name, "done", started_at=NOW, finished_at=ended, detail=detail)


def operation(state: str, *steps: Json, **more: Any) -> Json:
    over = state in {"succeeded", "failed", "cancelled"}
    return {
        "id": "op_1",
        "kind": "provision",
        "tenant": "acme",
        "state": state,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": "2026-01-31T08:00:00.412Z" if over else None,
        "deadline": "2026-01-31T08:10:00Z",
        "actor": "local-admin",
        "progress": {"done": 0, "total": len(steps), "detail": None},
        "steps": list(steps),
        "error": None,
        "result": None,
        **more,
    }


def events(*snapshots: Json, ends: bool = True) -> Answer:
    """A stream of server-sent events; without ``ends`` the last one is cut in the middle."""
    chunks = [
        b": ping\r\n\r\nevent: operation\r\ndata: " + json.dumps(one).encode() + b"\r\n\r\n"
        for one in snapshots
    ]
    if not ends:
        chunks.append(b'data: {"state": "succ')
    return Answer(media_type="text/event-stream", chunks=tuple(chunks))


@contextmanager
def serving() -> Iterator[CannedApi]:
    """A server with nothing canned yet."""
    api = CannedApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(api: CannedApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(
                method=self.command,
                path=url.path,
                query=dict(parse_qsl(url.query)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=json.loads(raw) if raw else None,
            )
            self._send(api.next_answer(asked))

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names http.server looks for

        def _send(self, answer: Answer) -> None:
            time.sleep(answer.pause)
            self.close_connection = True
            if answer.hang_up:
                return
            body = b"" if answer.body is None else json.dumps(answer.body).encode()
            if isinstance(answer.body, str):
                body = answer.body.encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.media_type)
            self.end_headers()
            self.wfile.write(body)
            for chunk in answer.chunks:
                self.wfile.write(chunk)
                self.wfile.flush()
                time.sleep(0.01)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
