"""`version` and `completion`."""

import click
from click.shell_completion import get_completion_class

from fleet_core.version import PROTOCOL_VERSION, program_version
from fleetctl.command import fleet_command
from fleetctl.output import Output
from fleetctl.settings import Settings

_COMPLETE_VARIABLE = "_FLEETCTL_COMPLETE"


def version_line() -> str:
    return f"fleetctl {program_version()} (protocol {PROTOCOL_VERSION})"


@fleet_command("version")
def version(settings: Settings) -> None:
    """Print the version."""
    output = Output(settings)
    if settings.structured:
        output.document({"version": program_version(), "protocol_version": PROTOCOL_VERSION})
    else:
        output.line(version_line())


@fleet_command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, settings: Settings, shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    bash:  eval "$(fleetctl completion bash)"      in ~/.bashrc
    zsh:   eval "$(fleetctl completion zsh)"       in ~/.zshrc
    fish:  fleetctl completion fish | source       in ~/.config/fish/config.fish
    """
    generator = get_completion_class(shell)
    if generator is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(generator(ctx.find_root().command, {}, "fleetctl", _COMPLETE_VARIABLE).source())
