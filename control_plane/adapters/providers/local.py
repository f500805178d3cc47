"""Servers of the local stack: its supervisor is asked to run one more Postgres."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from control_plane.adapters.providers.provider import Instance, Place, Standing, Wanted
from control_plane.domain.errors import ProviderRefused, ProviderUnavailable
from control_plane.domain.names import decode, encode
from control_plane.domain.providers import ProviderKind, ServerWish

_ANSWER_SECONDS = 240.0
_LONGEST_LINE = 1 << 20


class LocalProvider:
    """Speaks to the supervisor over its control socket, which only this account may open."""

    kind: ProviderKind = "local"

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def problems(self, wish: ServerWish) -> list[dict[str, str]]:
        given = {"instance_class": wish.instance_class, "storage_gb": wish.storage_gb}
        message = "leave it out: a local server is a process of this machine"
        return [{"field": field, "message": message} for field, value in given.items() if value]

    async def create(self, wanted: Wanted) -> None:
        await self._ask(
            do="provide",
            name=wanted.name,
            key=encode(wanted.key),
            password=wanted.password.reveal(),
            major=wanted.wish.version or 0,
        )

    async def look(self, key: UUID) -> Instance | None:
        return next((one for one in await self.every() if one.key == key), None)

    async def delete(self, key: UUID) -> None:
        await self._ask(do="withdraw", key=encode(key))

    async def every(self) -> list[Instance]:
        facts = await self._ask(do="status")
        return [_instance(server) for server in facts["servers"] if server["key"]]

    async def examine(self) -> Standing:
        return Standing(f"answers, {len(await self.every())} servers made to order")

    async def _ask(self, **request: object) -> dict[str, Any]:
        """The facts of the stack once it has done what was asked.

        Raises:
            ProviderUnavailable: no supervisor answers, or it could not do it just now.
            ProviderRefused: it will not do it.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._answer(msgspec.json.encode(request) + b"\n")
        except (OSError, TimeoutError, msgspec.DecodeError, asyncio.LimitOverrunError) as error:
            raise ProviderUnavailable(
                f"the supervisor of the local stack does not answer at {self._socket} "
                f"({type(error).__name__}); start the stack with: ./dev up"
            ) from error

    async def _answer(self, request: bytes) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self._socket, limit=_LONGEST_LINE)
        try:
            writer.write(request)
            await writer.drain()
            async for raw in reader:
                line: dict[str, Any] = msgspec.json.decode(raw)
                if line.get("failed") is not None:
                    kind = ProviderRefused if line.get("refused") else ProviderUnavailable
                    raise kind(f"the local stack: {line['failed']}")
                if line.get("done") is not None:
                    return dict(line["done"])
        finally:
            writer.close()
        raise ProviderUnavailable("the supervisor of the local stack ended without an answer")


def _instance(server: dict[str, Any]) -> Instance:
    running = server["pid"] is not None
    return Instance(
        key=decode(server["key"]),
        name=server["name"],
        state="available" if running else "creating",
        detail=f"process {server['pid']}" if running else "is being started",
        place=Place(server["host"], server["port"], server["admin_user"]) if running else None,
    )
