"""What is written for an administrator of these abilities."""

import msgspec
import pytest

from control_plane.adapters.administrator import attributes, guarded_settings, reach
from control_plane.domain.administrators import EVERYTHING, Abilities

LIMITED = msgspec.structs.replace(EVERYTHING, superuser=False)
LEAST = msgspec.structs.replace(
    LIMITED, replication=False, bypassrls=False, settings=frozenset({"lc_messages"})
)


@pytest.mark.parametrize(
    ("may", "words"),
    [
        (EVERYTHING, "NOCREATEDB NOCREATEROLE NOSUPERUSER NOREPLICATION NOBYPASSRLS"),
        (LIMITED, "NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"),
        (LEAST, "NOCREATEDB NOCREATEROLE"),
    ],
)
def test_no_attribute_is_named_that_the_administrator_has_not(may: Abilities, words: str) -> None:
    assert attributes(may).text == words


def test_attributes_are_given_where_they_can_be() -> None:
    assert attributes(LIMITED, past_policies=True).text.split()[-1] == "BYPASSRLS"
    assert attributes(LIMITED, streams=True).text.split()[-2] == "REPLICATION"
    for given in (attributes(LEAST, past_policies=True), attributes(LEAST, streams=True)):
        assert given == attributes(LEAST)


def test_settings_that_are_not_allowed_are_left_out() -> None:
    wanted: dict[str, str | int] = {"lc_messages": "C", "temp_file_limit": -1}
    assert guarded_settings(LEAST, "t_x", wanted) == "ALTER ROLE \"t_x\" SET lc_messages = 'C';\n"
    assert guarded_settings(LIMITED, "t_x", wanted).endswith("SET temp_file_limit = -1;\n")


def test_a_superuser_needs_no_membership() -> None:
    assert reach(EVERYTHING).text == ""
    assert "createrole_self_grant" in reach(LIMITED).text
