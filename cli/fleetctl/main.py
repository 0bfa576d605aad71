"""The entry point: finds a command without importing the others, and turns every failure into a line and an exit code."""

import errno
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from fleetctl.command import GLOBAL_NAMES, global_options
from fleetctl.errors import ExitCode, FleetError
from fleetctl.settings import Settings

_OBJECTS_BEFORE_COLLECTION = 100_000
"""More than the modules of a command make: most commands end before there is garbage to speak of, and a fourteenth sooner."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
# Command → (module and attribute, help). Grouped as the help shows them; a test holds each help and its command together.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "up": ("fleetctl.up.command:up", "Run the whole system on this machine, in the foreground."),
        "start": ("fleetctl.start:start", "Create and start an app, or start a stopped one again."),
        "apply": ("fleetctl.apply:apply", "Make the apps of a file what the file says, one after the other."),
        "diff": ("fleetctl.apply:diff", "Show how the apps of a file differ from what runs."),
        "export": ("fleetctl.export:export", "Write a fleet file of the apps that run."),
        "import": ("fleetctl.import_command:import_", "Write a fleet file from what another supervisor runs here."),
        "set-size": ("fleetctl.set_size:set_size", "Change how many workers an app has."),
        "soft-restart": ("fleetctl.lifecycle:soft_restart", "Replace an app's workers one by one, losing no request."),
        "restart": ("fleetctl.lifecycle:restart", "Restart an app: softly, all at once, or one worker."),
        "stop": ("fleetctl.lifecycle:stop", "Drain and stop an app's workers; the app stays."),
        "remove": ("fleetctl.lifecycle:remove", "Stop an app and forget it."),
    },
    "Change and undo": {
        "env-set": ("fleetctl.environment:env_set", "Set variables of an app: a new revision, rolled out."),
        "env-unset": (
            "fleetctl.environment:env_unset",
            "Take variables of an app away: a new revision, rolled out.",
        ),
        "deploy": ("fleetctl.deploy:deploy", "Send code to an app's hosts and roll it out."),
        "rollback": ("fleetctl.history:rollback", "Roll an earlier revision out again."),
        "rollout": ("fleetctl.rollout:rollout", "Follow and steer what is being done to an app."),
        "history": ("fleetctl.history:history", "Show an app's revisions and what was done to it, the newest last."),
    },
    "Look": {
        "ls": ("fleetctl.listing:ls", "List the apps."),
        "status": ("fleetctl.status:status", "Show how the fleet or one app is, and what to do next."),
        "ps": ("fleetctl.listing:ps", "List the workers."),
        "top": ("fleetctl.top:top", "Show who uses how much, live on a terminal."),
        "logs": ("fleetctl.logs:logs", "Print what workers write, and follow it with -f."),
        "env-get": ("fleetctl.environment:env_get", "Show the variables an app sets, with their values."),
        "info": ("fleetctl.listing:info", "Show the controller and the etcd behind it."),
    },
    "Fleet": {
        "backup": ("fleetctl.backup:backup", "Write what etcd holds of the fleet into a file."),
        "restore": ("fleetctl.backup:restore", "Put a backup in the place of what etcd holds."),
        "host": ("fleetctl.hosts:host", "The hosts: list them, drain one, label one."),
        "balancer": ("fleetctl.balancers:balancer", "The balancers and their upstream lists."),
        "controller": (
            "fleetctl.controllers:controller",
            "The controllers: who leads, who can be reached, whom etcd answers.",
        ),
        "cert": ("fleetctl.certificates:cert", "Certificates: who is who in the fleet."),
    },
    "Other": {
        "completion": ("fleetctl.about:completion", "Print the script that completes commands in a shell."),
        "version": ("fleetctl.about:version", "Print the version."),
    },
}
ALIASES = {"scale": "set-size", "reload": "soft-restart", "soft-stop": "stop"}
_TARGETS = {name: command for section in COMMANDS.values() for name, command in section.items()}


class Fleetctl(click.Group):
    """Imports a command's module when the command is used, so that `fleetctl --help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_TARGETS, *ALIASES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _TARGETS.get(ALIASES.get(cmd_name, cmd_name))
        if target is None:
            return None
        module, _, attribute = target[0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{target[0]} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        other_names = {name: alias for alias, name in ALIASES.items()}
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{name}, {other_names[name]}" if name in other_names else name, text)
                        for name, (_, text) in commands.items()
                    ]
                )


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value and not ctx.resilient_parsing:
        from fleetctl.about import version_line

        click.echo(version_line())
        ctx.exit()


@click.group(
    "fleetctl",
    cls=Fleetctl,
    params=[
        *global_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Keeps your processes running on many hosts, and changes them without losing a request.

    \b
    fleetctl up --hosts 3                        a fleet on this machine
    fleetctl start ./server.js --http :8080      an app behind its balancer
    fleetctl set-size server 8                   eight workers of it
    fleetctl soft-restart server                 new processes, no failed request
    """
    ctx.obj = Settings().overridden({name: options[name] for name in GLOBAL_NAMES})


def run(arguments: list[str]) -> int:
    """Carry out one command line and return its exit code; what went wrong is said on standard error."""
    try:
        code = cli.main(arguments, prog_name="fleetctl", standalone_mode=False)
        sys.stdout.flush()
    except FleetError as error:
        return _fail(error.exit_code, error.message, error.hint, error.details)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return ExitCode.USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "fleetctl"
        return _fail(ExitCode.USAGE, _one_line(error.format_message()), f"`{path} --help` shows how it is used")
    except click.ClickException as error:
        return _fail(ExitCode.FAILED, _one_line(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        return _fail(ExitCode.DETACHED, "interrupted")
    except BrokenPipeError:
        # The reader had enough (`| head`).
        _print_no_more()
        return ExitCode.FAILED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            _print_no_more()
            return _fail(ExitCode.FAILED, f"the output cannot be written: {error.strerror}")
        if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
            # Bytes of an argument that are not UTF-8 (PEP 383); no name and no value may hold them.
            return _fail(ExitCode.USAGE, f"{error.object!r} is not UTF-8, as names and values have to be")
        if os.environ.get("FLEET_DEBUG"):
            raise
        return _fail(
            ExitCode.FAILED,
            f"internal error: {_one_line(f'{type(error).__name__}: {error}')}",
            "say it again with FLEET_DEBUG=1 to see where, and report it",
        )
    return code if isinstance(code, int) else ExitCode.DONE


def main() -> NoReturn:
    """The console script."""
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    _open_standard_streams()
    sys.exit(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Those that a caller closed (`>&-`) are None, and the next file or socket to be opened would get their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - until the end


def _print_no_more() -> None:
    """What is left may not be flushed at exit (Python's signal documentation, SIGPIPE)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(code: int, message: str, hint: str = "", details: Sequence[str] = ()) -> int:
    click.echo(f"fleetctl: {message}", err=True)
    for line in (*details, hint):
        if line:
            click.echo(f"  {line}", err=True)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
