"""deploy/smoke.sh against a docker that only writes down what it is told; no engine is here."""

from pathlib import Path

import pytest

from control_plane.config import REPOSITORY
from tests.unit.deploy.composition import COMPOSE, load, taken
from tests.unit.deploy.recorded import Ran, run

SCRIPT = REPOSITORY / "deploy" / "smoke.sh"
SERVICES = load(COMPOSE.read_text())["services"]


def faults(ran: Ran) -> list[str]:
    """What it says that the composition or the command line does not know."""
    found = []
    for words in ran.of("docker", "compose", "run"):
        place = next((at for at, word in enumerate(words) if word in SERVICES), None)
        rest = words[place + 1 :] if place is not None else []
        if place is None or words[place] != "cli" or not taken(rest):
            found.append(f"not known: {' '.join(words)}")
        # A clinic is placed on a server that is enrolled under the name of its service.
        named = [rest[at + 1] for at, word in enumerate(rest) if word in {"--server", "--to"}]
        found += [f"no server {name}" for name in named if name not in SERVICES]
    return found


def test_it_comes_to_its_end_and_takes_everything_down(tmp_path: Path) -> None:
    ran = run(tmp_path, SCRIPT.name, SCRIPT.read_text())
    assert ran.code == 0, ran.said
    assert "smoke: everything works" in ran.said.splitlines()
    assert len(ran.of("docker", "run")) >= 8
    assert faults(ran) == []
    assert "--volumes" in ran.of("docker", "down")[0]


def test_what_fails_ends_it_and_is_taken_down(tmp_path: Path) -> None:
    ran = run(tmp_path, SCRIPT.name, SCRIPT.read_text(), refused="move")
    assert (ran.code, len(ran.of("docker", "logs")), len(ran.of("docker", "down"))) == (1, 1, 1)
    assert "everything works" not in ran.said


def test_what_is_kept_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path, SCRIPT.name, SCRIPT.read_text(), KEEP="1").of("docker", "down") == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("--no-deps cli", "--no-deps tool", "not known"),
        ("--in-place", "--in-its-place", "not known"),
        ("tenantry backup", "tenantry backing", "not known"),
        ("--to pg-b", "--to pg-c", "no server pg-c"),
    ],
)
def test_a_script_that_is_wrong_is_found(
    tmp_path: Path, right: str, wrong: str, fault: str
) -> None:
    text = SCRIPT.read_text()
    assert right in text
    ran = run(tmp_path, SCRIPT.name, text.replace(right, wrong))
    assert any(fault in line for line in faults(ran)), ran.asked
