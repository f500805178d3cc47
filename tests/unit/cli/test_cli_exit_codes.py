import json
import socket
from pathlib import Path

import pytest

from tests.unit.cli.canned_api import TOKEN, Answer, CannedApi, page, problem, tenant
from tests.unit.cli.conftest import Run


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 2),
        (401, 6),
        (403, 6),
        (404, 3),
        (409, 4),
        (422, 2),
        (429, 1),
        (500, 1),
        (502, 5),
        (503, 5),
    ],
)
def test_every_refusal_has_its_exit_code(
    run: Run, canned: CannedApi, status: int, code: int
) -> None:
    canned.on("GET", "/v1/tenants/acme", problem(status, "some_code", "the reason"))

    result = run("tenants", "show", "acme")

    assert result.code == code
    assert result.stderr == "error: the reason\n"
    assert result.stdout == ""


def test_json_puts_the_problem_document_on_stdout(run: Run, canned: CannedApi) -> None:
    refusal = problem(409, "slug_taken", "slug 'acme' belongs to another tenant")
    canned.on("POST", "/v1/tenants", refusal)

    result = run("tenants", "create", "acme", "--json")

    assert (result.code, result.stderr) == (4, "")
    assert result.json == refusal.body


def test_field_errors_follow_with_their_remedies(run: Run, canned: CannedApi) -> None:
    errors = [
        {"field": "slug", "message": "use 3 to 40 characters"},
        {"field": "tier", "message": "choose one of standard, enterprise, dedicated"},
    ]
    canned.on("POST", "/v1/tenants", problem(422, "invalid", "2 fields are wrong", errors=errors))

    result = run("tenants", "create", "A")

    assert result.code == 2
    assert result.stderr.splitlines() == [
        "error: 2 fields are wrong",
        "  slug: use 3 to 40 characters",
        "  tier: choose one of standard, enterprise, dedicated",
    ]


def test_a_remedy_that_the_detail_already_tells_is_not_repeated(
    run: Run, canned: CannedApi
) -> None:
    errors = [{"field": "slug", "message": "use 3 to 40 characters"}]
    told = problem(422, "invalid", "slug 'A': use 3 to 40 characters", errors=errors)
    canned.on("POST", "/v1/tenants", told)

    assert run("tenants", "create", "A").stderr == "error: slug 'A': use 3 to 40 characters\n"


def test_a_conflict_names_the_operation_to_look_at(run: Run, canned: CannedApi) -> None:
    busy = problem(409, "operation_in_progress", "acme is busy", operation="op_7")
    canned.on("POST", "/v1/tenants/acme/suspensions", busy)

    result = run("tenants", "suspend", "acme")

    assert result.code == 4
    assert "  see it with: tenantry operations show op_7" in result.stderr.splitlines()


def test_an_answer_that_is_no_problem_document_is_told_in_words(
    run: Run, canned: CannedApi
) -> None:
    canned.on("GET", "/v1/tenants/acme", Answer(502, "<h1>Bad Gateway</h1>", "text/html"))

    result = run("tenants", "show", "acme")

    assert (result.code, result.stderr) == (
        5,
        "error: GET /v1/tenants/acme answered 502 Bad Gateway\n",
    )


def test_a_success_that_is_no_json_is_not_taken_for_our_api(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants/acme", Answer(200, "<h1>Welcome</h1>", "text/html"))

    result = run("tenants", "show", "acme")

    assert result.code == 1
    assert "check that TENANTRY_URL names a Tenantry API" in result.stderr


def test_nobody_listening_is_unreachable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("TENANTRY_URL", url)

        result = run("tenants", "list")
        as_json = run("tenants", "list", "--json")

    assert result.code == as_json.code == 5
    assert result.stderr.startswith(f"error: {url} does not answer")
    assert "./dev status" in result.stderr
    assert as_json.json["code"] == "unreachable"


def test_nothing_to_talk_to_is_unreachable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENANTRY_URL")

    result = run("tenants", "list")

    assert result.code == 5
    assert "set TENANTRY_URL and TENANTRY_TOKEN" in result.stderr


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://example.org", "http://", "nonsense", "http://[::1", "http://a:b/"],
)
def test_an_unusable_url_is_a_usage_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TENANTRY_URL", url)

    result = run("tenants", "list")

    assert result.code == 2
    assert repr(url) in result.stderr


def test_a_key_in_clear_over_the_network_is_warned_of_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_URL", "http://tenantry.invalid")
    in_clear = run("tenants", "list").stderr.splitlines()
    monkeypatch.setenv("TENANTRY_URL", "https://tenantry.invalid")
    encrypted = run("tenants", "list").stderr

    assert in_clear[0].startswith("warning: http://tenantry.invalid is not encrypted")
    assert [line for line in in_clear if "warning" in line] == in_clear[:1]
    assert "warning" not in encrypted


def test_without_a_key_nothing_is_asked(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TENANTRY_TOKEN")

    result = run("tenants", "list")

    assert result.code == 6
    assert "set TENANTRY_TOKEN" in result.stderr
    assert canned.asked == []


@pytest.mark.parametrize("token", ["tnk_a\nb", "tnk_é", "two words"])
def test_a_key_that_no_header_can_carry_is_refused_here(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("TENANTRY_TOKEN", token)

    result = run("tenants", "list")

    assert (result.code, canned.asked) == (6, [])
    assert "TENANTRY_TOKEN does not hold an API key" in result.stderr


def test_the_local_stack_is_found_by_itself(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TENANTRY_URL")
    monkeypatch.delenv("TENANTRY_TOKEN")
    key = tmp_path / "admin.token"
    key.write_text("tnk_local_key\n")
    facts = {"api_url": canned.url, "token_file": str(key)}
    (tmp_path / "stack.json").write_text(json.dumps(facts))
    canned.on("GET", "/v1/tenants", page(tenant("acme")))

    assert run("tenants", "list").code == 0
    assert canned.asked[0].headers["authorization"] == "Bearer tnk_local_key"


def test_the_key_of_the_local_stack_goes_nowhere_else(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TENANTRY_TOKEN")
    key = tmp_path / "admin.token"
    key.write_text("tnk_local_key\n")
    facts = {"api_url": "http://127.0.0.1:1", "token_file": str(key)}
    (tmp_path / "stack.json").write_text(json.dumps(facts))

    result = run("tenants", "list")

    assert (result.code, canned.asked) == (6, [])
    assert f"no key for {canned.url}" in result.stderr


def test_a_key_file_that_cannot_be_read_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, canned: CannedApi, tmp_path: Path
) -> None:
    monkeypatch.delenv("TENANTRY_TOKEN")
    missing = tmp_path / "admin.token"
    facts = {"api_url": canned.url, "token_file": str(missing)}
    (tmp_path / "stack.json").write_text(json.dumps(facts))

    result = run("tenants", "list")

    assert result.code == 6
    assert str(missing) in result.stderr


def test_the_environment_wins_over_the_local_stack(
    run: Run, canned: CannedApi, tmp_path: Path
) -> None:
    facts = {"api_url": "http://127.0.0.1:1", "token_file": "/nowhere"}
    (tmp_path / "stack.json").write_text(json.dumps(facts))
    canned.on("GET", "/v1/tenants", page(tenant("acme")))

    assert run("tenants", "list").code == 0
    assert canned.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("tenants", "bogus"),
        ("tenants", "show"),
        ("tenants", "show", ""),
        ("tenants", "show", ".."),
        ("tenants", "show", "acme", "extra"),
        ("tenants", "list", "--limit", "0"),
        ("tenants", "create", "acme", "--label", "no-equals"),
        ("tenants", "create", "acme", "--tier", "golden"),
        ("rotate", "acme", "--grace", "soon"),
        ("audit", "--since", "yesterday"),
        ("audit", "--since", "99999999999d"),
        ("servers", "add", "pg-c"),
        ("completion", "tcsh"),
    ],
)
def test_a_line_that_cannot_be_meant_is_a_usage_error(
    run: Run, canned: CannedApi, arguments: tuple[str, ...]
) -> None:
    plain, as_json = run(*arguments), run(*arguments, "--json")

    assert plain.code == as_json.code == 2
    assert plain.stderr.startswith("error: ")
    assert plain.stdout == ""
    assert as_json.json["code"] == "usage"
    assert canned.asked == []


def test_a_name_with_a_slash_stays_one_name(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants/..%2Fkeys", problem(404, "not_found", "there is no tenant"))

    assert run("tenants", "show", "../keys").code == 3
    assert [one.path for one in canned.asked] == ["/v1/tenants/..%2Fkeys"]


def test_a_broken_connection_is_tried_again(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", Answer(hang_up=True), Answer(body=page(tenant("acme"))))

    assert run("tenants", "list").code == 0
    assert len(canned.asked) == 2


def test_a_change_keeps_its_key_when_it_is_sent_again(run: Run, canned: CannedApi) -> None:
    canned.on(
        "DELETE", "/v1/keys/ky_1", Answer(hang_up=True), Answer(hang_up=True), Answer(status=204)
    )

    assert run("keys", "revoke", "ky_1").code == 0
    keys = [asked.headers["idempotency-key"] for asked in canned.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_two_invocations_use_two_keys(run: Run, canned: CannedApi) -> None:
    canned.on("DELETE", "/v1/keys/ky_1", Answer(status=204))

    run("keys", "revoke", "ky_1")
    run("keys", "revoke", "ky_1")

    keys = {asked.headers["idempotency-key"] for asked in canned.asked}
    assert len(keys) == 2


def test_a_connection_that_keeps_breaking_is_given_up(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", Answer(hang_up=True))

    assert run("tenants", "list").code == 5
    assert len(canned.asked) == 3


def test_a_refusal_is_not_tried_again(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", problem(503, "catalog_unavailable", "the catalog is away"))

    assert run("tenants", "list").code == 5
    assert len(canned.asked) == 1


def test_the_key_is_not_sent_after_a_redirect(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", Answer(307, {"detail": "moved"}))

    assert run("tenants", "list").code == 1
    assert len(canned.asked) == 1


def test_a_proxy_of_the_environment_is_not_asked_for_our_own_loopback(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    canned.on("GET", "/v1/tenants", page(tenant("acme")))

    assert run("tenants", "list").code == 0


def test_text_of_a_server_cannot_steer_the_terminal(run: Run, canned: CannedApi) -> None:
    hostile = "a\x1b]0;owned\x07b\x9b31mc\u202ed\ne"
    canned.on("GET", "/v1/tenants", page(tenant("acme", name=hostile)))
    canned.on("GET", "/v1/tenants/acme", problem(404, "not_found", hostile))

    listed, refused = run("tenants", "list"), run("tenants", "show", "acme")

    for text in (listed.stdout, refused.stderr):
        assert "a?]0;owned?b?31mc?d e" in text
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_markup_in_a_name_is_shown_as_it_is(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme", name="[red]Acme[/red] :smile:")))

    assert "[red]Acme[/red] :smile:" in run("tenants", "list").stdout


def test_the_key_is_never_printed(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", Answer(hang_up=True))

    result = run("tenants", "list")

    assert TOKEN not in result.stdout + result.stderr
