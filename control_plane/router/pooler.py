"""The PgBouncer process of one agent: files written, read by it, and read back from it."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from control_plane.adapters.scram import matches, verifier
from control_plane.catalog.routes import WantedRoute
from control_plane.config import PoolerSettings
from control_plane.domain.errors import PoolerUnavailable
from control_plane.router.pgbouncer_config import (
    ACCESS_FILE,
    AUTHORITIES_FILE,
    CONSOLE_USER,
    DATABASES_FILE,
    MAIN_FILE,
    USERS_FILE,
    Entry,
    parse_databases,
    render_access,
    render_databases,
    render_main,
    render_users,
    served_digest,
    tenant_user_lines,
)
from control_plane.router.pgbouncer_console import Console
from control_plane.router.pgbouncer_files import PoolerFiles
from control_plane.router.waiting import rest

_QUIET_FACTOR = 5
_LONGEST_QUIET_SECONDS = 1.0
_SHRINK_LOOKS = 10
_SHRINK_SECONDS = 0.05

_parsed = functools.lru_cache(maxsize=2)(parse_databases)


class Rendered(msgspec.Struct, frozen=True):
    """A whole configuration: the text of every file, and what it must amount to."""

    texts: dict[str, str]
    entries: dict[str, Entry]
    digest: str


class LocalPooler:
    """What the agent knows about its PgBouncer; ``served`` is what was last read back from it.

    ``quiet_from`` is the moment, on the monotonic clock, from which another RELOAD is
    reasonable: a RELOAD stops every client of the process, so at most a sixth of its time
    goes into them.
    """

    def __init__(self, settings: PoolerSettings) -> None:
        self._settings = settings
        self.files = PoolerFiles(settings.directory)
        self.console = Console(settings)
        self.quiet_from = 0.0
        self.reload_seconds = 0.0
        self._console_verifier = self._own_verifier()
        self.served: Rendered | None = None
        self._session: int | None = None

    def prepare(self) -> list[str]:
        """Make the files with which PgBouncer can start; routes on disk stay; names written.

        Raises:
            PoolerUnavailable: a file cannot be written.
        """
        kept = tenant_user_lines(self.files.read(USERS_FILE) or "")
        console = render_users([], self._console_verifier).rstrip("\n")
        texts = {
            MAIN_FILE: render_main(self._settings),
            ACCESS_FILE: render_access(),
            USERS_FILE: "\n".join([console, *kept]) + "\n",
        }
        if self.files.read(DATABASES_FILE) is None:
            texts[DATABASES_FILE] = render_databases([], self._settings.directory)
        return self.files.write_all(texts)

    def render(self, routes: Sequence[WantedRoute], authorities: Sequence[str]) -> Rendered:
        """The configuration for these routes.

        Raises:
            Unrenderable: a route cannot be written.
        """
        directory = self._settings.directory
        texts = {
            MAIN_FILE: render_main(self._settings),
            ACCESS_FILE: render_access(),
            USERS_FILE: render_users(routes, self._console_verifier),
            DATABASES_FILE: render_databases(routes, directory),
        }
        if authorities:
            texts = {AUTHORITIES_FILE: "\n".join(sorted(authorities)) + "\n", **texts}
        entries = _parsed(texts[DATABASES_FILE])
        return Rendered(texts=texts, entries=entries, digest=served_digest(routes))

    def serves(self, wanted: Rendered) -> bool:
        """Whether this very configuration was read back from the process that runs now."""
        return self.served == wanted and self._session == self.console.session

    async def serve(self, wanted: Rendered) -> None:
        """Make PgBouncer serve this configuration, and make sure that it does.

        RELOAD reports success on files it could not read, so what is served is read back;
        where that is not what was written, the previous files are put back.

        Raises:
            PoolerUnavailable: it does not serve it; what it served before it still serves.
        """
        before = {name: self.files.read(name) for name in wanted.texts}
        previous = self.served.texts if self.served else before
        self._session = None
        self.files.write_all(wanted.texts)
        await self._reload()
        wrong = await self.difference(wanted)
        if wrong:
            await self._put_back(previous)
            raise PoolerUnavailable(
                f"PgBouncer did not take the new configuration ({wrong}), so the previous one "
                "goes on serving; its log says why"
            )
        shrunk = _shrunk(self.served, wanted)
        self.served, self._session = wanted, self.console.session
        if shrunk:
            await self._shrink(shrunk)

    async def difference(self, wanted: Rendered) -> str | None:
        """How what PgBouncer serves differs from ``wanted``, if it does.

        Raises:
            PoolerUnavailable: PgBouncer does not answer.
        """
        found = {name: served.entry for name, served in (await self.console.databases()).items()}
        if found == wanted.entries:
            return None
        wrong = sorted(
            name
            for name in found.keys() | wanted.entries.keys()
            if found.get(name) != wanted.entries.get(name)
        )
        return f"{len(wrong)} entries differ, the first is {wrong[0]!r}"

    async def drift(self) -> str | None:
        """What somebody else changed since the last ``serve``, on disk or in the process.

        Whatever is found will be undone: ``serves`` is False from then on.

        Raises:
            PoolerUnavailable: PgBouncer does not answer.
        """
        if self.served is None:
            return None
        names = self.files.differing(self.served.texts)
        wrong = await self.difference(self.served)
        if not names and not wrong:
            return None
        self._session = None
        if names:
            return f"{names[0]} was changed by somebody else and is written anew"
        return f"PgBouncer served something else than its files ({wrong}) and reads them again"

    async def _reload(self) -> None:
        started = time.monotonic()
        await self.console.reload()
        ended = time.monotonic()
        self.reload_seconds = ended - started
        self.quiet_from = ended + min(_QUIET_FACTOR * self.reload_seconds, _LONGEST_QUIET_SECONDS)

    async def _put_back(self, texts: Mapping[str, str | None]) -> None:
        self.files.write_all({name: text for name, text in texts.items() if text is not None})
        await self._reload()

    async def _shrink(self, sizes: Mapping[str, int]) -> None:
        """Have connections beyond the new size of a pool closed, each as its client is done.

        PgBouncer keeps them otherwise. It ends those that are just logging in too, and then tells
        the next client that logins fail; a pool beyond its size begins none, so once none is under
        way there is nothing to harm.
        """
        left = dict(sizes)
        for _ in range(_SHRINK_LOOKS):
            pools = await self.console.pools()
            for name in [name for name in left if not _logging_in(pools, name)]:
                if _open_in(pools, name) > left.pop(name):
                    await self.console.reconnect(name)
            if not left:
                return
            await rest(_SHRINK_SECONDS)

    def _own_verifier(self) -> str:
        """The verifier on disk if it is of our password, so that a restart changes nothing."""
        password = self._settings.console_password
        for line in (self.files.read(USERS_FILE) or "").splitlines():
            user, _, rest = line.partition('" "')
            if user == f'"{CONSOLE_USER}' and matches(password, rest.removesuffix('"')):
                return rest.removesuffix('"')
        return verifier(password)


def _shrunk(before: Rendered | None, now: Rendered) -> dict[str, int]:
    """The entries whose pools are smaller than before, and how large they are now."""
    known = before.entries if before is not None else {}
    return {
        name: entry.pool_size
        for name, entry in now.entries.items()
        if name in known and entry.pool_size < known[name].pool_size
    }


def _logging_in(pools: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(int(row["sv_login"]) for row in pools if row["database"] == name)


def _open_in(pools: Sequence[Mapping[str, Any]], name: str) -> int:
    """Connections to the server of the fullest pool of an entry; each login has one of its own."""
    return max(
        (
            sum(int(row[state]) for state in ("sv_active", "sv_idle", "sv_used", "sv_tested"))
            for row in pools
            if row["database"] == name
        ),
        default=0,
    )
