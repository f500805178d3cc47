"""Catalog and providers compared, both ways."""

from uuid import UUID

from control_plane.domain.provider_invariants import (
    ExpectedInstance,
    FoundProvider,
    provider_findings,
)

KEY, OTHER = UUID(int=7), UUID(int=8)
READY = ExpectedInstance(KEY, "pg-c", "local", ready=True, enrolled=True, busy=False)
CREATING = ExpectedInstance(KEY, "pg-c", "local", ready=False, enrolled=False, busy=False)
BUSY = ExpectedInstance(KEY, "pg-c", "local", ready=False, enrolled=False, busy=True)
THERE = FoundProvider("local", {KEY: "pg-c"})


def told(expected: list[ExpectedInstance], found: list[FoundProvider]) -> list[tuple[str, str]]:
    return [(one.subject, one.message) for one in provider_findings(expected, found)]


def test_what_is_on_both_sides_is_no_finding() -> None:
    assert told([READY], [THERE]) == []
    assert told([], [FoundProvider("local")]) == []


def test_a_server_that_its_provider_lost_is_named() -> None:
    ((subject, message),) = told([READY], [FoundProvider("local")])
    assert (subject, message) == ("pg-c", "local has no such server any more")


def test_an_instance_in_no_catalog_is_named() -> None:
    ((subject, message),) = told([], [FoundProvider("rds", {OTHER: "tenantry-x"})])
    assert subject == "tenantry-x"
    assert "in no catalog" in message


def test_what_a_failed_creation_left_is_named_once_nobody_works_on_it() -> None:
    for found in (THERE, FoundProvider("local")):
        ((subject, message),) = told([CREATING], [found])
        assert subject == "pg-c"
        assert "no server of the fleet" in message
        assert told([BUSY], [found]) == []


def test_a_provider_that_cannot_be_asked_is_one_finding() -> None:
    found = FoundProvider("local", problem="it does not answer")
    assert told([READY], [found]) == [("local", "it does not answer")]


def test_a_provider_that_is_not_set_up_any_more_is_told() -> None:
    ((subject, message),) = told([READY], [])
    assert subject == "pg-c"
    assert "not set up any more" in message
