"""The parts of the console that need no server: where it leads, what it reads, who decides."""

import datetime as dt
from typing import Annotated

import msgspec
import pytest
from litestar import Litestar, get
from msgspec import Meta

from control_plane.catalog.tenant_list import Search, _matching
from control_plane.config import Settings, SettingsError
from control_plane.console import access, rendering
from control_plane.console.actions import ACTIONS
from control_plane.console.forms import read_form
from control_plane.console.navigation import PLACES
from control_plane.domain.errors import Invalid
from control_plane.domain.keys import PERMISSIONS
from control_plane.domain.people import check_email, check_password
from control_plane.domain.plans import PLANS
from control_plane.domain.spans import span_words


class Form(msgspec.Struct, frozen=True):
    slug: Annotated[str, Meta(min_length=3)]
    days: int = 7


@pytest.mark.parametrize(
    ("wanted", "leads"),
    [
        ("/console/tenants?q=a", "/console/tenants?q=a"),
        ("/v1/tenants", "/console/"),
        ("https://elsewhere.example/console/", "/console/"),
        ("//elsewhere.example/console/", "/console/"),
        ("javascript:alert(1)", "/console/"),
        ("/console/\\elsewhere", "/console/"),
        ("", "/console/"),
        (None, "/console/"),
    ],
)
def test_signing_in_leads_nowhere_else(wanted: str | None, leads: str) -> None:
    assert access.own_path(wanted) == leads


def test_a_form_is_read_or_its_field_is_named() -> None:
    assert read_form({"slug": "acme", "days": "30", "other": "x"}, Form) == Form("acme", 30)
    for fields, field in (({}, "slug"), ({"slug": "acme", "days": "x"}, "days")):
        with pytest.raises(Invalid) as refused:
            read_form(fields, Form)
        assert [one["field"] for one in refused.value.errors] == [field]


def test_a_page_that_nobody_decided_about_stops_the_start() -> None:
    @get("/console/secrets")
    async def secrets() -> None:
        """Never served."""

    with pytest.raises(RuntimeError, match="does not say who may see it"):
        access.require_decisions(Litestar([secrets], openapi_config=None))
    with pytest.raises(KeyError):
        access.needs("listSecrets")


def test_actions_and_places_are_behind_operations_that_there_are() -> None:
    assert {action.permission for action in ACTIONS} <= set(PERMISSIONS)
    assert {action.kind for action in ACTIONS} <= set(PLANS)
    assert len({action.path for action in ACTIONS}) == len(ACTIONS)
    assert {place.permission for place in PLACES} <= set(PERMISSIONS)


def test_no_template_writes_what_it_was_given_as_it_is() -> None:
    for name in rendering.ENVIRONMENT.list_templates():
        source = rendering.ENVIRONMENT.loader.get_source(rendering.ENVIRONMENT, name)[0]  # type: ignore[union-attr]  # it has a loader
        assert "|safe" not in source.replace(" ", ""), name
        assert " style=" not in source, name
        assert "onclick" not in source, name
        assert "autoescape" not in source, name


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.25, "0.2 s"), (59, "59 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h")],
)
def test_spans_are_told_in_the_largest_unit_of_which_there_are_two(
    seconds: float, words: str
) -> None:
    assert span_words(seconds) == words
    assert span_words(dt.timedelta(seconds=seconds)) == words


def test_sizes_are_told_in_binary_units() -> None:
    assert rendering.size_words(None) == rendering.UNKNOWN
    assert rendering.size_words(1023) == "1023 B"
    assert rendering.size_words(1536) == "1.5 KiB"
    assert rendering.size_words(5 << 40) == "5.0 TiB"


def test_wildcards_that_were_typed_are_plain_characters() -> None:
    matching, values = _matching(Search(words="50%_\\", state="active"))
    assert values == [r"%50\%\_\\%", "active"]
    assert "$1" in matching
    assert "$2" in matching


def test_addresses_and_passwords_are_looked_at() -> None:
    assert check_email("Ada@Example.COM") == "ada@example.com"
    for wrong in ("ada", "a b@c.d", "@c.d", '"><script>@c.d', "a@b c"):
        with pytest.raises(Invalid):
            check_email(wrong)
    for wrong in ("short", "x" * 201):
        with pytest.raises(Invalid):
            check_password(wrong)
    check_password("x" * 12)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TENANTRY_PUBLIC_URL", "console.example.com", "is not of the form"),
        ("TENANTRY_PUBLIC_URL", "https://example.com/path", "is not of the form"),
        ("TENANTRY_PUBLIC_URL", "", "needs TENANTRY_PUBLIC_URL"),
        ("TENANTRY_OIDC_ROLE_MAP", "ops=nobody", "is not VALUE=ROLE"),
        ("TENANTRY_OIDC_ROLE_MAP", "", "is not set"),
        ("TENANTRY_OIDC_CLIENT_ID", "", "is not set"),
    ],
)
def test_settings_of_a_provider_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    given = {
        "TENANTRY_CATALOG_DSN": "postgresql://nobody@127.0.0.1/nothing",
        "TENANTRY_REDIS_URL": "redis://127.0.0.1/0",
        "TENANTRY_PUBLIC_URL": "https://console.example.com",
        "TENANTRY_OIDC_ISSUER": "https://id.example.com",
        "TENANTRY_OIDC_CLIENT_ID": "tenantry",
        "TENANTRY_OIDC_ROLE_MAP": "a=b=operator, audit=auditor",
    }
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    oidc = Settings.from_environment().console.oidc
    assert oidc is not None
    assert oidc.role_map == {"a=b": "operator", "audit": "auditor"}
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment()
