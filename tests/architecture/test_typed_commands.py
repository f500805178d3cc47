"""What run books and documentation tell to type exists: each command, argument and option."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from control_plane.cli.main import tenantry
from control_plane.cli.session import Session
from control_plane.config import REPOSITORY
from deploy import run
from deploy.local import __main__ as local

PAGES = sorted([*(REPOSITORY / "deploy" / "runbooks").glob("*.md"), *REPOSITORY.glob("docs/*.md")])
_FENCED = re.compile(r"^```(sh|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_ENDS = re.compile(r"[;&|()<>]+")
PROGRAMS = ("tenantry", "tenantry-run", "dev")


def typed(page: Path) -> Iterator[list[str]]:
    """The words of each command of ours in the fenced blocks of a page."""
    for kind, block in _FENCED.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "sh" or line.startswith("$ "):
                yield from _ours(line.removeprefix("$ "))


def _ours(line: str) -> Iterator[list[str]]:
    words: list[str] = []
    lexer = shlex.shlex(re.sub(r"\$\w+", "1", line), posix=True, punctuation_chars=True)
    lexer.wordchars += ":@%{}…,+"
    try:
        tokens = list(lexer)
    except ValueError:
        # A text of several lines begins here, whose end is no command.
        tokens = list(shlex.shlex(line.partition("'")[0].partition('"')[0], posix=True))
    for token in [*tokens, ";"]:
        if not _ENDS.fullmatch(token):
            words += [] if not words and re.match(r"[A-Z_]+=", token) else [token]
            continue
        if words and Path(words[0]).name in PROGRAMS:
            yield [Path(words[0]).name, *words[1:]]
        words = []


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a command, in the words of its own parser."""
    program, *arguments = words
    if program == "tenantry":
        return _of_click(arguments)
    return _of_argparse(run._parser() if program == "tenantry-run" else local._parser(), arguments)


def _of_argparse(parser: argparse.ArgumentParser, arguments: list[str]) -> str | None:
    try:
        parser.parse_args(arguments)
    except SystemExit:
        return "is refused"
    return None


def _of_click(arguments: list[str]) -> str | None:
    command: click.Command | None = tenantry
    context = click.Context(tenantry, obj=Session(), **tenantry.context_settings)
    try:
        while isinstance(command, click.Group) and arguments and arguments[0][0] != "-":
            name, command, arguments = command.resolve_command(context, arguments)
            if command is not None:
                context = click.Context(command, parent=context, info_name=name)
        if command is not None:
            command.make_parser(context).parse_args(arguments)
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_type_exists(page: Path) -> None:
    wrong = {" ".join(words): problem for words in typed(page) if (problem := problem_of(words))}
    assert wrong == {}


def test_every_run_book_has_commands_and_a_wrong_one_is_noticed() -> None:
    for page in (REPOSITORY / "deploy" / "runbooks").glob("*.md"):
        assert list(typed(page)), page.name
    for words in (
        "tenantry poolers forget p1",
        "tenantry backup a --fast",
        "tenantry-run go",
        "dev fly",
    ):
        assert problem_of(words.split())
