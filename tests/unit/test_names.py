import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import Invalid
from control_plane.domain.names import (
    RESERVED_PREFIX,
    RESERVED_SLUGS,
    SLUG_PATTERN,
    RoleSet,
    check_slug,
    database_name,
    decode,
    encode,
    parse,
    show,
)

POSTGRES_NAME_BYTES = 63


@given(st.uuids())
def test_an_id_survives_its_text_form(key: uuid.UUID) -> None:
    assert decode(encode(key)) == key
    assert parse("tn", show("tn", key)) == key
    assert parse("op", show("tn", key)) is None


@given(st.uuids(), st.uuids())
def test_text_forms_sort_as_ids_do(one: uuid.UUID, other: uuid.UUID) -> None:
    assert (encode(one) < encode(other)) == (one.int < other.int)


@given(st.text(max_size=30))
def test_only_the_text_form_of_an_id_is_read_as_one(text: str) -> None:
    found = parse("tn", f"tn_{text}")
    assert found is None or show("tn", found) == f"tn_{text}"


@given(st.uuids())
def test_names_for_postgres_are_plain_and_short(key: uuid.UUID) -> None:
    for name in (database_name(key), *RoleSet(key).every):
        assert re.fullmatch(r"t_[0-9a-z]{26}(_[a-z]+)*", name)
        assert len(name.encode()) <= POSTGRES_NAME_BYTES


def test_a_tenant_has_eight_roles_with_names_of_their_own() -> None:
    roles = RoleSet(uuid.UUID(int=1))
    endings = {name.removeprefix(roles.prefix) for name in roles.every}
    assert endings == {"_owner", "_app", "_app_a", "_app_b", "_mig", "_bak", "_audit", "_ro"}
    assert len(roles.every) == len(endings)


@given(st.uuids(), st.uuids())
def test_two_tenants_share_no_name(one: uuid.UUID, other: uuid.UUID) -> None:
    if one != other:
        assert not set(RoleSet(one).every) & set(RoleSet(other).every)


@given(st.from_regex(SLUG_PATTERN, fullmatch=True))
def test_a_well_formed_slug_is_taken_unless_reserved(slug: str) -> None:
    if slug in RESERVED_SLUGS or slug.startswith(RESERVED_PREFIX):
        with pytest.raises(Invalid, match="reserved"):
            check_slug(slug)
    else:
        assert check_slug(slug) == slug


@pytest.mark.parametrize("slug", ["template", "template0", "template1", "template-clinic"])
def test_names_of_template_databases_are_reserved(slug: str) -> None:
    with pytest.raises(Invalid, match="template… is reserved"):
        check_slug(slug)


@given(st.text(max_size=60))
def test_any_other_slug_is_refused_with_the_rule(slug: str) -> None:
    if re.fullmatch(SLUG_PATTERN, slug) is None:
        with pytest.raises(Invalid, match="lower-case letters") as refused:
            check_slug(slug)
        assert refused.value.errors[0]["field"] == "slug"


@pytest.mark.parametrize("slug", ["a\n", "acme\n", "acme-", "Acme", "a", "x" * 41, "é-clinic", ""])
def test_slugs_that_look_almost_right_are_refused(slug: str) -> None:
    with pytest.raises(Invalid):
        check_slug(slug)
