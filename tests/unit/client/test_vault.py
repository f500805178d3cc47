"""The format of sealed values and blind indexes: what was written must stay readable for ever."""

import copy
import pickle
from uuid import UUID, uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tenant_template.client import CannotDecrypt, Vault
from tenant_template.client.vault import BLIND_INDEX_BYTES, looks_sealed

TENANT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ROW = UUID("3fa85f64-5717-4562-b3fc-2c963f66afa6")
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
TABLE, COLUMN = "patients.patient", "email_ciphertext"
VAULT = Vault(TENANT, {1: OLD, 2: NEW}, 2)
INDEX = "patients.patient.email_blind_index"


def seal(vault: Vault, plain: bytes) -> bytes:
    return vault.seal(plain, table=TABLE, column=COLUMN, row=ROW)


def unseal(vault: Vault, sealed: bytes) -> bytes:
    return vault.open(sealed, table=TABLE, column=COLUMN, row=ROW)


def test_values_written_by_earlier_versions_open() -> None:
    """Fixed: made once by this format under each key."""
    assert (
        unseal(
            VAULT,
            bytes.fromhex(
                "01000000016465666768696a6b6c6d6e6f6453fbdcc9df79a2876201a47cc8ae"
                "e423f551598fdcfb9b48ed75ac8133e6"
            ),
        )
        == b"ada@example.org"
    )
    assert (
        unseal(
            VAULT,
            bytes.fromhex(
                "01000000026465666768696a6b6c6d6e6ff7188f910df0a81f9ddb9460aac012"
                "8b8750e99496eaef662b18f9d7d70564"
            ),
        )
        == b"ada@example.org"
    )


def test_blind_indexes_stay_the_same() -> None:
    assert [found.hex() for found in VAULT.blind_indexes(INDEX, "ada@example.org")] == [
        "b316b59456ac1eedaaea129b2d972dc0",
        "e0b4325364a8c8337204302d95f37693",
    ]


@given(st.binary(max_size=2000))
def test_what_is_sealed_opens(plain: bytes) -> None:
    sealed = seal(VAULT, plain)
    assert unseal(VAULT, sealed) == plain
    assert looks_sealed(sealed)
    assert len(sealed) == len(plain) + 33
    assert sealed[:5] == b"\x01\x00\x00\x00\x02"


@given(st.binary(min_size=12, max_size=200))
def test_nothing_of_the_plain_text_is_left_and_no_two_are_alike(plain: bytes) -> None:
    first, second = seal(VAULT, plain), seal(VAULT, plain)
    assert first != second
    assert plain not in first


@given(st.data(), st.binary(max_size=50))
def test_any_changed_bit_is_noticed(data: st.DataObject, plain: bytes) -> None:
    sealed = bytearray(seal(VAULT, plain))
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[place // 8] ^= 1 << place % 8
    with pytest.raises(CannotDecrypt):
        unseal(VAULT, bytes(sealed))


@given(st.data(), st.binary(max_size=50))
def test_a_value_that_was_cut_does_not_open(data: st.DataObject, plain: bytes) -> None:
    sealed = seal(VAULT, plain)
    with pytest.raises(CannotDecrypt):
        unseal(VAULT, sealed[: data.draw(st.integers(0, len(sealed) - 1))])


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(st.tuples(names, names, st.uuids()), st.tuples(names, names, st.uuids()))
def test_a_value_opens_in_its_own_place_only(
    there: tuple[str, str, UUID], here: tuple[str, str, UUID]
) -> None:
    assume(there != here)
    sealed = VAULT.seal(b"x", table=there[0], column=there[1], row=there[2])
    with pytest.raises(CannotDecrypt):
        VAULT.open(sealed, table=here[0], column=here[1], row=here[2])


def test_each_part_of_the_place_counts() -> None:
    sealed = seal(VAULT, b"x")
    places = [(TABLE, COLUMN, uuid4()), (TABLE, "phone_ciphertext", ROW), ("a.b", COLUMN, ROW)]
    for table, column, row in places:
        with pytest.raises(CannotDecrypt, match="does not open here"):
            VAULT.open(sealed, table=table, column=column, row=row)


def test_another_tenant_with_the_same_key_opens_nothing() -> None:
    stranger = Vault(uuid4(), {1: OLD, 2: NEW}, 2)
    with pytest.raises(CannotDecrypt, match="another tenant"):
        unseal(stranger, seal(VAULT, b"x"))
    assert stranger.blind_index(INDEX, "ada") != VAULT.blind_index(INDEX, "ada")


def test_an_unknown_key_is_named_with_the_remedy() -> None:
    before = Vault(TENANT, {1: OLD}, 1)
    with pytest.raises(CannotDecrypt, match=r"under key 2.*fetch the keys again"):
        unseal(before, seal(VAULT, b"x"))


def test_after_a_rotation_the_old_still_opens_and_is_found() -> None:
    before = Vault(TENANT, {1: OLD}, 1)
    assert unseal(VAULT, seal(before, b"x")) == b"x"
    wanted = VAULT.blind_indexes(INDEX, "ada")
    assert wanted == [VAULT.blind_index(INDEX, "ada"), before.blind_index(INDEX, "ada")]


@given(st.text(max_size=40), st.text(max_size=40))
def test_blind_indexes_are_equal_for_equal_values_only(first: str, second: str) -> None:
    one, other = VAULT.blind_index(INDEX, first), VAULT.blind_index(INDEX, second)
    assert len(one) == BLIND_INDEX_BYTES
    assert (one == other) == (first == second)
    assert one != VAULT.blind_index("patients.patient.phone_blind_index", first)


def test_keys_are_never_shown() -> None:
    shown = f"{VAULT!r} {VAULT}"
    assert "keys (2, 1)" in shown
    for key in (OLD, NEW):
        assert repr(key) not in shown
        assert key.hex() not in shown
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            leave(VAULT)


@pytest.mark.parametrize(("keys", "active"), [({1: OLD}, 2), ({1: OLD[:16]}, 1), ({}, 1)])
def test_a_vault_without_its_keys_is_refused(keys: dict[int, bytes], active: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(TENANT, keys, active)
