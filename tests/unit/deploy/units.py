"""The systemd units as data, and what must hold between them, the code and its configuration."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from control_plane.config import REPOSITORY
from tests.unit.deploy.composition import parsed
from tests.unit.test_configuration_page import PAGE, rows

FOLDER = REPOSITORY / "deploy" / "systemd"
ENTRY_POINT = "/opt/tenantry/bin/tenantry-run"
# What every unit has: none of them needs more than its files, the network and itself.
HARDENED = {
    "User": "tenantry",
    "UMask": "0077",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "PrivateTmp": "yes",
    "ProtectHome": "yes",
    "ProtectSystem": "strict",
    "SystemCallFilter": "@system-service",
}
Unit = dict[str, list[str]]
WITH_RDS = FOLDER / "rds.conf"


def read(path: Path) -> Unit:
    """Every directive with its values, in order."""
    found: Unit = defaultdict(list)
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found[name].append(value)
    return dict(found)


def dropped_in(unit: Unit, *files: Path) -> Unit:
    """The unit with what these files add to it."""
    found = {name: list(values) for name, values in unit.items()}
    for directive, values in (pair for file in files for pair in read(file).items()):
        found.setdefault(directive, []).extend(values)
    return found


def units() -> dict[str, Unit]:
    return {path.name: read(path) for path in sorted(FOLDER.glob("*.service"))}


def variables_of(path: Path) -> dict[str, str]:
    """What an example of an environment file says."""
    pairs = [line.partition("=") for line in path.read_text().splitlines() if line[:1].isupper()]
    return {name: value for name, _, value in pairs}


def environment(unit: Unit) -> dict[str, str]:
    return dict(value.partition("=")[::2] for value in unit.get("Environment", []))


def command(unit: Unit, instance: str) -> list[str]:
    return [word.replace("%i", instance) for word in shlex.split(unit["ExecStart"][0])]


def credentials(unit: Unit) -> dict[str, str]:
    return dict(value.partition(":")[::2] for value in unit.get("LoadCredential", []))


def faults(name: str, unit: Unit, page: str, known: Mapping[str, Unit]) -> Iterator[str]:
    """What is wrong with one unit; ``page`` is how to install it."""
    words = command(unit, "control")
    taken = parsed(words[1:])
    if words[0] != ENTRY_POINT:
        yield f"starts {words[0]}"
    elif isinstance(taken, str):
        yield f"the command is refused: {taken}"
    yield from _variables(unit)
    yield from _credentials(unit)
    yield from _files(unit)
    for directive, value in HARDENED.items():
        if unit.get(directive) != [value]:
            yield f"{directive} is not {value}"
    yield from _others(unit, known)
    if unit.get("StartLimitIntervalSec") != ["0"] or "Restart" not in unit:
        yield "it may be given up"
    if name.partition(".")[0].rstrip("@") not in page:
        yield "docs/install.md does not say how to start it"


def _others(unit: Unit, known: Mapping[str, Unit]) -> Iterator[str]:
    for directive in ("Requires", "Wants", "After"):
        for other in " ".join(unit.get(directive, [])).replace("@%i", "@").split():
            if other.endswith(".service") and other not in known:
                yield f"{directive} names {other}, which is not there"
    for other in unit.get("Requires", []):
        yield f"where {other} failed it would never start"
    after = " ".join(unit.get("After", [])).split()
    for other in set(" ".join(unit.get("Wants", [])).split()).difference(after):
        yield f"it does not start after {other}"


def _variables(unit: Unit) -> Iterator[str]:
    documented = rows(PAGE.read_text())
    for variable, value in environment(unit).items():
        if variable not in documented and not variable.startswith("AWS_"):
            yield f"nobody reads {variable}"
        secret = re.search(r"PASSWORD|SECRET|TOKEN|CREDENTIALS", variable)
        if secret and not value.startswith("%d/"):
            yield f"{variable} is no credential"


def _credentials(unit: Unit) -> Iterator[str]:
    given = credentials(unit)
    used = {v.removeprefix("%d/") for v in environment(unit).values() if v.startswith("%d/")}
    for credential in sorted(set(given) ^ used):
        yield f"the credential {credential} is not both given and used"
    for path in given.values():
        if not path.startswith("/etc/tenantry/secrets/"):
            yield f"{path} is not where secrets are"


def _files(unit: Unit) -> Iterator[str]:
    documented = rows(PAGE.read_text())
    for file in unit.get("EnvironmentFile", []):
        example = FOLDER / Path(file.replace("%i", "p1")).name
        if not example.is_file():
            yield f"there is no example of {file}"
        elif unknown := set(variables_of(example)) - set(documented):
            yield f"{example.name}: nobody reads {', '.join(sorted(unknown))}"
