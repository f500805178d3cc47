"""PgBouncer's files: the same text for the same routes, and no way in for anything else."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.catalog.routes import WantedRoute
from control_plane.config import PoolerSettings, Secret
from control_plane.domain.names import (
    RESERVED_PREFIX,
    RESERVED_SLUGS,
    SLUG_PATTERN,
    RoleSet,
    database_name,
)
from control_plane.router.pgbouncer_config import (
    Entry,
    Unrenderable,
    parse_databases,
    render_access,
    render_databases,
    render_main,
    render_users,
    servable,
    served_digest,
    server_tls,
    tenant_user_lines,
)

GOLDEN = Path(__file__).parent / "golden" / "pgbouncer"
DIRECTORY = Path("/var/lib/tenantry/poolers/p1")
VERIFIER = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
OTHER_VERIFIER = VERIFIER.replace("W22Z", "X33Y")
POOLER = PoolerSettings(
    name="p1",
    cell="cell-1",
    host="127.0.0.1",
    port=6432,
    directory=DIRECTORY,
    socket_dir=Path("/run/tenantry/p1"),
    console_password=Secret("never written"),
)


def route(number: int = 1, **changes: object) -> WantedRoute:
    tenant = UUID(int=number)
    made = WantedRoute(
        tenant_id=tenant,
        alias=f"clinic-{number}",
        published=True,
        host="10.0.0.7",
        port=5432,
        tls="disable",
        database=database_name(UUID(int=number + 1000)),
        pool_size=5,
        session_pool_size=3,
        version=1,
        logins=dict.fromkeys(RoleSet(tenant).logins, VERIFIER),
        paused_by=None,
        pause_epoch=None,
        pause_seconds=None,
    )
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pgbouncer.ini", render_main(POOLER)),
        ("access.hba", render_access()),
        ("databases.ini", render_databases([route(2), route(1)], DIRECTORY)),
        ("databases-none.ini", render_databases([], DIRECTORY)),
        (
            "databases-verified.ini",
            render_databases([route(tls="verify-full", host="pg.example.com")], DIRECTORY),
        ),
        ("users.txt", render_users([route(2), route(1)], OTHER_VERIFIER)),
    ],
)
def test_the_text_is_the_golden_file(name: str, text: str) -> None:
    assert text == (GOLDEN / name).read_text()


def test_nothing_forces_a_user_or_catches_all() -> None:
    text = render_main(POOLER) + render_databases([route(n) for n in range(1, 9)], DIRECTORY)
    assert re.search(r"\b(user|password|auth_user|auth_query)\s*=", text) is None
    assert "*" not in text
    assert POOLER.console_password.reveal() not in text


def test_every_entry_leads_to_its_own_database() -> None:
    found = parse_databases(render_databases([route(n) for n in range(1, 4)], DIRECTORY))
    assert len(found) == 6
    for number in range(1, 4):
        database = database_name(UUID(int=number + 1000))
        assert found[f"clinic-{number}"] == Entry("10.0.0.7", 5432, database, 5, "transaction")
        assert found[f"clinic-{number}_session"] == Entry("10.0.0.7", 5432, database, 3, "session")


BAD_VALUES: list[dict[str, object]] = [
    {"alias": ""},
    {"alias": "Acme"},
    {"alias": "acme_session"},
    {"alias": "acme\n"},
    {"alias": "acme = host=evil\nother"},
    {"alias": "*"},
    {"alias": "%include"},
    {"alias": "[pgbouncer]"},
    {"alias": 'acme"'},
    {"alias": ";acme"},
    {"alias": "a" * 41},
    {"alias": "ácme"},
    {"host": ""},
    {"host": "/var/run/postgresql"},
    {"host": "a,b"},
    {"host": "10.0.0.1 user=postgres"},
    {"host": "10.0.0.256"},
    {"host": "fe80::1%eth0"},
    {"host": "example.com\n"},
    {"host": "-a.example"},
    {"host": "a..b"},
    {"host": "@abstract"},
    {"host": None},
    {"port": 0},
    {"port": 65536},
    {"port": True},
    {"port": "5432"},
    {"database": "postgres"},
    {"database": "t_" + "0" * 25},
    {"database": "t_" + "0" * 26 + "\n"},
    {"database": "t_" + "0" * 25 + " "},
    {"database": None},
    {"pool_size": 0},
    {"pool_size": -1},
    {"session_pool_size": 10_001},
    {"logins": {"postgres": VERIFIER}},
    {"logins": {RoleSet(UUID(int=1)).owner: VERIFIER}},
    {"logins": {RoleSet(UUID(int=1)).login_a + '"': VERIFIER}},
    {"logins": {RoleSet(UUID(int=1)).login_a: "secret"}},
    {"logins": {RoleSet(UUID(int=1)).login_a: "md5" + "0" * 32}},
    {"logins": {RoleSet(UUID(int=1)).login_a: VERIFIER + "\n"}},
    {"logins": {RoleSet(UUID(int=1)).login_a: VERIFIER + '"\n"postgres" "x'}},
]


FIELD_IN_MESSAGE = {
    "alias": "^alias ",
    "host": "^host ",
    "port": "^port ",
    "database": "^database ",
    "pool_size": "^pool_size ",
    "session_pool_size": "^session_pool_size ",
    "logins": "^(login |verifier: )",
}


def render_all(routes: list[WantedRoute]) -> str:
    return render_databases(routes, DIRECTORY) + render_users(routes, VERIFIER)


@pytest.mark.parametrize("change", BAD_VALUES, ids=str)
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    bad = msgspec.structs.replace(route(), **change)
    with pytest.raises(Unrenderable, match=FIELD_IN_MESSAGE.get(next(iter(change)))):
        render_all([bad])
    kept, refused = servable([route(7), bad])
    assert kept == [route(7)]
    assert len(refused) == 1
    assert served_digest([route(7), bad]) == served_digest([route(7)])


@pytest.mark.parametrize("word", [*sorted(RESERVED_SLUGS), "template1"])
def test_a_reserved_alias_is_refused(word: str) -> None:
    with pytest.raises(Unrenderable, match="alias"):
        render_all([route(alias=word)])


@pytest.mark.parametrize(
    "change",
    [
        {"directory": Path("/var/lib/x\n[databases]")},
        {"directory": Path("relative")},
        {"socket_dir": Path("/run/with space")},
        {"host": "*"},
        {"host": "127.0.0.1\nadmin_users = postgres"},
        {"port": 0},
    ],
    ids=str,
)
def test_settings_cannot_be_smuggled_in(change: dict[str, object]) -> None:
    with pytest.raises(Unrenderable):
        render_main(msgspec.structs.replace(POOLER, **change))


def test_a_console_password_in_the_clear_is_refused() -> None:
    with pytest.raises(Unrenderable, match="verifier"):
        render_users([], "a password")


def test_one_name_never_leads_to_two_places() -> None:
    with pytest.raises(Unrenderable, match="clinic-1 occurs twice"):
        render_databases([route(1), route(2, alias="clinic-1")], DIRECTORY)
    with pytest.raises(Unrenderable, match="occurs twice"):
        render_users([route(1), route(2, logins=route(1).logins)], VERIFIER)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ([], "disable"),
        (["disable"], "disable"),
        (["disable", "require"], "prefer"),
        (["require", "require"], "require"),
        (["verify-full", "verify-full"], "verify-full"),
    ],
)
def test_one_process_has_one_tls_mode(modes: list[str], expected: str) -> None:
    assert server_tls([route(n, tls=mode) for n, mode in enumerate(modes, 1)]) == expected


def test_a_server_to_be_verified_is_never_reached_unverified() -> None:
    routes = [route(1), route(2, tls="verify-full", host="pg.example.com")]
    with pytest.raises(Unrenderable, match="verify-full"):
        render_databases(routes, DIRECTORY)
    kept, refused = servable(routes)
    assert kept == routes[:1]
    assert "clinic-2" in refused[0]


def test_a_tls_mode_nobody_knows_is_refused() -> None:
    kept, refused = servable([route(tls="allow")])
    assert (kept, len(refused)) == ([], 1)


def test_the_digest_tells_what_clients_would_notice() -> None:
    routes = [route(1), route(2)]
    digest = served_digest(routes)
    assert digest == served_digest(list(reversed(routes)))
    assert digest == served_digest([route(1, version=9, paused_by=UUID(int=3)), route(2)])
    assert digest == served_digest([*routes, route(3, published=False)])
    login = RoleSet(UUID(int=2)).login_a
    changed = [
        route(2, host="10.0.0.8"),
        route(2, port=1),
        route(2, pool_size=6),
        route(2, database=database_name(UUID(int=5))),
        route(2, alias="clinic-x"),
        route(2, logins={login: VERIFIER}),
        route(2, logins=route(2).logins | {login: OTHER_VERIFIER}),
    ]
    digests = {served_digest([route(1), other]) for other in changed}
    assert len(digests) == len(changed)
    assert digest not in digests


slugs = st.from_regex(SLUG_PATTERN.replace("$", r"\Z"), fullmatch=True).filter(
    lambda slug: slug not in RESERVED_SLUGS and not slug.startswith(RESERVED_PREFIX)
)
hosts = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,8}){0,3}", fullmatch=True),
)
keys = st.integers(0, (1 << 128) - 1).map(lambda number: UUID(int=number))
sizes = st.integers(1, 10_000)
routes_of_a_cell = st.lists(
    st.tuples(slugs, keys, keys, hosts, st.integers(1, 65535), sizes, sizes),
    max_size=8,
    unique_by=(lambda row: row[0], lambda row: row[1]),
)


@given(routes_of_a_cell)
@settings(max_examples=200, deadline=None)
def test_whatever_is_accepted_reads_back_equal(
    rows: list[tuple[str, UUID, UUID, str, int, int, int]],
) -> None:
    made = [
        route(
            tenant_id=tenant,
            alias=slug,
            host=host,
            port=port,
            database=database_name(database),
            pool_size=pool,
            session_pool_size=session,
            logins={RoleSet(tenant).login_a: VERIFIER},
        )
        for slug, tenant, database, host, port, pool, session in rows
    ]
    text = render_databases(made, DIRECTORY)
    expected = {}
    for one in made:
        host = str(ipaddress.ip_address(one.host)) if ":" in one.host else one.host
        place = (host, one.port, one.database)
        expected[one.alias] = Entry(*place, one.pool_size, "transaction")
        expected[f"{one.alias}_session"] = Entry(*place, one.session_pool_size, "session")
    assert parse_databases(text) == expected
    assert text == render_databases(reversed(made), DIRECTORY)
    assert render_users(made, VERIFIER).count("\n") == len(made) + 1


hostile = st.one_of(
    st.text(max_size=60),
    st.text("ab-\n\r\t ;#%[]\"'=*\\,/@\x00", max_size=30),
    st.sampled_from(["%include /etc/passwd", "x\n%include /etc/passwd", "a = b", "[users]"]),
    slugs,
)


def _with_login(route_: WantedRoute, text: str) -> WantedRoute:
    return msgspec.structs.replace(route_, logins={text: VERIFIER})


def _with_verifier(route_: WantedRoute, text: str) -> WantedRoute:
    return msgspec.structs.replace(route_, logins={RoleSet(UUID(int=1)).login_a: text})


PLACES: list[Callable[[WantedRoute, str], WantedRoute]] = [
    lambda one, text: msgspec.structs.replace(one, alias=text),
    lambda one, text: msgspec.structs.replace(one, host=text),
    lambda one, text: msgspec.structs.replace(one, database=text),
    _with_login,
    _with_verifier,
]


@given(st.sampled_from(PLACES), hostile)
@settings(max_examples=1500, deadline=None)
def test_hostile_text_is_refused_or_harmless(
    place: Callable[[WantedRoute, str], WantedRoute], text: str
) -> None:
    """S-12: any text anywhere is refused, or what comes out is one tenant's two entries."""
    made = place(route(), text)
    try:
        rendered = render_databases([made], DIRECTORY)
        users = render_users([made], VERIFIER)
    except Unrenderable:
        return
    assert set(parse_databases(rendered)) == {made.alias, f"{made.alias}_session"}
    assert "%include" not in rendered
    assert len(rendered.splitlines()) == 4
    assert all(
        re.fullmatch(r'"[a-z0-9_]+" "SCRAM-SHA-256\$[^"\s]+"', u) for u in users.split("\n")[:-1]
    )
    assert users.count("\n") == 1 + len(made.logins)


def test_only_tenants_lines_are_kept_of_a_users_file() -> None:
    written = render_users([route(1), route(2)], VERIFIER)
    strange = ["root:$6$secret:19000:0:99999:7:::", '"postgres" "x"', f" {written.splitlines()[1]}"]
    kept = tenant_user_lines("\n".join([written, *strange]))
    assert kept == written.splitlines()[1:]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[databases]\nacme = host=10.0.0.1\n",
        "%include /etc/passwd\n[databases]\n",
        "auth_type = any\n[databases]\n",
        "[databases]\n* = host=10.0.0.1 port=1 dbname=x pool_size=1 pool_mode=session\n",
        render_databases([route()], DIRECTORY) + "[pgbouncer]\n",
        render_databases([route()], DIRECTORY) * 2,
        render_databases([route()], DIRECTORY).replace("dbname", "user=postgres dbname"),
    ],
)
def test_a_file_that_we_never_wrote_is_not_parsed(text: str) -> None:
    with pytest.raises(Unrenderable):
        parse_databases(text)
