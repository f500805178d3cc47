"""``tenantry completion``: the script that makes a shell complete our commands."""

import click
from click.shell_completion import get_completion_class

from control_plane.cli.commands import Command

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    cls=Command,
    examples=(
        "source <(tenantry completion bash)",
        'tenantry completion zsh > "${fpath[1]}/_tenantry"',
        "tenantry completion fish > ~/.config/fish/completions/tenantry.fish",
    ),
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click does not complete for {shell}")
    root = context.find_root()
    click.echo(kind(root.command, {}, "tenantry", "_TENANTRY_COMPLETE").source())
