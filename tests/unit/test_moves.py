"""What stands in the way of a move, what it may leave on servers, and how contents differ."""

from uuid import UUID

import msgspec
import pytest

from control_plane.domain.administrators import EVERYTHING
from control_plane.domain.backups import Extension, Locale, TableContent
from control_plane.domain.move_invariants import Difference, ExpectedMove, FoundLinks, differences
from control_plane.domain.moves import (
    Link,
    Progress,
    SourceFacts,
    Table,
    TargetFacts,
    storage_of,
    survey,
    unequal,
)

MOVE = UUID(int=7)
TABLE = Table(
    "public.t", 8192, ("id",), "hash_record_extended(ROW(id), 0)", keyed=True, logged=True
)
SOURCE = SourceFacts(
    version_num=150020,
    tables=(TABLE,),
    foreign_tables=(),
    large_objects=0,
    event_triggers=(),
    publications=(),
    subscriptions=(),
    extensions=(Extension("citext", "1.6", "public"),),
    prepared_transactions=0,
    locale=Locale("UTF8", "C.UTF-8", "C.UTF-8", "c"),
    size=1,
    wal_level="logical",
    slots_free=5,
    senders_free=5,
    workers_free=1,
    slot_wal_limit=-1,
    old_transactions=(),
)
TARGET = TargetFacts(
    version_num=180006,
    extensions=frozenset({"citext"}),
    knows_locale=True,
    wal_level="logical",
    slots_free=5,
    senders_free=5,
    workers_free=3,
    databases_size=7 * 1024**3,
    storage=10 * 1024**3,
)


def test_nothing_in_the_way() -> None:
    found = survey(SOURCE, TARGET)
    assert (found.refusals, found.offline_reasons, found.advice) == ((), (), ())


def test_every_refusal_at_once() -> None:
    source = msgspec.structs.replace(
        SOURCE, event_triggers=("ddl",), prepared_transactions=2, foreign_tables=("public.f",)
    )
    target = msgspec.structs.replace(
        TARGET, version_num=140009, extensions=frozenset(), knows_locale=False
    )
    assert len(survey(source, target).refusals) == 6


def test_a_server_without_room_is_refused() -> None:
    fits = msgspec.structs.replace(SOURCE, size=2 * 1024**3)
    assert survey(fits, TARGET).refusals == ()
    large = msgspec.structs.replace(SOURCE, size=3 * 1024**3)
    (reason,) = survey(large, TARGET).refusals
    assert "needs about 4 GB" in reason
    assert "3 GB left" in reason


def test_where_room_is_not_known_it_is_said() -> None:
    unknown = msgspec.structs.replace(TARGET, storage=None)
    found = survey(SOURCE, unknown)
    assert found.refusals == ()
    (advice,) = found.advice
    assert "storage_gb" in advice


@pytest.mark.parametrize(
    ("labels", "bytes_"),
    [
        ({"storage_gb": "2"}, 2 * 1024**3),
        ({"storage_gb": "0.5"}, 512 * 1024**2),
        ({"storage_gb": "much"}, None),
        ({"storage_gb": "inf"}, None),
        ({}, None),
    ],
)
def test_what_a_label_says_of_storage(labels: dict[str, str], bytes_: int | None) -> None:
    assert storage_of(labels) == bytes_


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"large_objects": 3}, "3 large objects"),
        ({"tables": (msgspec.structs.replace(TABLE, logged=False),)}, "unlogged"),
        ({"publications": ("theirs",)}, "theirs"),
        ({"wal_level": "replica"}, "wal_level of the source"),
        ({"slots_free": 1}, "max_replication_slots"),
        ({"senders_free": 0}, "max_wal_senders"),
        ({"workers_free": 0}, "the source has no replication worker"),
    ],
)
def test_what_can_only_be_moved_offline(changed: dict[str, object], word: str) -> None:
    (reason,) = survey(msgspec.structs.replace(SOURCE, **changed), TARGET).offline_reasons
    assert word in reason


def test_an_administrator_that_may_not_stream_moves_offline() -> None:
    bound = msgspec.structs.replace(
        EVERYTHING, superuser=False, replication=False, subscriptions=False, bypassrls=False
    )
    target = msgspec.structs.replace(TARGET, may=bound)
    found = survey(SOURCE, target)
    assert (found.refusals, len(found.offline_reasons)) == ((), 1)
    assert found.offline_reasons[0].startswith(
        "the administrator of the target lacks REPLICATION (or rds_replication), "
        "pg_create_subscription"
    )
    guarded = msgspec.structs.replace(SOURCE, row_security=("public.a",), may=bound)
    refusals = survey(guarded, TARGET).refusals
    assert len(refusals) == 1
    assert refusals[0].endswith("as a whole: public.a")
    lent = msgspec.structs.replace(bound, lends_streaming=True, subscriptions=True)
    assert survey(SOURCE, msgspec.structs.replace(TARGET, may=lent)).offline_reasons == ()


def test_what_costs_is_said() -> None:
    keyless = msgspec.structs.replace(TABLE, keyed=False)
    source = msgspec.structs.replace(SOURCE, tables=(keyless,), old_transactions=("session 1",))
    keys, waits = survey(source, TARGET).advice
    assert "public.t" in keys
    assert "session 1" in waits


def test_names_of_both_directions_are_different_and_short_enough() -> None:
    there, back = Link(MOVE), Link(MOVE, back=True)
    names = [name for one in (there, back) for name in (one.name, one.sender, one.applier)]
    assert len(set(names)) == 6
    assert max(map(len, names)) < 64


def test_contents_that_differ() -> None:
    here = {"a": TableContent(1, "5"), "b": TableContent(2, "6"), "c": TableContent(0, "0")}
    there = {"a": TableContent(1, "4"), "b": TableContent(3, "6"), "d": TableContent(0, "0")}
    assert unequal(here, here) == []
    assert unequal(here, there) == [
        "table a has 1 rows on both sides that differ",
        "table b has 2 rows on the source, 3 there",
        "table c is only on the source",
        "table d is only on the target",
    ]


def test_progress_in_words() -> None:
    assert Progress(512, 2048, 1000, 3.0, 10_485_760).words() == (
        "512 bytes of about 2 kB, 1,000 rows, about 9 s left; 10 MB of WAL kept"
    )


def expected(**changed: object) -> ExpectedMove:
    move = ExpectedMove(
        MOVE, "acme", "reversible", online=True, busy=False, source="pg-a", target="pg-b"
    )
    return msgspec.structs.replace(move, **changed)


BACK = Link(MOVE, back=True)
WHOLE_TARGET = FoundLinks(
    slots=frozenset({BACK.name}),
    roles=frozenset({BACK.sender}),
    publications=frozenset({("t_x", BACK.name)}),
)
WHOLE_SOURCE = FoundLinks(subscriptions={BACK.name: True}, roles=frozenset({BACK.applier}))


def found(server: str, links: FoundLinks, *moves: ExpectedMove) -> list[Difference]:
    return list(differences(server, links, moves))


def test_a_way_back_that_is_whole() -> None:
    assert found("pg-b", WHOLE_TARGET, expected()) == []
    assert found("pg-a", WHOLE_SOURCE, expected()) == []


def test_what_belongs_to_no_move_is_found() -> None:
    assert [one.invariant for one in found("pg-b", WHOLE_TARGET)] == ["I-4", "I-3", "I-3"]
    assert [one.invariant for one in found("pg-a", WHOLE_SOURCE)] == ["I-3", "I-3"]
    # Nor does it belong to a move between other servers.
    assert found("pg-b", WHOLE_TARGET, expected(target="pg-c")) != []


@pytest.mark.parametrize(
    ("server", "links"),
    [
        ("pg-b", FoundLinks()),
        ("pg-b", msgspec.structs.replace(WHOLE_TARGET, lost_slots=frozenset({BACK.name}))),
        ("pg-a", FoundLinks()),
        ("pg-a", FoundLinks(subscriptions={BACK.name: False})),
    ],
)
def test_a_way_back_that_is_broken_is_found(server: str, links: FoundLinks) -> None:
    (one,) = found(server, links, expected())
    assert "tenantry move finish acme" in one.remedy
    assert found(server, links, expected(busy=True)) == []
    assert found(server, links, expected(online=False)) == []


def test_a_move_that_nobody_goes_on_with_is_found() -> None:
    (one,) = found("pg-b", FoundLinks(), expected(state="switched"))
    assert one.invariant == "I-10"
