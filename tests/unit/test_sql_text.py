"""Names are quoted in one place, and nothing but our own names gets through it."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.scram import verifier
from control_plane.adapters.sql_text import fill
from control_plane.config import Secret
from control_plane.domain import names

STORED = verifier(Secret("password"), b"0123456789abcdef")


@given(st.uuids())
def test_every_generated_name_is_accepted_and_quoted(key: UUID) -> None:
    roles = names.RoleSet(key)
    for name in (*roles.every, names.database_name(key), names.template_name(f"{key.int:x}"[:16])):
        assert fill("DROP ROLE {name}", name=name) == f'DROP ROLE "{name}"'


@pytest.mark.parametrize(
    "name",
    [
        names.DATABASE_OWNER,
        names.TEMPLATE_OWNER,
        names.TEMPLATE_APP,
        names.TEMPLATE_AUDITOR,
        names.TEMPLATE_READER,
    ],
)
def test_the_fixed_names_are_accepted(name: str) -> None:
    assert fill("{name}", name=name) == f'"{name}"'


def test_verifiers_and_integers_are_literals() -> None:
    filled = fill("PASSWORD {secret} CONNECTION LIMIT {limit}", secret=STORED, limit=-1)
    assert filled == f"PASSWORD '{STORED}' CONNECTION LIMIT -1"


@given(st.text(max_size=80))
def test_what_a_person_types_never_reaches_sql(text: str) -> None:
    try:
        filled = fill("{name}", name=text)
    except ValueError:
        return
    assert filled == f'"{text}"'
    assert text.isascii()
    assert text.replace("_", "").isalnum()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "postgres",
        't_x"; DROP DATABASE postgres; --',
        "t_x\n",
        "t_" + "x" * 62,
        "T_X",
        "public",
        f"{STORED}'; --",
        f"{STORED}\n",
        "SCRAM-SHA-256$4096:';--$a:b",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a generated name"):
        fill("{name}", name=text)
