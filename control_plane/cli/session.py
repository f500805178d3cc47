"""What one invocation of the command knows: how to answer, and the API it asks."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from control_plane.cli.client import Api


@dataclass
class Session:
    """``json`` and ``utc`` are set by the options that every command takes."""

    json: bool = False
    utc: bool = False

    @cached_property
    def api(self) -> "Api":
        """The API, found on first use.

        Raises:
            Problem: nothing names an API, or there is no key for it.
        """
        from control_plane.cli.client import open_api  # noqa: PLC0415 - httpx is slow to import

        return open_api()

    def close(self) -> None:
        """Let go of the connection, if there was one."""
        if "api" in self.__dict__:
            self.api.close()


pass_session = click.make_pass_decorator(Session, ensure=True)
