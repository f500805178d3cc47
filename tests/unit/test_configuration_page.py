"""docs/configuration.md against control_plane/config, in both directions."""

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control_plane import config
from control_plane.config import REPOSITORY, Settings, child_environment, secret_files

PAGE = REPOSITORY / "docs" / "configuration.md"
NAME = re.compile(r"_?TENANTRY_[A-Z0-9_]*[A-Z0-9]")
ROW = re.compile(r"\| `(TENANTRY_[A-Z0-9_]+)` \| (.+?) \| (.+?) \| (.+) \|")
READERS = {"all", "agent", "CLI", "dev"}
SHELL_COMPLETION = "_TENANTRY_COMPLETE"  # click's own


def read_by_code(source: str) -> set[str]:
    """The variables that a source names whole, as the argument of a call or a subscript."""
    words = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return {word for word in words if isinstance(word, str) and NAME.fullmatch(word)}


def rows(page: str) -> dict[str, tuple[str, str, str]]:
    found = ROW.findall(page)
    names = [name for name, *_ in found]
    assert len(names) == len(set(names)), "a variable has two rows"
    return {name: (default, readers, meaning) for name, default, readers, meaning in found}


def differences(source: str, page: str) -> list[str]:
    code, documented = read_by_code(source), set(rows(page))
    return [f"{name} is not in the table" for name in sorted(code - documented)] + [
        f"{name} is read by nobody" for name in sorted(documented - code)
    ]


def source_of_settings() -> str:
    folder = Path(config.__file__).parent
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.py")))


def test_the_table_has_what_the_code_reads_and_nothing_else() -> None:
    source = source_of_settings()
    assert len(read_by_code(source)) > 40
    assert differences(source, PAGE.read_text()) == []


def test_a_missing_row_and_an_invented_one_are_found() -> None:
    source, page = source_of_settings(), PAGE.read_text()
    assert differences(source, page.replace("| `TENANTRY_UNDO_DAYS`", "| `UNDO`")) == [
        "TENANTRY_UNDO_DAYS is not in the table"
    ]
    invented = page.replace("`TENANTRY_UNDO_DAYS`", "`TENANTRY_UNDO_YEARS`", 1)
    assert differences(source, invented) == [
        "TENANTRY_UNDO_DAYS is not in the table",
        "TENANTRY_UNDO_YEARS is read by nobody",
    ]


def test_no_other_file_of_the_product_reads_a_variable_that_is_not_in_the_table() -> None:
    documented = set(rows(PAGE.read_text())) | {SHELL_COMPLETION}
    for package in ("control_plane", "workers", "deploy", "tenant_template"):
        for path in (REPOSITORY / package).rglob("*.py"):
            unknown = read_by_code(path.read_text()) - documented
            assert unknown == set(), f"{path}: {unknown}"


def test_every_row_says_who_reads_it() -> None:
    for name, (_, readers, _) in rows(PAGE.read_text()).items():
        assert set(readers.split(", ")) <= READERS, name


def test_the_documented_defaults_are_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    documented = rows(PAGE.read_text())
    for name in documented:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TENANTRY_CATALOG_DSN", "postgresql://tenantry@localhost/tenantry")
    monkeypatch.setenv("TENANTRY_REDIS_URL", "redis://localhost:6379/0")
    settings = Settings.from_environment()
    flat = {**_fields(settings), **_fields(settings.engine), **_fields(settings.backup)}
    numbers = {name: d for name, (d, _, _) in documented.items() if re.fullmatch(r"[\d.]+", d)}
    assert len(numbers) >= 11
    for name, default in numbers.items():
        monkeypatch.setenv(name, str(float(default) + 1))
        changed = Settings.from_environment()
        now = {**_fields(changed), **_fields(changed.engine), **_fields(changed.backup)}
        moved = {field for field in flat if now[field] != flat[field]} - {"engine", "backup"}
        assert len(moved) == 1, name
        assert flat[moved.pop()] == float(default), name
        monkeypatch.delenv(name)


def _fields(part: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(part)


def test_what_is_called_required_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    documented = rows(PAGE.read_text())
    required = [n for n, (default, _, _) in documented.items() if default == "required"]
    values = dict.fromkeys(required, "1") | {"TENANTRY_POOLER_CONSOLE_PASSWORD_FILE": str(PAGE)}
    for name in documented:
        monkeypatch.delenv(name, raising=False)
    for missing in required:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv(missing)
        with pytest.raises(config.SettingsError, match=f"{missing} is not set"):
            _ = (Settings.from_environment(), config.pooler_from_environment())


def test_a_child_is_given_no_setting_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANTRY_TOKEN", "canary-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-2")
    monkeypatch.setenv("LC_ALL", "C")
    given = child_environment(PGAPPNAME="cp:backup")
    assert not [value for value in given.values() if "canary" in value]
    assert given["LC_ALL"] == "C"
    assert given["PGAPPNAME"] == "cp:backup"


def test_secret_files_are_found_by_their_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in rows(PAGE.read_text()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TENANTRY_REDIS_PASSWORD_FILE", str(tmp_path / "redis"))
    assert secret_files() == {"TENANTRY_REDIS_PASSWORD_FILE": tmp_path / "redis"}


def test_a_token_and_a_password_may_come_as_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("tnk_a_b\n")
    (tmp_path / "password").write_text("horse\n")
    monkeypatch.setenv("TENANTRY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("TENANTRY_TOKEN", "tnk_other")
    monkeypatch.setenv("TENANTRY_SERVER_PASSWORD_FILE", str(tmp_path / "password"))
    found = config.ClientSettings.from_environment()
    assert found.token is not None
    assert found.server_password is not None
    assert (found.token.reveal(), found.server_password.reveal()) == ("tnk_a_b", "horse")
