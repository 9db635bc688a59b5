"""`inferbus completion`: what a shell needs to complete verbs and options at a Tab."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from inferbus_client.exits import Exit

_SHELLS_FILES: Final = """\b
bash   eval "$(inferbus completion bash)"       in ~/.bashrc
zsh    eval "$(inferbus completion zsh)"        in ~/.zshrc
fish   inferbus completion fish | source        in ~/.config/fish/config.fish
"""


@click.command(epilog=_SHELLS_FILES, short_help="Print what makes a shell complete verbs and options.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> int:
    """Print the script that makes SHELL complete verbs and options."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows each of the choices above
    click.echo(kind(context.find_root().command, {}, "inferbus", "_INFERBUS_COMPLETE").source())
    return Exit.OK
