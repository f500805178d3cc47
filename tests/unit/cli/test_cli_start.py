"""Starting: what is imported, the version, the completion of a shell."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest

from control_plane.cli.main import main
from tests.unit.cli.canned_api import TOKEN, CannedApi, page, tenant

TENANTRY = str(Path(sys.executable).with_name("tenantry"))
SERVER_SIDE = {
    "litestar",
    "celery",
    "asyncpg",
    "sqlalchemy",
    "redis",
    "psycopg",
    "alembic",
    "control_plane.services",
    "control_plane.catalog",
    "control_plane.adapters",
    "control_plane.bootstrap",
    "control_plane.router",
    "control_plane.api",
    "control_plane.cli.admin",
    "workers",
}
SLOW = {"httpx", "rich"}


def imported_by(canned: CannedApi, home: Path, *arguments: str) -> set[str]:
    program = """
        import contextlib, io, json, sys
        from control_plane.cli.main import main
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(sys.argv[1:])
        print(json.dumps([code, sorted(sys.modules)]))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        env=environment(canned, home),
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(ended.stdout)
    assert code == 0
    return set(modules)


def environment(canned: CannedApi, home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"}}
    ours = {"TENANTRY_URL": canned.url, "TENANTRY_TOKEN": TOKEN, "TENANTRY_HOME": str(home)}
    return {**kept, **ours, **more}


@pytest.mark.parametrize(
    "arguments",
    [("tenants", "list"), ("tenants", "list", "--json"), ("tenants", "create", "acme", "--help")],
)
def test_a_client_imports_nothing_of_the_server_side(
    canned: CannedApi, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme")))

    assert not imported_by(canned, tmp_path, *arguments) & SERVER_SIDE


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("completion", "zsh")])
def test_what_asks_nobody_imports_nothing_slow(
    canned: CannedApi, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert not imported_by(canned, tmp_path, *arguments) & (SLOW | SERVER_SIDE)


def test_the_command_line_of_httpx_is_not_imported(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme")))
    modules = imported_by(canned, tmp_path, "tenants", "list", "--json")

    assert "httpx" in modules
    assert "pygments" not in modules


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tenantry {version('tenantry')}\n"


def test_help_is_asked_for_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: tenantry [OPTIONS] COMMAND" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("GET", "/v1/tenants", page(*[tenant(f"t{number}") for number in range(5000)]))
    ended = subprocess.run(
        ["sh", "-c", f"{TENANTRY} tenants list | head -n 1"],
        env=environment(canned, tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.startswith("SLUG")
    assert ended.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert f"_TENANTRY_COMPLETE={shell}_complete" in capsys.readouterr().out


def complete(canned: CannedApi, home: Path, *words: str) -> list[str]:
    """What bash offers for the last word, through the script that we print."""
    bash = shutil.which("bash")
    assert bash is not None
    line = " ".join(f"'{word}'" for word in ("tenantry", *words))
    program = f"""
        source <({TENANTRY} completion bash)
        COMP_WORDS=({line}) COMP_CWORD={len(words)}
        _tenantry_completion tenantry
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(TENANTRY).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [bash, "-c", program],
        env=environment(canned, home, PATH=path),
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split()


def test_bash_completes_commands_options_and_values(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme"), tenant("apex"), tenant("beta")))

    assert complete(canned, tmp_path, "ten") == ["tenants"]
    assert complete(canned, tmp_path, "tenants", "s") == ["show", "suspend"]
    assert complete(canned, tmp_path, "tenants", "create", "x", "--ti") == ["--tier"]
    assert complete(canned, tmp_path, "tenants", "list", "--tier", "d") == ["dedicated"]
    assert complete(canned, tmp_path, "psql", "a") == ["acme", "apex"]
    # There may be more tenants than a completion asks for: the API looks for them.
    assert canned.asked[-1].query["slug_prefix"] == "a"


def test_completion_is_silent_when_the_api_does_not_answer(
    canned: CannedApi, tmp_path: Path
) -> None:
    assert complete(canned, tmp_path, "psql", "a") == []
