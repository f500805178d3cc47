"""The first person of the console: a link that signs in once, printed by the first start."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from control_plane.config import child_environment
from control_plane.domain.people import PERSON_ROLES
from deploy.local.problem import StackError

ADMIN_EMAIL = "admin@localhost"
_SECONDS = 60


def invite(facts: dict[str, Any]) -> str | None:
    """A sign-in link for somebody who may do everything, while there is nobody at all.

    Raises:
        StackError: the person or the link could not be made.
    """
    if _tenantry(facts, "list"):
        return None
    roles = [word for role in PERSON_ROLES for word in ("--role", role)]
    _tenantry(facts, "add", ADMIN_EMAIL, "--name", "Local admin", *roles)
    return str(_tenantry(facts, "link", ADMIN_EMAIL)["url"])


def _tenantry(facts: dict[str, Any], *arguments: str) -> Any:  # noqa: ANN401 - a JSON document
    """What ``tenantry people …`` of this stack prints."""
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("tenantry")), "people", *arguments, "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env=child_environment(TENANTRY_HOME=str(facts["state_dir"])),
    )
    if ended.returncode != 0:
        raise StackError(f"no sign-in link could be made: {ended.stdout or ended.stderr}")
    return json.loads(ended.stdout)
