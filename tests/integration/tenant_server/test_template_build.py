"""Templates built on a real server: once, completely, from environments of both sorts."""

import asyncio
import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from uuid import uuid4

import pytest

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.revisions import Revision, bind_roles, compile_path
from control_plane.adapters.schema_fingerprint import read_fingerprint, role_names
from control_plane.adapters.template_database import BuiltSchema, build_template, drop_strays
from control_plane.adapters.template_files import Template, Templates
from control_plane.adapters.tenant_database import create_tenant_database, write_identity
from control_plane.adapters.tenant_roles import ensure_role_set
from control_plane.adapters.tenant_schema import adopt_template, verify_tenant_database
from control_plane.config import DEFAULT_TEMPLATE, REPOSITORY
from control_plane.domain.errors import ObjectInUse, SchemaMismatch, UnexpectedDatabaseError
from control_plane.domain.names import RoleSet, database_name, template_name
from tests.integration.tenant_server.clinic import (
    DENIED,
    LIMITS,
    REVISION,
    TEMPLATES,
    Clinic,
    Place,
    sqlstate,
    unrecorded,
)
from tests.integration.tenant_server.postgres_fixture import WITH_TLS
from tests.integration.tenant_server.test_tenant_schema import discard

OTHERS = Templates({name: REPOSITORY / "tests" / "templates" / name for name in ("lab", "plain")})


class Recorder:
    """What a template looked like, and whether it was still open when that was told."""

    def __init__(self, administrator: Connection, name: str) -> None:
        self._administrator = administrator
        self._name = name
        self.built: list[BuiltSchema] = []
        self.open: list[bool] = []

    async def __call__(self, built: Sequence[BuiltSchema]) -> None:
        self.built.extend(built)
        self.open.append(
            await self._administrator.fetchval(
                "SELECT NOT datistemplate AND datallowconn FROM pg_database WHERE datname = $1",
                self._name,
            )
        )


async def drop_template(administrator: Connection, name: str) -> None:
    await administrator.execute(f"ALTER DATABASE {name} IS_TEMPLATE false")
    await administrator.execute(f"DROP DATABASE {name}")


async def drop_half_built(place: Place) -> None:
    """Its owner holds CREATE on it until it is closed."""
    known = [place.template]
    assert await drop_strays(place.server.address(), known, place.system_identifier) == 1


def clinic_template() -> Template:
    return TEMPLATES.current(DEFAULT_TEMPLATE)


async def test_two_workers_build_one_template(place: Place, administrator: Connection) -> None:
    name = template_name("0" * 16)
    record = Recorder(administrator, name)
    address = place.server.address()
    built = await asyncio.gather(
        *(
            build_template(address, name, clinic_template(), place.system_identifier, record)
            for _ in range(3)
        )
    )
    assert sorted(built) == [False, False, True]
    assert record.open == [True]
    await drop_template(administrator, name)


HALF_BUILT = {
    "just created": "",
    "open and empty": "ALTER DATABASE {name} ALLOW_CONNECTIONS true",
    "closed but not marked": "REVOKE ALL ON DATABASE {name} FROM PUBLIC",
    "dropped half-way": "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'",
}


@pytest.mark.parametrize("damage", HALF_BUILT.values(), ids=HALF_BUILT.keys())
async def test_a_half_built_template_is_built_again(
    place: Place, administrator: Connection, damage: str
) -> None:
    name = template_name("1" * 16)
    await administrator.execute(f"CREATE DATABASE {name} ALLOW_CONNECTIONS false")
    if damage:
        await administrator.execute(damage.format(name=name))
    address = place.server.address()
    assert await build_template(
        address, name, clinic_template(), place.system_identifier, unrecorded
    )
    roles = RoleSet(uuid4())
    await ensure_role_set(administrator, roles, LIMITS)
    database = database_name(roles.key)
    await create_tenant_database(administrator, database, name, roles, place.system_identifier)
    inside = await place.server.admin(database)
    assert await inside.fetchval("SELECT version_num FROM public.alembic_version") == REVISION
    await inside.close()
    await discard(place, administrator, roles)
    await drop_template(administrator, name)


async def test_a_template_that_could_not_be_recorded_is_not_closed(
    place: Place, administrator: Connection
) -> None:
    async def refuse(_built: Sequence[BuiltSchema]) -> None:
        raise ObjectInUse("the catalog is away")

    name = template_name("2" * 16)
    address = place.server.address()
    template = OTHERS.current("lab")
    with pytest.raises(ObjectInUse, match="the catalog is away"):
        await build_template(address, name, template, place.system_identifier, refuse)
    record = Recorder(administrator, name)
    assert await build_template(address, name, template, place.system_identifier, record)
    assert [built.revision for built in record.built] == ["0001", "0002", "0003"]
    assert len({built.reading.fingerprint for built in record.built}) == 3
    await drop_template(administrator, name)


async def test_files_that_change_meanwhile_make_no_template(
    place: Place, administrator: Connection, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(OTHERS.current("lab").directory, tmp_path / "lab"))
    template = Templates({"lab": directory}).current("lab")
    (directory / "versions" / "0004_late.py").write_text("revision = '0004'")
    name = template_name(template.fingerprint)
    with pytest.raises(ObjectInUse, match="the files of template lab changed"):
        await build_template(
            place.server.address(), name, template, place.system_identifier, unrecorded
        )
    closed = "SELECT count(*) FROM pg_database WHERE datname = $1 AND datistemplate"
    assert await administrator.fetchval(closed, name) == 0


async def clone(place: Place, administrator: Connection, template: str, revision: str) -> Clinic:
    """A tenant of the class ``template`` is the database of, at ``revision``, proved sound."""
    roles = RoleSet(uuid4())
    await ensure_role_set(administrator, roles, LIMITS)
    name = database_name(roles.key)
    await create_tenant_database(administrator, name, template, roles, place.system_identifier)
    clinic = Clinic(place, roles, place.server.password)
    async with clinic.inside() as inside:
        await adopt_template(inside, roles)
        await write_identity(inside, roles.key, 1, "primary")
        await verify_tenant_database(inside, roles, clinic.identity, revision)
    return clinic


async def test_a_plain_environment_makes_tenants_with_sensible_privileges(
    place: Place, administrator: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    template = OTHERS.current("plain")
    name = template_name(template.fingerprint)
    record = Recorder(administrator, name)
    secure = place.server.version == WITH_TLS
    address = place.server.address(
        tls="verify-full" if secure else "disable", ca_pem=place.server.ca_pem if secure else None
    )
    with caplog.at_level(logging.DEBUG):
        assert await build_template(address, name, template, place.system_identifier, record)
    assert place.server.password.reveal() not in caplog.text
    assert [built.revision for built in record.built] == ["3f1c", "8ab2"]
    clinic = await clone(place, administrator, name, template.revision)
    async with clinic.inside() as inside:
        await inside.execute(f"SET ROLE {clinic.roles.owner}")
        await inside.execute("CREATE TABLE public.later (id int)")
        await inside.execute(f"SET ROLE {clinic.roles.app}")
        for allowed in (
            "INSERT INTO public.note (mood) VALUES ('good')",
            "UPDATE public.note SET author = 'x'; DELETE FROM public.note",
            "SELECT public.notes() FROM public.later; INSERT INTO public.later VALUES (1)",
        ):
            assert await sqlstate(inside, f"SET search_path = public; {allowed}") is None, allowed
        for denied in (
            "SELECT * FROM public.alembic_version",
            "UPDATE public.alembic_version SET version_num = ''",
            "CREATE TABLE public.mine ()",
            "TRUNCATE public.note",
            "DROP TABLE public.note",
        ):
            assert await sqlstate(inside, denied) == DENIED, denied
        await inside.execute(f"SET ROLE {clinic.roles.reader}")
        assert await sqlstate(inside, "SELECT * FROM public.note, public.later") is None
        assert await sqlstate(inside, "DELETE FROM public.note") == DENIED
    await discard(place, administrator, clinic.roles)
    await drop_template(administrator, name)


async def apply_compiled(inside: Connection, revision: Revision, roles: RoleSet) -> None:
    """The least that carries out a compiled revision."""
    await inside.execute("RESET ROLE" if revision.privileged else f"SET ROLE {roles.owner}")
    for segment in revision.segments:
        async with inside.transaction() if segment.transactional else nullcontext():
            for statement in segment.statements:
                await inside.execute(bind_roles(statement, roles))


@pytest.mark.parametrize("sort", ["clinic", "plain"])
async def test_compiled_sql_makes_what_alembic_makes(
    place: Place, administrator: Connection, tmp_path: Path, sort: str
) -> None:
    """A tenant at the first revision, brought on by the compiled SQL, is like one that is new."""
    whole = clinic_template() if sort == "clinic" else OTHERS.current(sort)
    path = compile_path(whole.directory)
    head = template_name("3" * 16)
    record = Recorder(administrator, head)
    address = place.server.address()
    assert await build_template(address, head, whole, place.system_identifier, record)

    first = Path(shutil.copytree(whole.directory, tmp_path / sort))
    for later in path[1:]:
        for file in first.rglob(f"{later.id}*"):
            file.unlink()
    start = Templates({sort: first}).current(sort)
    name = template_name("4" * 16)
    assert await build_template(address, name, start, place.system_identifier, unrecorded)
    clinic = await clone(place, administrator, name, path[0].id)
    new = await clone(place, administrator, head, path[-1].id)
    async with clinic.inside() as inside, new.inside() as fresh:
        await inside.execute(f"SET search_path = {path[0].search_path}")
        for revision in path[1:]:
            await apply_compiled(inside, revision, clinic.roles)
        await inside.execute("RESET ROLE; SET search_path = pg_catalog")
        await verify_tenant_database(inside, clinic.roles, clinic.identity, path[-1].id)
        assert await read_fingerprint(inside, role_names(clinic.roles)) == await read_fingerprint(
            fresh, role_names(new.roles)
        )
    for tenant, template in ((clinic, name), (new, head)):
        await discard(place, administrator, tenant.roles)
        await drop_template(administrator, template)


BROKEN = {
    "SQL that the server refuses": (
        "op.execute('SELECT 1/0')",
        UnexpectedDatabaseError,
        r"^revision 0004 of template lab: the server answered 22012: division by zero$",
    ),
    "Python that fails": ("nothing()", SchemaMismatch, r"lab: versions/0004\.py line 6: NameError"),
}


@pytest.mark.parametrize(("line", "kind", "message"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_revision_that_fails_is_named(
    place: Place, tmp_path: Path, line: str, kind: type[Exception], message: str
) -> None:
    directory = Path(shutil.copytree(OTHERS.current("lab").directory, tmp_path / "lab"))
    (directory / "versions" / "0004.py").write_text(
        "from alembic import op\nrevision = '0004'\ndown_revision = '0003'\n\n"
        f"def upgrade():\n    {line}\n"
    )
    template = Templates({"lab": directory}).current("lab")
    name = template_name(template.fingerprint)
    with pytest.raises(kind, match=message):
        await build_template(
            place.server.address(), name, template, place.system_identifier, unrecorded
        )
    await drop_half_built(place)


async def test_an_environment_that_goes_elsewhere_is_noticed(place: Place, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(OTHERS.current("plain").directory, tmp_path / "plain"))
    (directory / "schema" / "env.py").write_text("")
    template = Templates({"plain": directory}).current("plain")
    name = template_name(template.fingerprint)
    with pytest.raises(SchemaMismatch, match=r"at no revision, not at 3f1c; env\.py must connect"):
        await build_template(
            place.server.address(), name, template, place.system_identifier, unrecorded
        )
    await drop_half_built(place)


async def test_a_privileged_revision_runs_as_the_administrator(
    place: Place, administrator: Connection, tmp_path: Path
) -> None:
    """And the next one as the owner again, by the clinic's own env.py."""
    directory = Path(shutil.copytree(clinic_template().directory, tmp_path / "clinic"))
    for file in (directory / "versions").glob("000[2-9]*"):
        file.unlink()
    for file in (directory / "versions").glob("00[1-9]*"):
        file.unlink()
    header = "from alembic import op\nrevision = '{}'\ndown_revision = '{}'\n"
    body = "\n\ndef upgrade():\n    op.execute('CREATE TABLE public.{} (by text DEFAULT user)')\n"
    for number, (mark, table) in enumerate((("privileged = True", "a"), ("", "b")), 2):
        text = header.format(f"000{number}", f"000{number - 1}") + mark + body.format(table)
        (directory / "versions" / f"000{number}.py").write_text(text)
    template = Templates({"clinic": directory}).current("clinic")
    name = template_name(template.fingerprint)
    record = Recorder(administrator, name)
    assert await build_template(
        place.server.address(), name, template, place.system_identifier, record
    )
    await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    inside = await place.server.admin(name)
    rows = await inside.fetch(
        "SELECT tablename, tableowner FROM pg_tables WHERE tablename IN ('a', 'b') ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("a", "tenantry_admin"), ("b", "cp_template_owner")]
    await inside.close()
    await drop_template(administrator, name)
