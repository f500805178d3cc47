"""The Dockerfile and the scripts: what linters say, and whether all that they name is there."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from control_plane.config import REPOSITORY
from control_plane.domain.preflight import NEWEST_MAJOR, OLDEST_MAJOR
from tests.unit.deploy.composition import DOCKERFILE, parsed
from tests.unit.test_configuration_page import PAGE, rows

SCRIPTS = ("dev", "deploy/smoke.sh", "deploy/smoke-kubernetes.sh", ".ci/run")
TEXT = DOCKERFILE.read_text()


def lint(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_dockerfile_has_no_finding() -> None:
    ended = lint("hadolint", str(DOCKERFILE))
    assert (ended.returncode, ended.stdout) == (0, "")


def test_a_dockerfile_that_is_wrong_has_findings(tmp_path: Path) -> None:
    for wrong in ("FORM python:3.13", "FROM python\nUSER root", "FROM a:1\nCOPY x"):
        (tmp_path / "Dockerfile").write_text(wrong + "\n")
        assert lint("hadolint", str(tmp_path / "Dockerfile")).returncode != 0, wrong


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_have_no_finding(script: str) -> None:
    ended = lint("shellcheck", str(REPOSITORY / script))
    assert (ended.returncode, ended.stdout) == (0, "")


def test_a_script_that_is_wrong_has_findings(tmp_path: Path) -> None:
    wrong = (REPOSITORY / "deploy" / "smoke.sh").read_text().replace('"$enrolled"', "$enrolld")
    (tmp_path / "smoke.sh").write_text(wrong)
    assert lint("shellcheck", str(tmp_path / "smoke.sh")).returncode != 0


def test_everything_that_is_copied_is_there_and_let_through() -> None:
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert len(copied) == 8
    for name in copied:
        assert (REPOSITORY / name).exists(), name
        assert f"!{name}" in ignored, name
    assert set(_packages()) <= set(copied)


def _project() -> str:
    return (REPOSITORY / "pyproject.toml").read_text()


def _packages() -> list[str]:
    found = tomllib.loads(_project())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return [str(name) for name in found]


def test_code_that_changed_is_installed_though_its_version_did_not() -> None:
    """uv takes what is installed for the same until one of these files changes."""
    keys = tomllib.loads(_project())["tool"]["uv"]["cache-keys"]
    wanted = ["pyproject.toml", *(f"{name}/**" for name in _packages())]
    assert sorted(key["file"] for key in keys) == sorted(wanted)


def test_the_clients_are_those_of_every_supported_major() -> None:
    majors = sorted(int(major) for major in re.findall(r"postgresql-client-(\d+)", TEXT))
    assert majors == list(range(OLDEST_MAJOR, NEWEST_MAJOR + 1))


def test_uv_is_the_one_that_dev_uses() -> None:
    wanted = re.search(r"uv_version='uv>=(\d+\.\d+),", (REPOSITORY / "dev").read_text())
    assert wanted is not None
    assert f'"uv=={wanted[1]}.*"' in TEXT


def test_its_commands_are_ones_that_the_entry_point_takes() -> None:
    assert 'ENTRYPOINT ["tenantry-run"]' in TEXT
    assert 'tenantry-run = "deploy.run:main"' in _project()
    commands = [json.loads(line) for line in re.findall(r"CMD (\[.+\])$", TEXT, re.MULTILINE)]
    assert len(commands) == 4
    for command in commands:
        words = command[1:] if command[0] == "tenantry-run" else command
        assert not isinstance(parsed(words), str), words


def test_its_variables_are_ones_that_are_read_and_its_directories_are_made() -> None:
    given = dict(re.findall(r"(TENANTRY_[A-Z_]+)=(\S+)", TEXT))
    assert set(given) <= set(rows(PAGE.read_text()))
    made = shlex.split(" ".join(re.findall(r"install -d .+?(/.+?)\nCOPY", TEXT, re.DOTALL)))
    assert given["TENANTRY_HOME"] in made


def test_nobody_is_root_in_the_end() -> None:
    for stage in TEXT.split("\nFROM ")[2:]:
        users = re.findall(r"^USER (\S+)$", stage, re.MULTILINE)
        assert users[-1] == "10001:10001"
