"""`respite completion`: the script that has a shell complete commands, flags and files after TAB."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

# What `main` asks the environment for, which the scripts set; click makes it of the program's name.
_VARIABLE: Final = "_RESPITE_COMPLETE"
# After \b, lines stay as they are.
_HOW: Final = """\b
bash  eval "$(respite completion bash)"            in ~/.bashrc; 4.4 or newer
zsh   eval "$(respite completion zsh)"             in ~/.zshrc, after compinit
fish  respite completion fish | source             in config.fish
"""


@click.command(epilog=_HOW)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the script that completes this command in a SHELL."""
    found = get_completion_class(shell)
    assert found is not None, shell
    click.echo(found(ctx.find_root().command, {}, "respite", _VARIABLE).source())
