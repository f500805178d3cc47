"""The processes of Tenantry itself, and the one-shot commands that come before them."""

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from control_plane.config import REPOSITORY
from deploy import commands
from deploy.catalog_role import CATALOG
from deploy.local import object_store, redis, standby
from deploy.local.files import secret_once, write_whole
from deploy.local.keeper import Service
from deploy.local.layout import Layout
from deploy.local.options import StackOptions
from deploy.local.pgbouncer import Pooler
from deploy.local.ports import LOOPBACK
from deploy.local.problem import StackError
from deploy.local.ready import Probe, http, log_line
from deploy.local.spawn import Outcome, Program, last_words_of, run_once

API = "api"
BEAT = "beat"
AGENT_TIER = 3
TIER = 4
WORKERS: Mapping[str, int] = {"control": 4, "transfer": 2}  # queue -> processes
ADMIN_ROLES = ("sales_ops", "operator", "security_admin", "auditor", "app")
HEALTHY = frozenset({200})
CLI_SECONDS = 600
TOKEN_DAYS = 90
TOKEN_RENEWED_SECONDS = 60 * 86_400


def catalog_password_file(layout: Layout) -> Path:
    """The password of the role that owns the catalog database."""
    return layout.secret("catalog-owner.password")


def names_of(process: str, options: StackOptions) -> list[str]:
    """What there is of a process: one, or two."""
    return [process, f"{process}-2"] if options.doubled else [process]


@dataclass(frozen=True)
class Application:
    """Builds the programs of Tenantry for one stack.

    ``programs`` are the directories with the programs of its Postgres installations.
    """

    layout: Layout
    ports: Mapping[str, int]
    options: StackOptions
    programs: tuple[Path, ...]

    @property
    def scripts(self) -> Path:
        return Path(sys.executable).parent

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports[API]}"

    @property
    def api_urls(self) -> list[str]:
        names = names_of(API, self.options)
        return [f"http://{LOOPBACK}:{self.ports[name]}" for name in names]

    @property
    def environment(self) -> dict[str, str]:
        """The ``TENANTRY_*`` settings of every process of this stack; secrets go by file."""
        layout, ports = self.layout, self.ports
        return {
            "TENANTRY_HOME": str(layout.home),
            "TENANTRY_CATALOG_DSN": f"postgresql://{CATALOG}@{self._catalog}/{CATALOG}",
            "TENANTRY_CATALOG_PASSWORD_FILE": str(catalog_password_file(layout)),
            "TENANTRY_REDIS_URL": f"redis://{LOOPBACK}:{ports[redis.NAME]}/0",
            "TENANTRY_REDIS_PASSWORD_FILE": str(redis.password_file(layout)),
            "TENANTRY_KEYRING_FILE": str(layout.keyring),
            "TENANTRY_SERVER_NETWORKS": f"{LOOPBACK}/32",
            "TENANTRY_BACKUP_STORE": f"s3://{object_store.BUCKET}/local",
            "TENANTRY_S3_ENDPOINT": f"http://{LOOPBACK}:{ports[object_store.NAME]}",
            "TENANTRY_S3_CREDENTIALS_FILE": str(object_store.credentials_file(layout)),
            "TENANTRY_LOCAL_SUPERVISOR": str(layout.control),
            "TENANTRY_POSTGRES_PROGRAMS": ":".join(map(str, self.programs)),
            **self.options.environment,
        }

    @property
    def _catalog(self) -> str:
        """The catalog's server, and its standby after it, as a DSN names them."""
        standbys = [standby.NAME] if self.options.doubled else []
        return ",".join(f"{LOOPBACK}:{self.ports[name]}" for name in ("catalog", *standbys))

    def make_secrets(self) -> None:
        """Make the secrets that every process reads at its start, before any starts."""
        secret_once(catalog_password_file(self.layout))
        secret_once(redis.password_file(self.layout))
        object_store.make_credentials(self.layout)

    async def migrate_catalog(self) -> None:
        await self._once("catalog migration", *commands.migrate())

    async def make_keyring(self) -> None:
        if not self.layout.keyring.exists():
            await self.tenantry("root key", "admin", "init-keyring")

    async def make_token(self) -> None:
        """Make the first API key and keep it, mode 0600, in the token file.

        The key is made anew before its life ends, at the first start after two months.
        """
        token = self.layout.token
        if token.exists() and time.time() - token.stat().st_mtime < TOKEN_RENEWED_SECONDS:
            return
        roles = [word for role in ADMIN_ROLES for word in ("--role", role)]
        made = await self.tenantry(
            "first API key",
            *("admin", "create-key", "--name", "local-admin", "--days", str(TOKEN_DAYS), *roles),
        )
        if len(made.stdout.split()) != 1:
            raise StackError("the first API key could not be made: no token was printed")
        write_whole(token, made.stdout.strip() + "\n", 0o600)

    async def test_store(self) -> None:
        """Look that the store of the backups, if there is one, keeps what it is given."""
        if self.environment["TENANTRY_BACKUP_STORE"]:
            await self.tenantry("test of the object store", "admin", "test-store", "--json")

    async def configure_pooler(self, pooler: Pooler) -> None:
        """Let the agent write PgBouncer's first configuration, if there is none."""
        await self._once(
            f"configuration of {pooler.name}",
            *commands.agent_files(),
            more=pooler.environment(),
        )

    async def tenantry(
        self, name: str, *arguments: str, more: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run the command line with the settings of this stack."""
        program = self._program(name, *commands.tenantry(*arguments), more=more or {})
        return await run_once(program, name, seconds=CLI_SECONDS, reason=_problem)

    def apis(self) -> list[Service]:
        return [
            self._service(
                name,
                http(self.ports[name], "/health/ready", HEALTHY),
                *commands.api(LOOPBACK, self.ports[name]),
            )
            for name in names_of(API, self.options)
        ]

    def workers(self) -> list[Service]:
        """Two of a queue share the processes that one would have."""
        return [
            self._service(
                f"worker-{name}",
                log_line(rf"{name}@\S+ ready"),
                *commands.worker(queue, processes // len(names), name),
            )
            for queue, processes in WORKERS.items()
            for names in (names_of(queue, self.options),)
            for name in names
        ]

    def beats(self) -> list[Service]:
        return [
            self._service(
                name,
                log_line(r"beat: Starting"),
                *commands.beat(self.layout.home / "beat" / name.replace(BEAT, "schedule")),
            )
            for name in names_of(BEAT, self.options)
        ]

    def agent(self, pooler: Pooler) -> Service:
        return self._service(
            f"agent-{pooler.name}",
            log_line(r"\b(pgbouncer_answers|served)\b"),
            *commands.agent(),
            tier=AGENT_TIER,
            more=pooler.environment(),
        )

    def _service(
        self,
        name: str,
        ready: Probe,
        *arguments: str,
        tier: int = TIER,
        more: Mapping[str, str] | None = None,
    ) -> Service:
        return Service(
            name=name,
            program=self._program(name, *arguments, more=more or {}),
            ready=ready,
            tier=tier,
            port=self.ports.get(name),
            grace_seconds=15,
            ready_seconds=90,
        )

    async def _once(
        self, name: str, *arguments: str, more: Mapping[str, str] | None = None
    ) -> Outcome:
        program = self._program(name, *arguments, more=more or {})
        return await run_once(program, name)

    def _program(self, name: str, *argv: str, more: Mapping[str, str]) -> Program:
        return Program(
            argv=argv,
            home=self.layout.home,
            environment={
                **self.environment,
                **more,
                **self.options.process_environment.get(name, {}),
            },
            directory=REPOSITORY,
        )


def _problem(outcome: Outcome) -> str:
    """Why a command failed: with ``--json`` it prints a problem document."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(outcome.stdout)["detail"])
    return last_words_of(outcome)
