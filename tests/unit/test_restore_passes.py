"""What is restored in which pass, and what becomes of privileges that only others can give."""

from uuid import UUID

import msgspec
import pytest

from control_plane.adapters.archive_toc import Contents, Entry, Section
from control_plane.adapters.restore_passes import Passes, passes
from control_plane.domain.errors import ServerUnsuitable
from control_plane.domain.names import RoleSet

ROLES = RoleSet(UUID(int=1))
APP, OWNER = ROLES.app, ROLES.owner
ABSENT = 99


def entry(
    number: int,
    kind: str,
    name: str = "x",
    section: int = Section.NONE,
    needs: int = ABSENT,
    definition: str = "",
) -> Entry:
    return Entry(number, kind, name, "s", OWNER, section, definition, frozenset({needs}))


def planned(*entries: Entry, existing: tuple[str, ...] = ()) -> Passes:
    return passes(Contents(list(entries), b""), existing, ROLES)


def privileges(definition: str, needs: int = ABSENT) -> list[str]:
    return planned(entry(1, "ACL", "FUNCTION f()", needs=needs, definition=definition)).statements


def test_privileges_come_after_indexes_and_comments_with_what_they_are_about() -> None:
    plan = planned(
        entry(1, "SCHEMA", section=Section.PRE_DATA),
        entry(2, "COMMENT", "SCHEMA x", needs=1),
        entry(3, "ACL", "SCHEMA x", needs=1),
        entry(4, "TABLE DATA", section=Section.DATA),
        entry(5, "INDEX", section=Section.POST_DATA),
        entry(6, "COMMENT", "INDEX x", needs=5),
        entry(7, "STATISTICS", section=Section.POST_DATA),
        entry(8, "DEFAULT ACL", section=Section.POST_DATA),
        entry(9, "MATERIALIZED VIEW DATA", section=Section.POST_DATA),
    )
    assert plan == Passes([1, 2, 7], [4], [3, 5, 6, 8, 9], {}, [])


def test_extensions_are_there_already() -> None:
    plan = planned(
        entry(1, "EXTENSION", section=Section.PRE_DATA),
        entry(2, "COMMENT", 'EXTENSION "x"', needs=1),
        entry(3, "COMMENT", "TABLE x", needs=1),
    )
    assert plan.before == [3]


def test_a_schema_that_is_there_changes_its_owner_only() -> None:
    plan = planned(
        entry(1, "SCHEMA", "extensions", Section.PRE_DATA),
        entry(2, "SCHEMA", "public", Section.PRE_DATA),
        existing=("extensions", "public"),
    )
    assert plan == Passes([2], [], [], {"extensions": OWNER}, [])


def test_the_schema_of_an_extension_can_be_the_administrators() -> None:
    theirs = msgspec.structs.replace(
        entry(1, "SCHEMA", 'an "extension"', Section.PRE_DATA), owner="tenantry_admin"
    )
    plan = planned(theirs, existing=('an "extension"',))
    assert plan == Passes([], [], [], {}, ['ALTER SCHEMA "an ""extension""" OWNER TO CURRENT_USER'])


@pytest.mark.parametrize("name", ["SCHEMA public", 'SCHEMA "public"'])
def test_the_schema_public_is_the_loaders_own(name: str) -> None:
    assert planned(entry(1, "ACL", name)).after == [1]


@pytest.mark.parametrize(
    ("definition", "statements"),
    [
        (
            f'REVOKE ALL ON FUNCTION "f"() FROM PUBLIC; GRANT ALL ON FUNCTION "f"() TO "{APP}";',
            [
                "REVOKE ALL ON FUNCTION f() FROM public",
                f"GRANT ALL ON FUNCTION f() TO {APP}",
            ],
        ),
        (
            f'GRANT SELECT("a;b") ON TABLE "s"."x\n;y" TO "{APP}" WITH GRANT OPTION;',
            [f'GRANT select ("a;b") ON s."x\n;y" TO {APP} WITH GRANT OPTION'],
        ),
    ],
)
def test_what_an_administrator_gives_is_put_together_anew(
    definition: str, statements: list[str]
) -> None:
    assert privileges(definition) == statements


def test_what_somebody_else_gave_is_given_by_him() -> None:
    definition = (
        f"GRANT SELECT ON TABLE s.x TO {APP} WITH GRANT OPTION;\n"
        f"SET SESSION AUTHORIZATION {APP};\n"
        f"GRANT SELECT ON TABLE s.x TO {ROLES.reader};\n"
        "RESET SESSION AUTHORIZATION;\n"
        f"GRANT SELECT ON TABLE s.x TO {ROLES.auditor};"
    )
    table = entry(1, "TABLE", section=Section.PRE_DATA)
    acl = entry(2, "ACL", "TABLE x", needs=1, definition=definition)
    plan = planned(table, acl)
    assert plan.before == [1]
    assert plan.after == []
    assert plan.statements == [
        f"GRANT select ON s.x TO {APP} WITH GRANT OPTION",
        f'SET ROLE "{APP}"; GRANT select ON s.x TO {ROLES.reader}; RESET ROLE',
        f"GRANT select ON s.x TO {ROLES.auditor}",
    ]


@pytest.mark.parametrize(
    "definition",
    [
        "GRANT ALL ON FUNCTION f() TO somebody_else;",
        f"GRANT ALL ON FUNCTION f() TO {APP}, tenantry_admin;",
        f"GRANT ALL ON FUNCTION f() TO {APP}; DROP TABLE s.x;",
        f"GRANT {OWNER} TO somebody_else;",
        "GRANT pg_read_server_files TO " + APP,
        f"SET SESSION AUTHORIZATION tenantry_admin; GRANT ALL ON FUNCTION f() TO {APP};",
        f"SET SESSION AUTHORIZATION DEFAULT; SET search_path = s; GRANT ALL ON TABLE x TO {APP};",
        'SET SESSION AUTHORIZATION "x"; ALTER ROLE x SUPERUSER;',
        "GRANT ALL ON",
        "DO $$ BEGIN END $$",
    ],
)
def test_nothing_else_is_run_by_an_administrator(definition: str) -> None:
    with pytest.raises(ServerUnsuitable, match="the privileges on FUNCTION"):
        privileges(definition)
