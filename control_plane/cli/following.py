"""Following an operation: its stream of events, and asking again when that stops."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from control_plane.cli.paths import path
from control_plane.cli.problems import Json, Problem

if TYPE_CHECKING:
    from control_plane.cli.client import Api

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0
OVER = frozenset({"succeeded", "failed", "cancelled"})


def is_over(operation: Json) -> bool:
    return operation["state"] in OVER


def follow(api: "Api", operation_id: str, patience: float = PATIENCE_SECONDS) -> Iterator[Json]:
    """The operation as it changes, until it is over.

    A broken stream is opened again; in between, and where streams are refused, the operation
    is asked for every 200 ms.

    Raises:
        Problem: the operation cannot be read, or nothing answered for ``patience`` seconds.
    """
    watch = _Watch(api, operation_id)
    heard = time.monotonic()
    while True:
        try:
            with closing(watch.look()) as snapshots:
                for operation in snapshots:
                    heard = time.monotonic()
                    yield operation
                    if is_over(operation):
                        return
        except Problem as trouble:
            if not trouble.passing or time.monotonic() - heard > patience:
                raise
        time.sleep(POLL_SECONDS)


class _Watch:
    def __init__(self, api: "Api", operation_id: str) -> None:
        self._api = api
        self._operation_id = operation_id
        self._streams = True

    def look(self) -> Generator[Json, None, None]:
        """A stream for as long as it lasts, then one plain look."""
        if self._streams:
            try:
                yield from self._api.stream(self._operation_id)
            except Problem as trouble:
                # Trouble passes; a refusal, as by a proxy without streams, does not.
                self._streams = trouble.passing
        yield self._api.get(path("operations", self._operation_id))
