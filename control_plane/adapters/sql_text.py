"""SQL that takes no parameters: names go into it here and nowhere else."""

import re
from functools import cache
from importlib import resources

import msgspec

from control_plane.adapters.scram import VERIFIER_PATTERN

# Every name is made in control_plane.domain.names; nothing a person typed has this shape by luck
# alone, and nothing of this shape can end a quoted identifier. 63 bytes is NAMEDATALEN - 1.
_NAME = re.compile(r"(t|tpl|cp)_[a-z0-9_]{1,59}")


class Clause(msgspec.Struct, frozen=True):
    """A piece of SQL that this program made of words of its own."""

    text: str


@cache
def load(file: str) -> str:
    """The text of ``control_plane/adapters/sql/<file>.sql``."""
    folder = resources.files("control_plane.adapters").joinpath("sql")
    return folder.joinpath(f"{file}.sql").read_text(encoding="utf-8")


def fill(template: str, /, **values: str | int | Clause) -> str:
    """``template`` with each ``{key}`` replaced: generated names quoted, verifiers and integers.

    A ``Clause`` goes in as it is.

    Raises:
        ValueError: a value is not a name of ours, a SCRAM verifier or an integer.
    """
    return template.format_map({key: _fragment(key, value) for key, value in values.items()})


def _fragment(key: str, value: str | int | Clause) -> str:
    if isinstance(value, Clause):
        return value.text
    if isinstance(value, int):
        return str(int(value))
    if _NAME.fullmatch(value):
        return f'"{value}"'
    if VERIFIER_PATTERN.fullmatch(value):
        return f"'{value}'"
    raise ValueError(f"{key}: not a generated name, a SCRAM verifier or an integer")
