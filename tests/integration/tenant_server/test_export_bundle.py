"""A customer's bundle: all of it is there, only the customer opens it, it is ours, it loads."""

# ruff: noqa: S608 - the names in the SQL come from the server's own catalog
import asyncio
import hashlib
import io
import json
import subprocess
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]  # it comes without stubs
import pytest

from control_plane.adapters.age_encryption import Recipient
from control_plane.adapters.backup_login import close_backup_login, open_backup_login
from control_plane.adapters.export_bundle import (
    About,
    Bundled,
    ExportJob,
    require_stored,
    write_bundle,
)
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.signatures import Signer, fingerprint, verifies
from control_plane.domain.errors import BackupCorrupt, ObjectMissing, TenantryError
from tests.integration.tenant_server.clinic import Clinic, Place, leased, provision
from tests.integration.tenant_server.clinic_rows import acting, add

KEY = "exports/e/bundle.1.zip.age"
SIGNER = Signer.generate()
README_OPTIONS = ("--no-owner", "--no-privileges", "--exit-on-error")
# What a tenant may do to us: names that lead out of a folder, break a line, or end a quotation;
# columns in another order than their numbers, generated ones, none at all; parents and partitions.
HOSTILE = """
CREATE SCHEMA "../b.c";
CREATE TABLE "../b.c"."..|/""x'`<b>" (
    "a""b" integer PRIMARY KEY, gone text, twice integer GENERATED ALWAYS AS ("a""b" * 2) STORED,
    words text, bytes bytea, at timestamptz, nothing text, list text[], json jsonb, big numeric);
ALTER TABLE "../b.c"."..|/""x'`<b>" DROP COLUMN gone;
COMMENT ON TABLE "../b.c"."..|/""x'`<b>" IS 'a | b
# <script>';
INSERT INTO "../b.c"."..|/""x'`<b>" ("a""b", words, bytes, at, list, json, big)
SELECT n, E'q"uo,te\\n\\\\N ' || n, decode('00ff', 'hex'), now(), ARRAY['a,', NULL, ''],
       '{"ä": [1, null]}', 1e20 + n FROM generate_series(1, 20000) n;
INSERT INTO "../b.c"."..|/""x'`<b>" ("a""b", words) VALUES (0, '');
CREATE TABLE public.parted (id integer, kind text) PARTITION BY LIST (kind);
CREATE TABLE public.parted_a PARTITION OF public.parted FOR VALUES IN ('a');
CREATE TABLE public.parted_b PARTITION OF public.parted FOR VALUES IN ('b');
INSERT INTO public.parted SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END
FROM generate_series(1, 101) n;
CREATE TABLE public.parent (id integer);
CREATE TABLE public.child (more text) INHERITS (public.parent);
INSERT INTO public.parent VALUES (1);
INSERT INTO public.child VALUES (2, 'x'), (3, 'y');
CREATE UNLOGGED TABLE public.light (id integer);
INSERT INTO public.light VALUES (7);
CREATE TABLE public.guarded (id integer);
INSERT INTO public.guarded VALUES (1);
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY;
"""
# Whatever has rows of its own, asked in another way than the product asks.
ALL_TABLES = """
SELECT table_schema AS schema, table_name AS name FROM information_schema.tables
 WHERE table_type = 'BASE TABLE'
   AND table_schema NOT IN ('pg_catalog', 'information_schema', 'cp_meta')
   AND format('%I.%I', table_schema, table_name)::regclass NOT IN (
       SELECT inhrelid FROM pg_inherits i
         JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p')
"""


@pytest.fixture(scope="module")
async def clinic(place: Place) -> Clinic:
    """A clinic with rows in its own tables and with hostile ones."""
    made = await provision(place)
    app = await made.app()
    async with acting(app, "dr-ada"):
        await add(app, "bookings.payment")
    await app.close()
    admin = await place.server.admin()
    async with leased(admin, made, made.roles.migrator) as owner:
        await owner.execute(f"SET ROLE {made.roles.owner}")
        await owner.execute(HOSTILE)
        await owner.execute(f'GRANT USAGE ON SCHEMA "../b.c" TO {made.roles.backup}')
        for schema in ("public", '"../b.c"'):
            await owner.execute(
                f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {made.roles.backup}"
            )
    await admin.close()
    async with made.inside() as inside:
        await inside.execute("SELECT lo_from_bytea(0, decode('cafe', 'hex'))")
    return made


@asynccontextmanager
async def job_for(clinic: Clinic, store: FileStore, recipient: str) -> AsyncIterator[ExportJob]:
    server = clinic.place.server
    admin = await server.admin()
    password = await open_backup_login(admin, clinic.roles)
    try:
        yield ExportJob(
            address=server.address().for_login(clinic.roles.backup, password),
            database=clinic.database,
            session_name="cp:test",
            program=Programs((server.bin,)).dump(server.version),
            store=store,
            object_key=KEY,
            recipient=Recipient(recipient),
            signer=SIGNER,
            about=About(
                export="ex_test",
                tenant="tn_test",
                slug="acme",
                name="Acme Clinic",
                template="clinic",
                schema_revision="0001",
                server_version=server.version * 10_000,
            ),
        )
    finally:
        await close_backup_login(admin, clinic.roles)
        await admin.close()


@pytest.fixture(scope="module")
def identity() -> Any:
    return pyrage.x25519.Identity.generate()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FileStore:
    return FileStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
async def bundled(clinic: Clinic, store: FileStore, identity: Any) -> Bundled:
    async with job_for(clinic, store, str(identity.to_public())) as job:
        return await write_bundle(job, lambda _: None)


@pytest.fixture(scope="module")
def bundle(bundled: Bundled, store: FileStore, identity: Any) -> zipfile.ZipFile:
    """What the customer has after decrypting."""
    sealed = b"".join(store.read(KEY, bundled.stored_bytes))
    assert hashlib.sha256(sealed).digest() == bundled.sha256
    return zipfile.ZipFile(io.BytesIO(pyrage.decrypt(sealed, [identity])))


@pytest.fixture(scope="module")
def manifest(bundle: zipfile.ZipFile) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bundle.read("manifest.json"))
    return found


async def test_every_table_of_the_tenant_is_in_it(
    clinic: Clinic, bundle: zipfile.ZipFile, manifest: dict[str, Any]
) -> None:
    async with clinic.inside() as inside:
        wanted = {(row["schema"], row["name"]) for row in await inside.fetch(ALL_TABLES)}
        assert len(wanted) > 20
        assert {(t["schema"], t["name"]) for t in manifest["tables"]} == wanted
        for table in manifest["tables"]:
            only = await inside.fetchval(
                "SELECT CASE relkind WHEN 'r' THEN 'ONLY ' ELSE '' END FROM pg_class "
                "WHERE oid = format('%I.%I', $1::text, $2::text)::regclass",
                table["schema"],
                table["name"],
            )
            named = await inside.fetchval(
                "SELECT format('%I.%I', $1::text, $2::text)", table["schema"], table["name"]
            )
            rows = await inside.fetchval(f"SELECT count(*) FROM {only}{named}")
            assert table["rows"] == rows, table
    assert manifest["large_objects"] == 1
    assert {table["file"] for table in manifest["tables"]} <= set(bundle.namelist())


def test_it_is_whole_and_ours(bundle: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    assert bundle.testzip() is None
    listed = {file["path"]: file for file in manifest["files"]}
    beside = {"manifest.json", "manifest.sig", "signing-key.pem"}
    assert set(bundle.namelist()) - beside == set(listed)
    for path, file in listed.items():
        content = bundle.read(path)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            file["bytes"],
            file["sha256"],
        )
    signature = bundle.read("manifest.sig")
    assert verifies(bundle.read("manifest.json"), signature, SIGNER.public_key)
    assert not verifies(bundle.read("manifest.json") + b" ", signature, SIGNER.public_key)
    assert fingerprint(SIGNER.public_key) in bundle.read("README.txt").decode()


def test_openssl_verifies_it_as_the_readme_says(bundle: zipfile.ZipFile, tmp_path: Path) -> None:
    for name in ("manifest.json", "manifest.sig", "signing-key.pem"):
        (tmp_path / name).write_bytes(bundle.read(name))
    verify = (
        "openssl pkeyutl -verify -pubin -inkey signing-key.pem -rawin -in manifest.json -sigfile"
    )
    command = [*verify.split(), "manifest.sig"]
    ended = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (tmp_path / "manifest.json").write_bytes(bundle.read("manifest.json") + b" ")
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode != 0


def test_no_name_leads_out_of_the_folder(bundle: zipfile.ZipFile, tmp_path: Path) -> None:
    bundle.extractall(tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    parts = [part for name in bundle.namelist() for part in name.split("/")]
    assert not {"..", ".", ""} & set(parts)


def test_the_words_are_only_words(bundle: zipfile.ZipFile) -> None:
    schema = bundle.read("schema.md").decode()
    assert "\n# <script>" not in schema
    assert "a \\| b \\# \\<script\\>" in schema


def test_only_the_recipient_opens_it(bundled: Bundled, store: FileStore) -> None:
    sealed = b"".join(store.read(KEY, bundled.stored_bytes))
    assert b"PGDMP" not in sealed
    assert b"README" not in sealed
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sealed, [pyrage.x25519.Identity.generate()])


@asynccontextmanager
async def a_database_of_mine(
    clinic: Clinic, name: str, bundle: zipfile.ZipFile, *arguments: str
) -> AsyncIterator[Connection]:
    """What the README tells, on a server without our roles: ours are not named in the dump."""
    server = clinic.place.server
    admin = await server.admin()
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        restore = Programs((server.bin,)).restore(server.version)
        ended = subprocess.run(
            [restore, *README_OPTIONS, f"--dbname={name}", *arguments],
            input=bundle.read("database.dump"),
            check=False,
            capture_output=True,
            env={
                "PGHOST": "127.0.0.1",
                "PGPORT": str(server.port),
                "PGUSER": server.address().user,
                "PGPASSWORD": server.password.reveal(),
            },
        )
        assert ended.returncode == 0, ended.stderr
        mine = await server.admin(name)
        yield mine
        await mine.close()
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def contents(connection: Connection) -> dict[str, Any]:
    """Every table with a hash over its rows."""
    found = {}
    for row in await connection.fetch(ALL_TABLES):
        named = await connection.fetchval("SELECT format('%I.%I', $1::text, $2::text)", *row)
        found[named] = await connection.fetchval(
            f"SELECT md5(coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '')) "
            f"FROM {named} AS t"
        )
    return found


async def test_the_dump_makes_a_database_of_it(clinic: Clinic, bundle: zipfile.ZipFile) -> None:
    assert clinic.roles.prefix.encode() not in bundle.read("schema.sql")
    async with clinic.inside() as inside:
        wanted = await contents(inside)
    async with a_database_of_mine(clinic, "mine_whole", bundle) as mine:
        assert await contents(mine) == wanted
        assert await mine.fetchval("SELECT lo_get(oid) FROM pg_largeobject_metadata") == b"\xca\xfe"


async def test_every_csv_loads_back(
    clinic: Clinic, bundle: zipfile.ZipFile, manifest: dict[str, Any]
) -> None:
    async with clinic.inside() as inside:
        wanted = await contents(inside)
    async with a_database_of_mine(clinic, "mine_csv", bundle, "--section=pre-data") as mine:
        for table in manifest["tables"]:
            content = bundle.read(table["file"])
            loaded = await mine.copy_to_table(
                table["name"],
                schema_name=table["schema"],
                columns=table["columns"],
                source=io.BytesIO(content),
                format="csv",
                header=True,
            )
            assert int(loaded.split()[-1]) == table["rows"], table
        assert await contents(mine) == wanted


async def test_a_failing_store_ends_the_export_with_its_own_words(
    clinic: Clinic, tmp_path: Path, identity: Any
) -> None:
    store = FileStore(tmp_path / "away")
    async with job_for(clinic, store, str(identity.to_public())) as job:
        with pytest.raises(TenantryError, match="is not there"):
            await write_bundle(job, lambda _: None)


async def test_a_server_that_goes_away_ends_the_export(
    clinic: Clinic, tmp_path: Path, identity: Any
) -> None:
    """The backup's sessions are ended once the first table is on its way."""
    store = FileStore(tmp_path)
    admin = await clinic.place.server.admin()
    loop = asyncio.get_running_loop()
    ended: list[None] = []

    async def end_sessions() -> None:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
            clinic.roles.backup,
        )

    def told(_: str) -> None:
        if not ended:
            ended.append(asyncio.run_coroutine_threadsafe(end_sessions(), loop).result())

    async with job_for(clinic, store, str(identity.to_public())) as job:
        with pytest.raises(TenantryError) as failed:
            await write_bundle(job, told)
    assert failed.value.retryable
    await admin.close()
    assert list(store.list("")) == []
    assert list(store.pending("")) == []


async def test_cancelling_leaves_nothing(clinic: Clinic, tmp_path: Path, identity: Any) -> None:
    store = FileStore(tmp_path)
    async with job_for(clinic, store, str(identity.to_public())) as job:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def told(_: str) -> None:
            loop.call_soon_threadsafe(begun.set)

        writing = asyncio.create_task(write_bundle(job, told))
        await begun.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert list(store.list("")) == []
    assert list(store.pending("")) == []


async def test_what_is_in_the_store_is_read_back(
    bundled: Bundled, store: FileStore, tmp_path: Path
) -> None:
    require_stored(store, KEY, bundled)
    with pytest.raises(ObjectMissing):
        require_stored(store, "exports/e/other", bundled)
    spoiled = FileStore(tmp_path)
    content = bytearray(b"".join(store.read(KEY, bundled.stored_bytes)))
    content[-20] ^= 1
    spoiled.put(KEY, bytes(content))
    with pytest.raises(BackupCorrupt):
        require_stored(spoiled, KEY, bundled)
    spoiled.put("exports/e/cut", bytes(content[:-1]))
    with pytest.raises(BackupCorrupt):
        require_stored(spoiled, "exports/e/cut", bundled)
