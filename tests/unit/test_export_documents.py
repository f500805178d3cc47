"""A zip as a stream, tables in words, and encryption that keeps errors as they were."""

import datetime as dt
import io
import tracemalloc
import zipfile
from collections.abc import Iterator

import pyrage  # type: ignore[import-untyped]  # it comes without stubs
import pytest

from control_plane.adapters.age_encryption import Recipient
from control_plane.adapters.export_documents import markdown
from control_plane.adapters.export_tables import Column, Constraint, Table
from control_plane.adapters.zip_stream import Member, zipped
from control_plane.domain.errors import Invalid, StoreUnavailable

NOON = dt.datetime(2026, 5, 6, 12, tzinfo=dt.UTC)
PIECE = bytes(range(256)) * 256


def table(name: str = "t", schema: str = "public", *columns: Column) -> Table:
    rule = Constraint("t_pkey", "PRIMARY KEY (id)")
    return Table(schema, name, None, "SELECT", list(columns), [rule])


def test_a_zip_is_readable_whatever_the_sizes() -> None:
    asked: list[str] = []

    def pieces(name: str, number: int) -> Iterator[bytes]:
        asked.append(name)
        for _ in range(number):
            yield PIECE

    members = [
        Member("none", []),
        Member("a/packed", pieces("packed", 40), packed=True),
        Member("a/plain", pieces("plain", 40)),
    ]
    stream = zipped(members, NOON)
    first = next(stream) + next(stream)
    assert asked == ["packed"], "a member is read when its turn comes"
    archive = zipfile.ZipFile(io.BytesIO(first + b"".join(stream)))
    assert archive.testzip() is None
    assert archive.namelist() == ["none", "a/packed", "a/plain"]
    assert archive.read("a/plain") == archive.read("a/packed") == PIECE * 40
    assert archive.getinfo("a/plain").compress_size < archive.getinfo("a/packed").compress_size
    assert archive.getinfo("none").date_time == (2026, 5, 6, 12, 0, 0)


def test_a_zip_and_its_encryption_take_little_memory() -> None:
    def much() -> Iterator[bytes]:
        for _ in range(1000):
            yield PIECE

    taken = 0

    def take(data: bytes) -> None:
        nonlocal taken
        taken += len(data)

    recipient = Recipient(str(pyrage.x25519.Identity.generate().to_public()))
    tracemalloc.start()
    recipient.encrypt(zipped([Member("much", much(), packed=True)], NOON), take)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken > 1000 * len(PIECE)
    assert peak < 4 * 1024 * 1024


def test_what_was_encrypted_opens_with_the_recipients_key() -> None:
    identity = pyrage.x25519.Identity.generate()
    sealed: list[bytes] = []
    Recipient(str(identity.to_public())).encrypt(iter([b"one", b"", PIECE]), sealed.append)
    assert pyrage.decrypt(b"".join(sealed), [identity]) == b"one" + PIECE


def test_errors_on_both_sides_come_out_as_they_were() -> None:
    recipient = Recipient(str(pyrage.x25519.Identity.generate().to_public()))

    def broken() -> Iterator[bytes]:
        yield PIECE
        raise StoreUnavailable("the source broke")

    def refuse(_: bytes) -> None:
        raise StoreUnavailable("the sink broke")

    with pytest.raises(StoreUnavailable, match="the source broke"):
        recipient.encrypt(broken(), lambda _: None)
    with pytest.raises(StoreUnavailable, match="the sink broke"):
        recipient.encrypt(iter([PIECE]), refuse)


@pytest.mark.parametrize("text", ["", "age1", "age1" + "q" * 58, "AGE-SECRET-KEY-1", "ssh-rsa A"])
def test_what_is_no_recipient_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="no age recipient"):
        Recipient(text)


@pytest.mark.parametrize(
    ("schema", "name", "file"),
    [
        ("public", "city", "data/public/city.csv"),
        ("..", "../../etc/passwd", "data/%2E%2E/%2E%2E%2F%2E%2E%2Fetc%2Fpasswd.csv"),
        ("a.b", "c", "data/a%2Eb/c.csv"),
        ("a", "b.c", "data/a/b%2Ec.csv"),
        ("p", "Größe\n", "data/p/Gr%C3%B6%C3%9Fe%0A.csv"),
    ],
)
def test_no_table_leads_out_of_its_folder(schema: str, name: str, file: str) -> None:
    assert table(name, schema).file == file


def test_tables_in_words() -> None:
    known = table(
        "visit",
        "public",
        Column("id", "bigint", required=True, identity=True, generated=False),
        Column(
            "a|`b", "text", required=False, identity=False, generated=False,
            default="'x'::text", comment="what | <b>they</b>\nsaid",
        ),
        Column("sum", "integer", required=False, identity=False, generated=True, default="a + 1"),
    )  # fmt: skip
    told = markdown("The # database", [known], {known.file: 17})
    assert told.startswith("# The \\# database\n")
    assert "17 rows in `data/public/visit.csv`." in told
    assert "| `id` | `bigint` | no | numbered by the database |  |" in told
    assert (
        "| ``a\\|`b`` | `text` | yes | by default `'x'::text` | what \\| \\<b\\>they\\</b\\> said |"
    ) in told
    assert "computed: `a + 1`; not in the CSV" in told
    assert "- `PRIMARY KEY (id)`" in told
