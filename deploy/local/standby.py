"""A standby of the catalog: copied once from the primary, then following it."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.local.account import give
from deploy.local.files import write_whole
from deploy.local.ports import LOOPBACK
from deploy.local.postgres import ADMIN, HBA, PostgresServer, administrator
from deploy.local.spawn import Program, run_once

NAME = "catalog-standby"


@dataclass(frozen=True)
class Standby:
    """``server`` follows ``primary`` until somebody promotes it."""

    server: PostgresServer
    primary: PostgresServer

    async def make(self) -> None:
        """Copy the primary if there is no copy yet, and write the configuration.

        Raises:
            StackError: the primary cannot be copied.
        """
        data, account = self.server.data, self.server.account
        if not data.exists():
            await self._copy()
        password = administrator(self.primary).password
        following = (
            f"primary_conninfo = 'host={LOOPBACK} port={self.primary.port} user={ADMIN} "
            f"password={password} application_name={NAME}'\n"
        )
        text = self.server.configuration() + following
        write_whole(data / "postgresql.conf", text, 0o600, account)
        write_whole(data / "pg_hba.conf", HBA, 0o600, account)

    async def _copy(self) -> None:
        server, primary = self.server, self.primary
        draft = server.data.with_name(f".{server.name}.draft")
        if draft.exists():
            shutil.rmtree(draft)
        with tempfile.NamedTemporaryFile("w", dir=server.layout.run) as passwords:
            passwords.write(f"*:*:*:*:{administrator(primary).password}\n")
            passwords.flush()
            give(Path(passwords.name), server.account, 0o600)
            draft.mkdir()
            give(draft, server.account, 0o700)
            program = Program(
                argv=(
                    server.binaries.program("pg_basebackup"),
                    *("--pgdata", str(draft), "--checkpoint=fast", "--wal-method=stream"),
                    *("--host", LOOPBACK, "--port", str(primary.port), "--username", ADMIN),
                    "--no-password",
                ),
                home=server.layout.home,
                account=server.account,
                environment={"LC_ALL": "C.UTF-8", "PGPASSFILE": passwords.name},
            )
            await run_once(program, f"copy of the catalog for {server.name}")
        write_whole(draft / "standby.signal", "", 0o600, server.account)
        draft.rename(server.data)
