"""A script of deploy/ run against programs that only write down what they are told."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

# What the scripts read: the first answer whose word is in the command.
_ANSWERS = {
    "docker": [("'wait'", "0")],
    "kubectl": [("clusterIP", "10.96.0.7")],
    "helm": list[tuple[str, str]](),
}
# Answers, and keeps what it is told and given.
_PROGRAM = """#!{python} -IS
import json, pathlib, sys
words, told = sys.argv[1:], sys.stdin.read() if {{"-", "--stdin"}} & set(sys.argv) else ""
files = {{w: pathlib.Path(w).read_text() for w in words if w.endswith("values.yaml")}}
with open({log!r}, "a") as log:
    log.write(json.dumps(["{name}", words, told, files]) + "\\n")
print(next((said for word, said in {answers!r} if word in str(words)), "said"))
sys.exit({refused!r} in words)
"""


@dataclass
class Ran:
    """What the script asked for, in its order."""

    code: int
    said: str
    left: list[str]
    asked: list[tuple[str, list[str], str, dict[str, str]]] = field(default_factory=list)

    def of(self, program: str, *words: str) -> list[list[str]]:
        return [w for p, w, *_ in self.asked if p == program and set(words) <= set(w)]

    def commands(self, *before: str) -> list[list[str]]:
        """Every command line of ``tenantry`` that is run behind these words."""
        found = [words for words in self.of(*before) if "tenantry" in words]
        return [words[words.index("tenantry") + 1 :] for words in found]


def run(folder: Path, name: str, text: str, refused: str = "nothing", **environment: str) -> Ran:
    """What a script of this name and text asks ``docker``, ``kubectl`` and ``helm`` for.

    They refuse a command with the word ``refused`` in it.
    """
    log = folder / "log"
    programs = folder / "bin"
    programs.mkdir()
    for program, answers in _ANSWERS.items():
        given = {"python": sys.executable, "log": str(log), "name": program, "refused": refused}
        text_of = _PROGRAM.format(**given, answers=answers)
        (programs / program).write_text(text_of)
        (programs / program).chmod(0o755)
    script = folder / "deploy" / name
    script.parent.mkdir()
    script.write_text(text)
    ended = subprocess.run(
        ["sh", str(script)],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(folder), **environment},
    )
    left = sorted(path.name for path in folder.iterdir())
    asked = [tuple(json.loads(line)) for line in log.read_text().splitlines()]
    return Ran(ended.returncode, ended.stderr, left, asked)
