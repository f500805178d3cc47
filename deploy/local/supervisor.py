"""The process that owns a running stack: starts it, keeps it running, takes it down.

``python -m deploy.local.supervisor FD``: FD is one end of a socket pair. The first line it
carries is the options; progress and the outcome go back over it as JSON lines.
"""

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from deploy.local import leftovers, lock
from deploy.local.account import service_account
from deploy.local.blueprint import Blueprint, start_postgres
from deploy.local.facts import Facts, describe, publish
from deploy.local.keeper import Keeper, Service
from deploy.local.layout import Layout
from deploy.local.logs import keep_trimmed
from deploy.local.options import StackOptions, decode
from deploy.local.problem import StackError, one_line
from deploy.local.protocol import Line, Request, send
from deploy.local.provided import Provided, Refused, forget
from deploy.local.steps import run_steps

OPEN_FILES = 65_536  # PgBouncer's clients; every child inherits the limit
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """One stack from start to stop; lives in one thread, the main one."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._layout = blueprint.layout
        self._keepers: dict[str, Keeper] = {}
        self._listeners: list[asyncio.StreamWriter] = []
        self._phase = "starting"
        self._stop = asyncio.Event()
        self._providing = asyncio.Lock()

    async def run(self, reader: asyncio.StreamReader, owner: asyncio.StreamWriter) -> int:
        """Start the stack for its owner, keep it until told to stop; returns the exit code.

        The owner that goes away before the stack is up, or at any time when the stack is
        attached to it, takes the stack with it.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        watching = asyncio.create_task(self._watch_owner(reader))
        trimming = asyncio.create_task(keep_trimmed(self._layout.logs))
        server = await asyncio.start_unix_server(self._serve, self._layout.control)
        self._layout.control.chmod(0o600)
        try:
            return await self._live(owner)
        finally:
            watching.cancel()
            trimming.cancel()
            server.close()
            self._layout.control.unlink(missing_ok=True)

    async def _live(self, owner: asyncio.StreamWriter) -> int:
        problem = await self._start(owner)
        if problem is None:
            await send(owner, Line(done=self._facts()))
            await self._stop.wait()
        self._phase = "stopping"
        await self._halt_all()
        self._layout.facts.unlink(missing_ok=True)
        if problem is not None:
            self._report(problem)
            await send(owner, Line(failed=problem))
        return 0 if problem is None else 1

    async def _start(self, owner: asyncio.StreamWriter) -> str | None:
        """Start everything; the problem as one line if it cannot be, or was told to stop."""
        with self._listening(owner):
            starting = asyncio.create_task(self._start_all())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
                return "the start was interrupted; everything was stopped"
        error = starting.exception()
        if error is None:
            self._set_phase("running")
            return None
        return one_line(error)

    async def _start_all(self) -> None:
        await run_steps(self._blueprint.steps(self._launch, self._report), self._report)

    async def _launch(self, service: Service) -> None:
        keeper = Keeper(service, self._layout.log(service.name), self._report, self._publish)
        self._keepers[service.name] = keeper
        await keeper.start()

    async def _halt_all(self) -> None:
        """Stop tier by tier, those that use before those that are used."""
        for tier in sorted({k.service.tier for k in self._keepers.values()}, reverse=True):
            keepers = [k for k in self._keepers.values() if k.service.tier == tier]
            await asyncio.gather(*(keeper.halt() for keeper in keepers))

    async def _watch_owner(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        if self._phase == "starting" or self._blueprint.options.attached:
            self._stop.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = msgspec.json.decode(await reader.readline(), type=Request)
            with self._listening(writer):
                answer = await self._answer(request)
        except Exception as error:  # noqa: BLE001 the asker gets the line, the stack goes on
            answer = Line(failed=one_line(error), refused=isinstance(error, Refused))
        await send(writer, answer)
        writer.close()

    async def _answer(self, request: Request) -> Line:
        if request.do == "stop":
            self._stop.set()
            return Line(done={})
        if request.do != "status" and self._phase != "running":
            raise StackError(f"the stack in {self._layout.home} is {self._phase}; wait for it")
        if request.do == "heal":
            async with self._providing:
                await asyncio.gather(*(keeper.heal() for keeper in self._keepers.values()))
            if self._blueprint.options.application:
                await self._blueprint.enrol(demo=request.demo, report=self._report)
        elif request.do in ("provide", "withdraw"):
            await self._change_servers(request)
        elif request.do in ("halt", "restart"):
            keeper = self._keeper(request.name)
            await keeper.halt()
            if request.do == "restart":
                await keeper.start()
        return Line(done=self._facts())

    async def _change_servers(self, request: Request) -> None:
        async with self._providing:
            if request.do == "provide":
                await self._provide(request)
            else:
                await self._withdraw(request.key)

    async def _provide(self, request: Request) -> None:
        """Run one more tenant server; one that was asked for before is only looked after."""
        wanted = Provided(request.name, request.key, request.major)
        server = self._blueprint.remember(wanted, request.password)
        if server.name in self._keepers:
            await self._keepers[server.name].heal()
        else:
            await start_postgres(server, self._launch)

    async def _withdraw(self, key: str) -> None:
        """Stop a server that was asked for, and delete it; one that is gone is no error."""
        for server in self._blueprint.provided_servers:
            if server.key == key:
                keeper = self._keepers.get(server.name)
                if keeper is not None:
                    await keeper.halt()
                    del self._keepers[server.name]
                server.erase()
                forget(self._layout, key)

    def _keeper(self, name: str) -> Keeper:
        if name not in self._keepers:
            known = ", ".join(sorted(self._keepers))
            raise StackError(f"there is no process {name!r}; there are: {known}")
        return self._keepers[name]

    @contextlib.contextmanager
    def _listening(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._listeners.append(writer)
        try:
            yield
        finally:
            self._listeners.remove(writer)

    def _report(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the supervision
            print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", flush=True)
        for writer in self._listeners:
            if not writer.is_closing():
                writer.write(msgspec.json.encode(Line(progress=text)) + b"\n")

    def _set_phase(self, phase: str) -> None:
        self._phase = phase
        self._publish()

    def _facts(self) -> Facts:
        blueprint = self._blueprint
        provided = blueprint.provided_servers
        return describe(blueprint.inventory, provided, self._keepers, self._phase)

    def _publish(self) -> None:
        try:
            publish(self._layout, self._facts())
        except OSError as error:
            self._report(one_line(error))


def prepare(options: StackOptions) -> tuple[Blueprint, object]:
    """Claim the state directory for this process; the second value holds its lock.

    Raises:
        StackError: another supervisor runs it, or the place or a program cannot be used.
    """
    layout = Layout(options.home)
    account = service_account()
    layout.claim(account)
    held = lock.take(layout.lock)
    if held is None:
        raise StackError(f"another supervisor already runs the stack in {layout.home}")
    layout.prepare(account, options.minimum_free_bytes)
    leftovers.sweep(layout.home)
    layout.control.unlink(missing_ok=True)
    blueprint = Blueprint(options, layout, account)
    blueprint.prepare()
    return blueprint, held


async def supervise(owner: socket.socket) -> int:
    """Serve the owner at the other end of the socket pair; returns the exit code."""
    reader, writer = await asyncio.open_connection(sock=owner)
    try:
        options = decode(await reader.readline())
        blueprint, _held = prepare(options)
        return await Supervisor(blueprint).run(reader, writer)
    except Exception as error:
        await send(writer, Line(failed=one_line(error)))
        raise
    finally:
        writer.close()


def main() -> int:
    """Entry point; the exit code is 0 after an orderly stop."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    try:
        return asyncio.run(supervise(socket.socket(fileno=int(sys.argv[1]))))
    except StackError:
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
