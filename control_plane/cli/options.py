"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from control_plane.domain.keys import ROLES

F = TypeVar("F", bound=Callable[..., Any])

wait_option = click.option(
    "--wait", is_flag=True, help="Follow the work to its end; exit 0 only if it succeeds."
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and change nothing."
)


def limit_option(default: int | None) -> Callable[[F], F]:
    """``--limit``; without a default every item is fetched."""
    shown = f"At most so many. Default: {default or 'all of them'}."
    return click.option("--limit", type=click.IntRange(min=1), default=default, help=shown)


def _labels(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    labels = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            message = f"{text!r} is not a label; write it as key=value"
            raise click.BadParameter(message, context, parameter)
        labels[key] = value
    return labels


labels_option = click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", callback=_labels, help="Repeatable."
)

# The word of the documents for the role that the tables call ``app``.
_APPLICATION = "application"
ROLE_WORDS = (*ROLES, _APPLICATION)


def role_of(word: str) -> str:
    """The role meant by a word of ``ROLE_WORDS``."""
    return "app" if word == _APPLICATION else word
