"""The help of every command."""

import click
import pytest

from fleetctl.command import GLOBAL_NAMES
from fleetctl.main import ALIASES, COMMANDS, cli, run

_SHORT = {name: text for section in COMMANDS.values() for name, (_, text) in section.items()}


@pytest.mark.parametrize("name", sorted(_SHORT))
def test_the_list_of_commands_says_what_each_command_says_itself(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert (command.help or "").splitlines()[0] == _SHORT[name]


@pytest.mark.parametrize(("alias", "name"), sorted(ALIASES.items()))
def test_an_alias_is_the_command(alias: str, name: str) -> None:
    context = click.Context(cli)
    assert cli.get_command(context, alias) is cli.get_command(context, name)


@pytest.mark.parametrize("name", sorted(_SHORT))
def test_every_command_takes_the_global_options(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        assert leaf is not None
        assert set(GLOBAL_NAMES) <= {param.name for param in leaf.params}


@pytest.mark.parametrize("name", sorted(_SHORT))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert _SHORT[name] in " ".join(capsys.readouterr().out.split())


def test_without_a_command_the_help_is_shown_and_it_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "soft-restart, reload" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_FLEETCTL_COMPLETE" in capsys.readouterr().out


def test_the_version_is_printed_in_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert run(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("fleetctl ")
    assert run(["version", "-o", "json"]) == 0
    assert '"protocol_version": 1' in capsys.readouterr().out
