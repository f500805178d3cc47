"""Click classes: every command takes ``--json`` and ``--utc``, groups load their parts late.

A group can also have a default command, for lines such as ``restore SLUG`` beside ``restore undo``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from control_plane.cli.session import Session


def _remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - the signature click calls
    if value and parameter.name is not None:
        setattr(context.ensure_object(Session), parameter.name, True)


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Print one JSON object or array, and nothing else.",
        ),
        click.Option(
            ["--utc"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Print times in full, in UTC.",
        ),
    ]


class _Shared(click.Command):
    """What commands and groups have in common; ``examples`` are shown at the end of the help."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:  # noqa: ANN401 - click's own arguments
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params.extend(_shared_options())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{' ' * formatter.current_indent}{example}\n")


class Command(_Shared):
    """A command with the shared options."""


class Group(_Shared, click.Group):
    """A group whose commands, and itself, take the shared options."""

    command_class = Command


class _ContextOfTheGroup(click.Context):
    """The context of a default command: nobody typed a name for it."""

    @property
    def command_path(self) -> str:
        return self.parent.command_path if self.parent is not None else super().command_path


class DefaultCommand(Command):
    """The command that a ``DefaultGroup`` runs when the first word names none of the others."""

    context_class = _ContextOfTheGroup


class DefaultGroup(Group):
    """A group that is a command itself: ``restore SLUG`` beside ``restore undo SLUG``.

    A first word that is the name of a command always means the command; a tenant of that name is
    called by its id. Name, help and examples are those of the default command.
    """

    def __init__(self, default: DefaultCommand) -> None:
        super().__init__(
            name=default.name,
            help=default.help,
            examples=default.examples,
            # They are the default command's.
            context_settings={"ignore_unknown_options": True},
        )
        self.default = default

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is not None:
            return super().resolve_command(ctx, args)
        return self.name, self.default, args

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        first = " ".join(self.default.collect_usage_pieces(ctx))
        formatter.write_usage(ctx.command_path, first)
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix=" " * len("Usage: "))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.default.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = super().shell_complete(ctx, incomplete)
        known = {item.value for item in found}
        first = next(one for one in self.default.params if isinstance(one, click.Argument))
        more = self.default.shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            more = [*more, *first.shell_complete(ctx, incomplete)]
        return [*found, *(item for item in more if item.value not in known)]


@dataclass(frozen=True)
class Lazy:
    """A command that is imported when it is called; ``target`` is ``module:attribute``."""

    target: str
    summary: str

    def load(self) -> click.Command:
        module, _, attribute = self.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


class LazyGroup(Group):
    """A group that lists its commands without importing them."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:  # noqa: ANN401 - click's own arguments
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        found = self._lazy.get(cmd_name)
        return found.load() if found else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, part.summary) for name, part in self._lazy.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=part.summary)
            for name, part in self._lazy.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]
