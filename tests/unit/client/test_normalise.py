"""Spellings that mean the same become one; what cannot be meant is refused without repeating it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_template.client import NotNormal, normalise

texts = st.text(min_size=1).filter(lambda text: text.split())


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        ("  Ada@Example.ORG\n", "ada@example.org"),
        ("Straße", "strasse"),
        ("STRASSE", "strasse"),
        ("ﬁne", "fine"),
        ("e\u0301", "é"),
        ("É", "é"),
        ("Ａｄａ", "ada"),  # noqa: RUF001 - full width is the point
        ("Ada \t Lovelace", "ada lovelace"),
        ("Ada\u00a0Lovelace", "ada lovelace"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("\u0345", "ι"),  # noqa: RUF001 - Greek is the point
    ],
)
def test_spellings_become_one(spelling: str, normal: str) -> None:
    """Fixed: a change here would lose every row that was indexed before."""
    assert normalise.text(spelling) == normal


@given(texts)
def test_normal_is_normal(value: str) -> None:
    normal = normalise.text(value)
    assert normalise.text(normal) == normal
    assert normal == normal.strip()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_case_and_space_around_do_not_count(value: str) -> None:
    if value.split():
        assert normalise.text(f"  {value.upper()} ") == normalise.text(value.lower())


@pytest.mark.parametrize("nothing", ["", "  ", "\n\t\u3000"])
def test_nothing_has_no_blind_index(nothing: str) -> None:
    with pytest.raises(NotNormal, match="store NULL"):
        normalise.text(nothing)


@pytest.mark.parametrize(
    "spelling", ["+493012345678", "+49 30 1234-5678", " +49.30.12345678", "+49\u00a03012345678"]
)
def test_phones_become_e164(spelling: str) -> None:
    assert normalise.phone(spelling) == "+493012345678"


@given(st.integers(10**6, 10**15 - 1))
def test_e164_stays(number: int) -> None:
    assert normalise.phone(f"+{number}") == f"+{number}"


@pytest.mark.parametrize(
    "spelling",
    [
        "030 12345678",
        "0049 30 12345678",
        "+49 (0)30 12345678",
        "+0493012345678",
        "+49301",
        "+4930123456789012345",
        "+٤٩٣٠١٢٣٤٥٦٧٨",
        "+49 30 1234 ext 5",
        "",
    ],
)
def test_other_phones_are_refused_and_not_repeated(spelling: str) -> None:
    with pytest.raises(NotNormal, match=r"E\.164") as refused:
        normalise.phone(spelling)
    assert not spelling or spelling not in str(refused.value)
