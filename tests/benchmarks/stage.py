"""A stack of its own for each benchmark, with the settings of a real one."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.options import ServerOptions, StackOptions
from deploy.local.stack import Stack


@contextmanager
def stage(
    servers: tuple[ServerOptions, ...] = (ServerOptions("pg-a", "system"),), **environment: str
) -> Iterator[Stack]:
    """A running stack without the demo clinic; fsync stays on, as in production."""
    home = Path(tempfile.mkdtemp(prefix="tenantry-bench-", dir="/tmp"))
    stack = Stack(
        StackOptions(
            home=home,
            attached=True,
            demo=False,
            servers=servers,
            environment={"TENANTRY_RATE_LIMIT_PER_MINUTE": "1000000000", **environment},
        )
    )
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home)
